//go:build linux

package cgroup

import (
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// Details are counters that nobody needs often. Those of controllers that are
// not there, and of the other version, are zero.
type Details struct {
	CPUKernel, CPUUser       []time.Duration // of each processor; version 1 only
	CPUSet                   *CPUSet         // version 1 only
	Swap                     MemoryStats     // with memory; no Detail, as the next ones
	Kernel, KernelTCP        MemoryStats     // version 1 only
	Huge                     map[string]MemoryStats
	CPUPSI, MemoryPSI, IOPSI *PSI     // version 2 only
	Queued, Merged, IOTime   []IOStat // version 1 only, in Count
	ServiceTime, WaitTime    []IOStat // as these
	Sectors                  []IOStat // as these
}

// CPUSet is what the group's tasks may run on, and how.
type CPUSet struct {
	CPUs, Mems []uint16
	Flags      map[string]int64 // by their files' names: cpu_exclusive and so on
}

// PSI tells how long tasks waited: some of them, and all.
type PSI struct{ Some, Full Pressure }

// Pressure is in percent of the last seconds, and microseconds in all.
type Pressure struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// Details reads them.
func (g *Group) Details() *Details {
	d := &Details{Huge: make(map[string]MemoryStats)}
	r := &reader{g: g}
	if g.sys.Unified() {
		r.details2(d)
	} else {
		r.details1(d)
	}
	return d
}

func (r *reader) details1(d *Details) {
	for line := range strings.Lines(r.text("cpuacct", "cpuacct.usage_all")) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] != "cpu" {
			d.CPUUser, d.CPUKernel = append(d.CPUUser, time.Duration(number(f[1]))), append(d.CPUKernel, time.Duration(number(f[2])))
		}
	}
	if r.g.dir("cpuset") != "" {
		d.CPUSet = &CPUSet{CPUs: numbers(r.text("cpuset", "cpuset.cpus")), Mems: numbers(r.text("cpuset", "cpuset.mems")), Flags: make(map[string]int64)}
		for _, f := range []string{
			"cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab", "memory_pressure",
			"sched_load_balance", "sched_relax_domain_level",
		} {
			d.CPUSet.Flags[f], _ = strconv.ParseInt(r.text("cpuset", "cpuset."+f), 10, 64)
		}
	}
	entry := func(prefix string) MemoryStats {
		return MemoryStats{
			Usage: r.num("memory", prefix+".usage_in_bytes"), Max: r.num("memory", prefix+".max_usage_in_bytes"),
			Limit: r.num("memory", prefix+".limit_in_bytes"), Failures: r.num("memory", prefix+".failcnt"),
		}
	}
	d.Swap, d.Kernel, d.KernelTCP = entry("memory.memsw"), entry("memory.kmem"), entry("memory.kmem.tcp")
	for size, rsvd := range r.hugeSizes(".limit_in_bytes") {
		p := "hugetlb." + size + rsvd
		d.Huge[size] = MemoryStats{
			Usage: r.num("hugetlb", p+".usage_in_bytes"), Max: r.num("hugetlb", p+".max_usage_in_bytes"), Failures: r.num("hugetlb", p+".failcnt"),
		}
	}
	for file, to := range map[string]*[]IOStat{
		"io_queued": &d.Queued, "io_merged": &d.Merged, "time": &d.IOTime, "io_service_time": &d.ServiceTime, "io_wait_time": &d.WaitTime, "sectors": &d.Sectors,
	} {
		text := r.text("blkio", "blkio."+file+"_recursive")
		if text == "" {
			text = r.text("blkio", "blkio.bfq."+file+"_recursive")
		}
		*to = throttleStats("", text)
	}
}

func (r *reader) details2(d *Details) {
	d.Swap = MemoryStats{
		Usage: r.num("memory", "memory.current") + r.num("memory", "memory.swap.current"), Limit: r.num("memory", "memory.swap.max"),
		Failures: keyed(r.text("memory", "memory.swap.events"))["max"],
	}
	if limit := r.num("memory", "memory.max"); d.Swap.Limit != math.MaxUint64 { // here it is counted alone
		d.Swap.Limit = min(limit, math.MaxUint64-d.Swap.Limit) + d.Swap.Limit
	}
	for size, rsvd := range r.hugeSizes(".max") {
		p := "hugetlb." + size
		d.Huge[size] = MemoryStats{Usage: r.num("hugetlb", p+rsvd+".current"), Failures: keyed(r.text("hugetlb", p+".events"))["max"]}
	}
	d.CPUPSI, d.MemoryPSI, d.IOPSI = r.pressure("cpu"), r.pressure("memory"), r.pressure("io")
}

// hugeSizes finds the sizes of huge pages by their limits' files, and tells for
// each where its counters are: "" or ".rsvd".
func (r *reader) hugeSizes(limit string) map[string]string {
	out := make(map[string]string)
	dir := r.g.dir("hugetlb")
	if dir == "" {
		return out
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return out
	}
	for _, e := range list {
		name, ok := strings.CutPrefix(e.Name(), "hugetlb.")
		if !ok {
			continue
		}
		if size, ok := strings.CutSuffix(name, ".rsvd"+limit); ok {
			out[size] = ".rsvd"
		} else if size, ok := strings.CutSuffix(name, limit); ok && out[size] == "" {
			out[size] = ""
		}
	}
	return out
}

func (r *reader) pressure(controller string) *PSI {
	text, err := read(r.g.dir(controller), controller+".pressure")
	if err != nil { // also where it is switched off
		return nil
	}
	return parsePSI(text)
}

func parsePSI(text string) *PSI {
	p := &PSI{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		to := &p.Some
		if f[0] == "full" {
			to = &p.Full
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseFloat(v, 64)
			switch k {
			case "avg10":
				to.Avg10 = n
			case "avg60":
				to.Avg60 = n
			case "avg300":
				to.Avg300 = n
			case "total":
				to.Total = number(v)
			}
		}
	}
	return p
}

// numbers reads a list as the kernel writes them: "0-2,7".
func numbers(list string) (out []uint16) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, lerr := strconv.ParseUint(last, 10, 16)
		if err != nil || lerr != nil {
			continue
		}
		for ; from <= to; from++ {
			out = append(out, uint16(from))
		}
	}
	return out
}
