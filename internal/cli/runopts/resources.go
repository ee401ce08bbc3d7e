package runopts

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/cli/opts"
)

// resourceFlags are limits and weights.
type resourceFlags struct {
	memory, memoryReservation, kernelMemory opts.Bytes
	memorySwap                              opts.SwapBytes
	swappiness                              int64
	shmSize                                 opts.Bytes
	cpus                                    opts.NanoCPUs
	cpuShares, cpuPeriod, cpuQuota          int64
	cpuRTPeriod, cpuRTRuntime               int64
	cpuCount, cpuPercent                    int64
	cpusetCPUs, cpusetMems                  string
	pidsLimit                               int64
	oomKillDisable                          bool
	oomScoreAdj                             int
	ulimits                                 opts.Ulimits
	blkioWeight                             uint16
	blkioWeightDevice                       listFlag
	readBps, writeBps, readIOps, writeIOps  listFlag
	ioMaxBandwidth                          opts.Bytes
	ioMaxIOps                               uint64
}

func (r *resourceFlags) register(fs *pflag.FlagSet) {
	fs.VarP(&r.memory, "memory", "m", "Memory limit")
	fs.Var(&r.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&r.memorySwap, "memory-swap", "Limit of memory and swap together; -1 is no limit of swap")
	fs.Int64Var(&r.swappiness, "memory-swappiness", -1, "How eagerly memory is swapped out (0 to 100)")
	fs.Var(&r.kernelMemory, "kernel-memory", "Kernel memory limit")
	_ = fs.MarkDeprecated("kernel-memory", "and no longer supported by the kernel")
	fs.Var(&r.shmSize, "shm-size", "Size of /dev/shm")
	fs.Var(&r.cpus, "cpus", "Number of CPUs")
	fs.Int64VarP(&r.cpuShares, "cpu-shares", "c", 0, "Relative weight of CPU time")
	fs.Int64Var(&r.cpuPeriod, "cpu-period", 0, "Period of the CPU quota, in microseconds")
	fs.Int64Var(&r.cpuQuota, "cpu-quota", 0, "CPU quota a period, in microseconds")
	fs.Int64Var(&r.cpuRTPeriod, "cpu-rt-period", 0, "Real-time CPU period, in microseconds")
	fs.Int64Var(&r.cpuRTRuntime, "cpu-rt-runtime", 0, "Real-time CPU time a period, in microseconds")
	fs.Int64Var(&r.cpuCount, "cpu-count", 0, "CPU count (Windows only)")
	fs.Int64Var(&r.cpuPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	fs.StringVar(&r.cpusetCPUs, "cpuset-cpus", "", "CPUs to run on (0-3, 0,1)")
	fs.StringVar(&r.cpusetMems, "cpuset-mems", "", "Memory nodes to use (0-3, 0,1)")
	fs.Int64Var(&r.pidsLimit, "pids-limit", 0, "Limit of processes and threads; -1 is none")
	fs.BoolVar(&r.oomKillDisable, "oom-kill-disable", false, "Do not kill processes when memory runs out")
	fs.IntVar(&r.oomScoreAdj, "oom-score-adj", 0, "The host's preference for killing the container (-1000 to 1000)")
	fs.Var(&r.ulimits, "ulimit", "Resource limit (name=soft[:hard])")
	fs.Uint16Var(&r.blkioWeight, "blkio-weight", 0, "Relative weight of block IO, 10 to 1000, or 0 for none")
	fs.Var(&r.blkioWeightDevice, "blkio-weight-device", "Relative weight of block IO on a device (path:weight)")
	fs.Var(&r.readBps, "device-read-bps", "Limit of bytes a second read from a device (path:rate)")
	fs.Var(&r.writeBps, "device-write-bps", "Limit of bytes a second written to a device (path:rate)")
	fs.Var(&r.readIOps, "device-read-iops", "Limit of reads a second from a device (path:rate)")
	fs.Var(&r.writeIOps, "device-write-iops", "Limit of writes a second to a device (path:rate)")
	fs.Var(&r.ioMaxBandwidth, "io-maxbandwidth", "Limit of IO bandwidth of the system drive (Windows only)")
	fs.Uint64Var(&r.ioMaxIOps, "io-maxiops", 0, "Limit of IO operations a second of the system drive (Windows only)")
}

func (r *resourceFlags) apply(fs *pflag.FlagSet, d *Document) error {
	hc := d.Host
	if r.swappiness != -1 && (r.swappiness < 0 || r.swappiness > 100) {
		return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", r.swappiness)
	}
	if fs.Changed("memory-swappiness") {
		hc.MemorySwappiness = &r.swappiness
	}
	if fs.Changed("pids-limit") {
		hc.PidsLimit = &r.pidsLimit
	}
	if fs.Changed("oom-kill-disable") {
		hc.OomKillDisable = &r.oomKillDisable
	}
	hc.Memory, hc.MemoryReservation, hc.MemorySwap = int64(r.memory), int64(r.memoryReservation), int64(r.memorySwap)
	hc.ShmSize = int64(r.shmSize)
	hc.NanoCPUs = int64(r.cpus)
	hc.CPUShares, hc.CPUPeriod, hc.CPUQuota = r.cpuShares, r.cpuPeriod, r.cpuQuota
	hc.CPURealtimePeriod, hc.CPURealtimeRuntime = r.cpuRTPeriod, r.cpuRTRuntime
	hc.CPUCount, hc.CPUPercent = r.cpuCount, r.cpuPercent
	hc.CpusetCpus, hc.CpusetMems = r.cpusetCPUs, r.cpusetMems
	hc.OomScoreAdj = r.oomScoreAdj
	hc.Ulimits = r.ulimits.Sorted()
	hc.BlkioWeight = r.blkioWeight
	hc.IOMaximumBandwidth, hc.IOMaximumIOps = uint64(r.ioMaxBandwidth), r.ioMaxIOps
	for _, v := range r.blkioWeightDevice.Values {
		w, err := weightDevice(v)
		if err != nil {
			return err
		}
		hc.BlkioWeightDevice = append(hc.BlkioWeightDevice, w)
	}
	for _, t := range []struct {
		in    []string
		out   *[]*blkiodev.ThrottleDevice
		parse func(string) (uint64, error)
	}{
		{r.readBps.Values, &hc.BlkioDeviceReadBps, byteRate},
		{r.writeBps.Values, &hc.BlkioDeviceWriteBps, byteRate},
		{r.readIOps.Values, &hc.BlkioDeviceReadIOps, countRate},
		{r.writeIOps.Values, &hc.BlkioDeviceWriteIOps, countRate},
	} {
		for _, v := range t.in {
			dev, err := throttleDevice(v, t.parse)
			if err != nil {
				return err
			}
			*t.out = append(*t.out, dev)
		}
	}
	return nil
}

func byteRate(s string) (uint64, error) {
	n, err := units.RAMInBytes(s)
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}
	return uint64(n), err
}

func countRate(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }

func throttleDevice(v string, parse func(string) (uint64, error)) (*blkiodev.ThrottleDevice, error) {
	path, rate, ok := strings.Cut(v, ":")
	if !ok || path == "" {
		return nil, fmt.Errorf("bad format: %s", v)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return nil, fmt.Errorf("bad format for device path: %s", v)
	}
	n, err := parse(rate)
	if err != nil {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", v)
	}
	return &blkiodev.ThrottleDevice{Path: path, Rate: n}, nil
}

func weightDevice(v string) (*blkiodev.WeightDevice, error) {
	path, weight, ok := strings.Cut(v, ":")
	if !ok || path == "" {
		return nil, fmt.Errorf("bad format: %s", v)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return nil, fmt.Errorf("bad format for device path: %s", v)
	}
	n, err := strconv.ParseUint(weight, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return nil, fmt.Errorf("invalid weight for device: %s", v)
	}
	return &blkiodev.WeightDevice{Path: path, Weight: uint16(n)}, nil
}
