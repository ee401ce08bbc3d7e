//go:build linux

package ociruntime

import (
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// An update names some limits. Those that hold are what it names over what held
// before; some of the kernel's files hold two, so what is written is what the
// update names and what belongs to it.

// merged is the whole of a container's limits after an update. Devices are not
// for changing: engines send their rules along.
func merged(old, r *specs.LinuxResources) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if old != nil {
		*out = *old
	}
	out.Memory, out.CPU, out.BlockIO = mergedMemory(out.Memory, r.Memory), mergedCPU(out.CPU, r.CPU), mergedIO(out.BlockIO, r.BlockIO)
	if r.Pids != nil && r.Pids.Limit != nil {
		out.Pids = r.Pids
	}
	out.HugepageLimits = upsert(out.HugepageLimits, r.HugepageLimits, func(l specs.LinuxHugepageLimit) string { return l.Pagesize })
	if r.Network != nil {
		n := specs.LinuxNetwork{}
		if out.Network != nil {
			n = *out.Network
		}
		over(&n.ClassID, r.Network.ClassID)
		n.Priorities = upsert(n.Priorities, r.Network.Priorities, func(p specs.LinuxInterfacePriority) string { return p.Name })
		out.Network = &n
	}
	out.Rdma, out.Unified = overlaid(out.Rdma, r.Rdma), overlaid(out.Unified, r.Unified)
	if _, twice := r.Unified["pids.max"]; out.Pids == r.Pids && r.Pids != nil && !twice {
		out.Unified = maps.Clone(out.Unified) // the newer word for the same
		delete(out.Unified, "pids.max")
	}
	return out
}

// complete adds to an update what its limits are written together with.
func complete(r, all *specs.LinuxResources) *specs.LinuxResources {
	out := *r
	out.Devices = nil
	if c := r.CPU; c != nil && (c.Quota != nil || c.Period != nil) {
		cpu := *c
		cpu.Quota, cpu.Period = all.CPU.Quota, all.CPU.Period
		out.CPU = &cpu
	}
	if m := r.Memory; m != nil {
		memory := *m
		memory.CheckBeforeUpdate = all.Memory.CheckBeforeUpdate
		if m.Limit != nil || m.Swap != nil {
			memory.Limit, memory.Swap = all.Memory.Limit, all.Memory.Swap
		}
		out.Memory = &memory
	}
	return &out
}

func over[T any](to **T, v *T) {
	if v != nil {
		*to = v
	}
}

func overText(to *string, v string) {
	if v != "" {
		*to = v
	}
}

func overlaid[V any](old, more map[string]V) map[string]V {
	if len(more) == 0 {
		return old
	}
	out := make(map[string]V, len(old)+len(more))
	maps.Copy(out, old)
	maps.Copy(out, more)
	return out
}

// upsert replaces those of a list that are about the same, and adds the others.
func upsert[T any, K comparable](old, more []T, key func(T) K) []T {
	out := slices.Clone(old)
	for _, m := range more {
		if i := slices.IndexFunc(out, func(o T) bool { return key(o) == key(m) }); i >= 0 {
			out[i] = m
		} else {
			out = append(out, m)
		}
	}
	return out
}

func mergedMemory(old, r *specs.LinuxMemory) *specs.LinuxMemory {
	if r == nil {
		return old
	}
	m := specs.LinuxMemory{}
	if old != nil {
		m = *old
	}
	over(&m.Limit, r.Limit)
	over(&m.Swap, r.Swap)
	if r.Limit != nil && *r.Limit < 0 && r.Swap == nil {
		m.Swap = r.Limit // the sum cannot be below
	}
	over(&m.Reservation, r.Reservation)
	over(&m.Kernel, r.Kernel)       //nolint:staticcheck // stored as given
	over(&m.KernelTCP, r.KernelTCP) //nolint:staticcheck // stored as given
	over(&m.Swappiness, r.Swappiness)
	over(&m.DisableOOMKiller, r.DisableOOMKiller)
	over(&m.UseHierarchy, r.UseHierarchy)
	over(&m.CheckBeforeUpdate, r.CheckBeforeUpdate)
	return &m
}

func mergedCPU(old, r *specs.LinuxCPU) *specs.LinuxCPU {
	if r == nil {
		return old
	}
	c := specs.LinuxCPU{}
	if old != nil {
		c = *old
	}
	over(&c.Shares, r.Shares)
	over(&c.Quota, r.Quota)
	over(&c.Burst, r.Burst)
	over(&c.Period, r.Period)
	over(&c.RealtimeRuntime, r.RealtimeRuntime)
	over(&c.RealtimePeriod, r.RealtimePeriod)
	over(&c.Idle, r.Idle)
	overText(&c.Cpus, r.Cpus)
	overText(&c.Mems, r.Mems)
	return &c
}

func mergedIO(old, r *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	if r == nil {
		return old
	}
	io := specs.LinuxBlockIO{}
	if old != nil {
		io = *old
	}
	over(&io.Weight, r.Weight)
	over(&io.LeafWeight, r.LeafWeight)
	io.WeightDevice = upsert(io.WeightDevice, r.WeightDevice, func(d specs.LinuxWeightDevice) [2]int64 { return [2]int64{d.Major, d.Minor} })
	for _, l := range []struct {
		to   *[]specs.LinuxThrottleDevice
		more []specs.LinuxThrottleDevice
	}{
		{&io.ThrottleReadBpsDevice, r.ThrottleReadBpsDevice}, {&io.ThrottleWriteBpsDevice, r.ThrottleWriteBpsDevice},
		{&io.ThrottleReadIOPSDevice, r.ThrottleReadIOPSDevice}, {&io.ThrottleWriteIOPSDevice, r.ThrottleWriteIOPSDevice},
	} {
		*l.to = upsert(*l.to, l.more, func(d specs.LinuxThrottleDevice) [2]int64 { return [2]int64{d.Major, d.Minor} })
	}
	return &io
}
