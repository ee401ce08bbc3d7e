//go:build linux

package ociruntime

import (
	"math"
	"strings"
	"time"

	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// The types below are runc's form of statistics, which engines decode.

type eventStats struct {
	CPU struct {
		Usage struct {
			Total        uint64   `json:"total,omitempty"`
			PerCPU       []uint64 `json:"percpu,omitempty"`
			PerCPUKernel []uint64 `json:"percpu_kernel,omitempty"`
			PerCPUUser   []uint64 `json:"percpu_user,omitempty"`
			Kernel       uint64   `json:"kernel"`
			User         uint64   `json:"user"`
		} `json:"usage,omitzero"`
		Throttling throttling `json:"throttling,omitzero"`
		PSI        *psiStats  `json:"psi,omitempty"`
	} `json:"cpu"`
	CPUSet cpusetStats `json:"cpuset"`
	Memory struct {
		Cache     uint64            `json:"cache,omitempty"`
		Usage     memoryUsage       `json:"usage,omitzero"`
		Swap      memoryUsage       `json:"swap,omitzero"`
		Kernel    memoryUsage       `json:"kernel,omitzero"`
		KernelTCP memoryUsage       `json:"kernelTCP,omitzero"`
		Raw       map[string]uint64 `json:"raw,omitempty"`
		PSI       *psiStats         `json:"psi,omitempty"`
	} `json:"memory"`
	PIDs struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		Bytes       []blkioUsage `json:"ioServiceBytesRecursive,omitempty"`
		Count       []blkioUsage `json:"ioServicedRecursive,omitempty"`
		Queued      []blkioUsage `json:"ioQueueRecursive,omitempty"`
		ServiceTime []blkioUsage `json:"ioServiceTimeRecursive,omitempty"`
		WaitTime    []blkioUsage `json:"ioWaitTimeRecursive,omitempty"`
		Merged      []blkioUsage `json:"ioMergedRecursive,omitempty"`
		Time        []blkioUsage `json:"ioTimeRecursive,omitempty"`
		Sectors     []blkioUsage `json:"sectorsRecursive,omitempty"`
		PSI         *psiStats    `json:"psi,omitempty"`
	} `json:"blkio"`
	Huge       map[string]hugeUsage `json:"hugetlb"`
	IntelRdt   launch.RDTStats      `json:"intel_rdt"`
	Interfaces []struct{}           `json:"network_interfaces"` // runc's are those it made: none
}

type throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

type memoryUsage struct {
	Limit    uint64 `json:"limit"`
	Usage    uint64 `json:"usage,omitempty"`
	Max      uint64 `json:"max,omitempty"`
	Failures uint64 `json:"failcnt"`
}

type hugeUsage struct {
	Usage    uint64 `json:"usage,omitempty"`
	Max      uint64 `json:"max,omitempty"`
	Failures uint64 `json:"failcnt"`
}

type blkioUsage struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

type psiStats struct {
	Some pressure `json:"some,omitzero"`
	Full pressure `json:"full,omitzero"`
}

type pressure struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

type cpusetStats struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

func statsOf(s *cgroup.Stats, d *cgroup.Details) *eventStats {
	out := &eventStats{Huge: make(map[string]hugeUsage, len(d.Huge))}
	cpu := &out.CPU
	cpu.Usage.Total, cpu.Usage.User, cpu.Usage.Kernel = nanoseconds(s.CPU.Total), nanoseconds(s.CPU.User), nanoseconds(s.CPU.System)
	cpu.Usage.PerCPU, cpu.Usage.PerCPUKernel, cpu.Usage.PerCPUUser = allNanoseconds(s.CPU.PerCPU), allNanoseconds(d.CPUKernel), allNanoseconds(d.CPUUser)
	cpu.Throttling = throttling{s.CPU.Periods, s.CPU.ThrottledPeriods, nanoseconds(s.CPU.Throttled)}
	cpu.PSI, out.CPUSet = psiOf(d.CPUPSI), cpusetOf(d.CPUSet)
	m := &out.Memory
	m.Usage, m.Swap, m.Kernel, m.KernelTCP = memoryOf(s.Memory), memoryOf(d.Swap), memoryOf(d.Kernel), memoryOf(d.KernelTCP)
	m.Raw, m.PSI = s.Memory.Detail, psiOf(d.MemoryPSI)
	m.Cache = max(s.Memory.Detail["cache"], s.Memory.Detail["file"]) // version 1, version 2
	out.PIDs.Current, out.PIDs.Limit = s.PIDs.Current, s.PIDs.Limit
	if s.PIDs.Limit == math.MaxUint64 {
		out.PIDs.Limit = 0
	}
	bytes := func(io cgroup.IOStat) uint64 { return io.Bytes }
	count := func(io cgroup.IOStat) uint64 { return io.Count }
	b := &out.Blkio
	b.Bytes, b.Count, b.PSI = blkioOf(s.IO, bytes), blkioOf(s.IO, count), psiOf(d.IOPSI)
	b.Queued, b.Merged, b.Time = blkioOf(d.Queued, count), blkioOf(d.Merged, count), blkioOf(d.IOTime, count)
	b.ServiceTime, b.WaitTime, b.Sectors = blkioOf(d.ServiceTime, count), blkioOf(d.WaitTime, count), blkioOf(d.Sectors, count)
	for size, h := range d.Huge {
		out.Huge[size] = hugeUsage{h.Usage, h.Max, h.Failures}
	}
	return out
}

func nanoseconds(d time.Duration) uint64 { return uint64(max(d, 0)) }

func allNanoseconds(list []time.Duration) (out []uint64) {
	for _, d := range list {
		out = append(out, nanoseconds(d))
	}
	return out
}

func memoryOf(m cgroup.MemoryStats) memoryUsage {
	return memoryUsage{m.Limit, m.Usage, m.Max, m.Failures}
}

// blkioOf spells operations as version 1 of control groups does.
func blkioOf(list []cgroup.IOStat, value func(cgroup.IOStat) uint64) (out []blkioUsage) {
	for _, io := range list {
		op := io.Op
		if op != "" {
			op = strings.ToUpper(op[:1]) + op[1:]
		}
		out = append(out, blkioUsage{io.Major, io.Minor, op, value(io)})
	}
	return out
}

func psiOf(p *cgroup.PSI) *psiStats {
	if p == nil {
		return nil
	}
	return &psiStats{pressure(p.Some), pressure(p.Full)}
}

func cpusetOf(c *cgroup.CPUSet) cpusetStats {
	if c == nil {
		return cpusetStats{}
	}
	f := func(name string) uint64 { return uint64(max(c.Flags[name], 0)) }
	return cpusetStats{
		CPUs: c.CPUs, Mems: c.Mems, CPUExclusive: f("cpu_exclusive"), MemHardwall: f("mem_hardwall"), MemExclusive: f("mem_exclusive"),
		MemoryMigrate: f("memory_migrate"), MemorySpreadPage: f("memory_spread_page"), MemorySpreadSlab: f("memory_spread_slab"),
		MemoryPressure: f("memory_pressure"), SchedLoadBalance: f("sched_load_balance"), SchedRelaxDomainLevel: c.Flags["sched_relax_domain_level"],
	}
}
