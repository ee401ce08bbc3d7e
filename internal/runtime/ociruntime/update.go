//go:build linux

package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

func (a *app) update(fs *flag.FlagSet) func(context.Context, []string) error {
	var file string
	var f limitFlags
	stringFlag(fs, &file, "resources", "r", "JSON file of the limits as config.json has them; - is the standard input")
	f.register(fs)
	return func(_ context.Context, args []string) error {
		r := &specs.LinuxResources{}
		if file != "" {
			if !f.empty() {
				return errs.New(errs.Invalid, "--resources stands alone: give all limits in the file")
			}
			var err error
			if r, err = a.readResources(file); err != nil {
				return err
			}
		}
		if err := f.apply(r); err != nil {
			return err
		}
		return a.applyLimits(args[0], r, f.l3, f.memBW)
	}
}

func (a *app) readResources(file string) (*specs.LinuxResources, error) {
	in := io.Reader(a.in)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxJSON))
	if err != nil {
		return nil, err
	}
	var r specs.LinuxResources
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, errs.Newf(errs.Invalid, "resources of %s: %w", file, err)
	}
	return &r, nil
}

func (a *app) applyLimits(id string, r *specs.LinuxResources, l3, bandwidth string) error {
	c, err := a.loadLocked(id)
	if err != nil {
		return err
	}
	defer c.unlock()
	st, err := c.status()
	if err != nil {
		return err
	}
	if st == stopped || st == creating {
		return errNotRunning()
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	if (l3 != "" || bandwidth != "") && c.Spec.Linux.IntelRdt == nil {
		return errs.New(errs.Invalid, "updating a non-existent Intel RDT configuration is not supported")
	}
	if err := a.checkLimits(g, r); err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	old := c.Spec.Linux.Resources
	all := merged(old, r)
	if err := c.write(g, complete(r, all), st == created); err != nil {
		if old != nil { // what was written before it failed
			_ = c.write(g, old, st == created)
		}
		return fmt.Errorf("update container %s: %w", id, err)
	}
	c.Spec.Linux.Resources = all
	if l3 != "" || bandwidth != "" {
		rdt, err := launch.UpdateRDT(c.ID, c.Spec.Linux.IntelRdt, l3, bandwidth)
		if err != nil {
			return errors.Join(fmt.Errorf("update container %s: %w", id, err), c.save()) // the other limits hold
		}
		c.Spec.Linux.IntelRdt = rdt
	}
	if p := cgroup.PIDs(r); st == created && p != nil {
		_, c.LatePIDs = g.PIDsFile(p)
	}
	return c.save()
}

// write sets limits of a container, whose command may still have to be started.
func (c *container) write(g *cgroup.Group, r *specs.LinuxResources, waits bool) error {
	if err := g.Apply(r, waits); err != nil || !waits {
		return err
	}
	return limitWaiting(g, r)
}

// limitFlags are the single limits a command line may name.
type limitFlags struct {
	blkioWeight, cpuPeriod, cpuShares, cpuBurst, cpuRTPeriod *uint64
	cpuQuota, cpuRTRuntime, cpuIdle, pids                    *int64
	memory, memoryReservation, memorySwap, kernelTCP         *int64
	cpus, mems, l3, memBW                                    string
}

func (f *limitFlags) register(fs *flag.FlagSet) {
	numberFlag(fs, &f.blkioWeight, "blkio-weight", "weight of block I/O, 10 to 1000")
	numberFlag(fs, &f.cpuPeriod, "cpu-period", "period of the processor time limit, in microseconds")
	numberFlag(fs, &f.cpuQuota, "cpu-quota", "processor time in each period, in microseconds")
	numberFlag(fs, &f.cpuBurst, "cpu-burst", "unused processor time that may be saved up, in microseconds")
	numberFlag(fs, &f.cpuShares, "cpu-share", "weight of processor time")
	numberFlag(fs, &f.cpuRTPeriod, "cpu-rt-period", "period of the real-time limit, in microseconds")
	numberFlag(fs, &f.cpuRTRuntime, "cpu-rt-runtime", "real time in each period, in microseconds")
	numberFlag(fs, &f.cpuIdle, "cpu-idle", "1: run only when nobody else wants to")
	fs.StringVar(&f.cpus, "cpuset-cpus", "", "processors to use")
	fs.StringVar(&f.mems, "cpuset-mems", "", "memory nodes to use")
	bytesFlag(fs, &f.memory, "memory", "limit of memory")
	bytesFlag(fs, &f.memoryReservation, "memory-reservation", "memory to be left when the host is short of it")
	bytesFlag(fs, &f.memorySwap, "memory-swap", "limit of memory and swap together; -1 is none")
	bytesFlag(fs, &f.kernelTCP, "kernel-memory-tcp", "")
	numberFlag(fs, &f.pids, "pids-limit", "limit of processes and threads; -1 is none")
	fs.StringVar(&f.l3, "l3-cache-schema", "", "schema of the L3 cache, of a container with intelRdt")
	fs.StringVar(&f.memBW, "mem-bw-schema", "", "schema of memory bandwidth, of a container with intelRdt")
	fs.Func("kernel-memory", "", func(string) error { return nil }) // no kernel has it any more, as with runc
}

func (f *limitFlags) empty() bool { return *f == limitFlags{} }

func (f *limitFlags) apply(r *specs.LinuxResources) error {
	if f.blkioWeight != nil {
		w := uint16(*f.blkioWeight) //nolint:gosec // checked below
		if *f.blkioWeight > 1000 {
			return errs.Newf(errs.Invalid, "blkio-weight %d is not within 10 to 1000", *f.blkioWeight)
		}
		r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}
	cpu := specs.LinuxCPU{
		Shares: f.cpuShares, Quota: f.cpuQuota, Period: f.cpuPeriod, Burst: f.cpuBurst,
		RealtimePeriod: f.cpuRTPeriod, RealtimeRuntime: f.cpuRTRuntime, Idle: f.cpuIdle, Cpus: f.cpus, Mems: f.mems,
	}
	if cpu != (specs.LinuxCPU{}) {
		r.CPU = &cpu
	}
	memory := specs.LinuxMemory{Limit: f.memory, Reservation: f.memoryReservation, Swap: f.memorySwap, KernelTCP: f.kernelTCP}
	if memory != (specs.LinuxMemory{}) {
		r.Memory = &memory
	}
	if f.pids != nil {
		r.Pids = &specs.LinuxPids{Limit: f.pids}
	}
	return nil
}
