package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/opts"
	"github.com/skiff-containers/skiff/internal/cli/runopts"
)

type updateOptions struct {
	r                                 container.Resources
	memory, reservation, kernelMemory opts.Bytes
	swap                              opts.SwapBytes
	cpus                              opts.NanoCPUs
	pids                              int64
	restart                           string
}

func newUpdate(a *app) *cobra.Command {
	var o updateOptions
	cmd := &cobra.Command{
		Use:         "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short:       "Update configuration of one or more containers",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container update, update"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return errors.New("you must provide one or more flags when using this command")
			}
			return a.update(cmd, &o, args)
		},
		ValidArgsFunction: a.completeContainers(),
	}
	fs := cmd.Flags()
	fs.Uint16Var(&o.r.BlkioWeight, "blkio-weight", 0, "Relative weight of block IO, 10 to 1000, or 0 for none")
	fs.Int64Var(&o.r.CPUPeriod, "cpu-period", 0, "Period of the CPU quota, in microseconds")
	fs.Int64Var(&o.r.CPUQuota, "cpu-quota", 0, "CPU quota a period, in microseconds")
	fs.Int64Var(&o.r.CPURealtimePeriod, "cpu-rt-period", 0, "Real-time CPU period, in microseconds")
	fs.Int64Var(&o.r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Real-time CPU time a period, in microseconds")
	fs.Int64VarP(&o.r.CPUShares, "cpu-shares", "c", 0, "Relative weight of CPU time")
	fs.Var(&o.cpus, "cpus", "Number of CPUs")
	fs.StringVar(&o.r.CpusetCpus, "cpuset-cpus", "", "CPUs to run on (0-3, 0,1)")
	fs.StringVar(&o.r.CpusetMems, "cpuset-mems", "", "Memory nodes to use (0-3, 0,1)")
	fs.VarP(&o.memory, "memory", "m", "Memory limit")
	fs.Var(&o.reservation, "memory-reservation", "Memory soft limit")
	fs.Var(&o.swap, "memory-swap", "Limit of memory and swap together; -1 is no limit of swap")
	fs.Var(&o.kernelMemory, "kernel-memory", "Kernel memory limit")
	_ = fs.MarkDeprecated("kernel-memory", "and no longer supported by the kernel")
	fs.Int64Var(&o.pids, "pids-limit", 0, "Limit of processes and threads; -1 is none")
	fs.StringVar(&o.restart, "restart", "", "Restart policy")
	return cmd
}

func (a *app) update(cmd *cobra.Command, o *updateOptions, names []string) error {
	r := o.r
	r.Memory, r.MemoryReservation, r.MemorySwap, r.NanoCPUs = int64(o.memory), int64(o.reservation), int64(o.swap), int64(o.cpus)
	if cmd.Flags().Changed("pids-limit") {
		r.PidsLimit = &o.pids
	}
	req := container.UpdateConfig{Resources: r}
	if o.restart != "" {
		p, err := runopts.RestartPolicy(o.restart)
		if err != nil {
			return err
		}
		req.RestartPolicy = p
	}
	cl, err := a.client(cmd.Context())
	if err != nil {
		return err
	}
	var warnings []string
	err = a.each(cmd.Context(), names, func(ctx context.Context, name string) error {
		said, err := cl.ContainerUpdate(ctx, name, req)
		if err == nil {
			a.mu.Lock()
			warnings = append(warnings, said...)
			a.mu.Unlock()
		}
		return err
	})
	for _, w := range warnings {
		fmt.Fprintln(a.err, w)
	}
	return err
}
