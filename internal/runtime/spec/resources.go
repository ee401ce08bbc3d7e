package spec

import (
	"path"
	"strings"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

// cpuPeriod is the scheduling period, in µs, that --cpus is a share of.
const cpuPeriod = 100_000

// CgroupPath is where a container's cgroup lies in every hierarchy: below the
// one asked for by --cgroup-parent, or the daemon's. It never leaves the root.
// CgroupPath's answer is a name for systemd where the default parent is a slice.
func CgroupPath(h *container.HostConfig, defaultParent, id string) string {
	parent := defaultParent
	if h != nil && h.CgroupParent != "" {
		parent = h.CgroupParent
	}
	if IsSlice(defaultParent) {
		return parent + ":skiff:" + id
	}
	return path.Join("/", path.Join("/", parent), id)
}

// IsSlice tells whether a parent of control groups is one of systemd's slices.
func IsSlice(parent string) bool {
	return len(parent) > len(".slice") && strings.HasSuffix(parent, ".slice") && !strings.Contains(parent, "/")
}

// ErrNoSlice is docker's word for a parent that systemd cannot use.
const ErrNoSlice = `cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`

func checkCgroupParent(h *container.HostConfig, host HostFacts) error {
	if !host.Systemd || h.CgroupParent == "" {
		return nil
	}
	if _, err := systemd.SlicePath(h.CgroupParent); err != nil || !IsSlice(h.CgroupParent) {
		return errs.New(errs.Invalid, ErrNoSlice)
	}
	return nil
}

// Resources turns docker's limits into the runtime's, for a start or an update;
// what the host cannot set was warned of by [Validate] and is left out.
func Resources(r *container.Resources, host HostFacts) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Memory: memory(r, host), CPU: cpu(r, host)}
	if r.PidsLimit != nil && host.Cgroups.Pids {
		limit := *r.PidsLimit
		if limit <= 0 {
			limit = -1
		}
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	io, err := blockIO(r, host)
	if err != nil {
		return nil, err
	}
	out.BlockIO = io
	return out, nil
}

func memory(r *container.Resources, host HostFacts) *specs.LinuxMemory {
	var m specs.LinuxMemory
	if r.Memory > 0 && host.Cgroups.Memory {
		m.Limit = ptr(r.Memory)
		swap := r.MemorySwap
		if swap == 0 {
			swap = 2 * r.Memory // docker's default
		}
		if host.Cgroups.Swap {
			m.Swap = &swap
		}
	}
	if r.MemoryReservation > 0 && host.Cgroups.Reservation {
		m.Reservation = ptr(r.MemoryReservation)
	}
	if s := r.MemorySwappiness; s != nil && *s >= 0 && host.Cgroups.Swappiness {
		m.Swappiness = ptr(uint64(*s))
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && host.Cgroups.OOMKillDisable {
		m.DisableOOMKiller = ptr(true)
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

func cpu(r *container.Resources, host HostFacts) *specs.LinuxCPU {
	var c specs.LinuxCPU
	if r.CPUShares > 0 && host.Cgroups.CPUShares {
		c.Shares = ptr(uint64(r.CPUShares))
	}
	if host.Cgroups.CPUQuota {
		if r.NanoCPUs > 0 {
			c.Period = ptr(uint64(cpuPeriod))
			c.Quota = ptr(r.NanoCPUs * cpuPeriod / 1e9)
		}
		if r.CPUPeriod > 0 {
			c.Period = ptr(uint64(r.CPUPeriod))
		}
		if r.CPUQuota != 0 {
			c.Quota = ptr(r.CPUQuota)
		}
	}
	if r.CPURealtimePeriod > 0 {
		c.RealtimePeriod = ptr(uint64(r.CPURealtimePeriod))
	}
	if r.CPURealtimeRuntime > 0 {
		c.RealtimeRuntime = ptr(r.CPURealtimeRuntime)
	}
	if host.Cgroups.CPUSet {
		c.Cpus, c.Mems = r.CpusetCpus, r.CpusetMems
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func blockIO(r *container.Resources, host HostFacts) (*specs.LinuxBlockIO, error) {
	var out specs.LinuxBlockIO
	used := false
	if r.BlkioWeight > 0 && host.Cgroups.BlkioWeight {
		out.Weight, used = ptr(r.BlkioWeight), true
	}
	if host.Cgroups.BlkioWeightDevice {
		for _, w := range r.BlkioWeightDevice {
			if w == nil {
				continue
			}
			id, err := blockDevice(w.Path, host)
			if err != nil {
				return nil, err
			}
			d := specs.LinuxWeightDevice{Weight: ptr(w.Weight)}
			d.LinuxBlockIODevice = id
			out.WeightDevice, used = append(out.WeightDevice, d), true
		}
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &out.ThrottleReadBpsDevice},
		{r.BlkioDeviceWriteBps, &out.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &out.ThrottleReadIOPSDevice},
		{r.BlkioDeviceWriteIOps, &out.ThrottleWriteIOPSDevice},
	} {
		if !host.Cgroups.BlkioThrottle {
			break
		}
		for _, d := range t.from {
			if d == nil {
				continue
			}
			id, err := blockDevice(d.Path, host)
			if err != nil {
				return nil, err
			}
			td := specs.LinuxThrottleDevice{Rate: d.Rate}
			td.LinuxBlockIODevice = id
			*t.to, used = append(*t.to, td), true
		}
	}
	if !used {
		return nil, nil
	}
	return &out, nil
}

func blockDevice(p string, host HostFacts) (specs.LinuxBlockIODevice, error) {
	found, err := hostDevice(p, host)
	if err != nil {
		return specs.LinuxBlockIODevice{}, err
	}
	return specs.LinuxBlockIODevice{Major: found[0].Major, Minor: found[0].Minor}, nil
}
