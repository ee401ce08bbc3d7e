//go:build linux

package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"
)

// Stats is what a group used so far and uses now. Limits that are not set are
// math.MaxUint64.
type Stats struct {
	CPU    CPUStats
	Memory MemoryStats
	PIDs   struct{ Current, Limit uint64 }
	IO     []IOStat
}

// CPUStats counts processor time.
type CPUStats struct {
	Total, User, System       time.Duration
	PerCPU                    []time.Duration // version 1 only
	Periods, ThrottledPeriods uint64
	Throttled                 time.Duration
}

// MemoryStats counts bytes. Detail holds the kernel's memory.stat as it is.
type MemoryStats struct {
	Usage, Max, Limit, Failures uint64
	Detail                      map[string]uint64
}

// IOStat counts what one device did: Op is "read", "write" and so on.
type IOStat struct {
	Major, Minor uint64
	Op           string
	Bytes, Count uint64
}

// Stats reads the group's counters. Files of controllers that are not there
// leave zeros.
func (g *Group) Stats() (*Stats, error) {
	if !g.Exists() {
		return nil, fmt.Errorf("statistics of control group %s: %w", g.path, fs.ErrNotExist)
	}
	s := &Stats{}
	r := &reader{g: g}
	if g.sys.Unified() {
		r.v2(s)
	} else {
		r.v1(s)
	}
	s.PIDs.Current = r.num("pids", "pids.current")
	s.PIDs.Limit = r.num("pids", "pids.max")
	if r.err != nil {
		return nil, fmt.Errorf("statistics of control group %s: %w", g.path, r.err)
	}
	return s, nil
}

type reader struct {
	g   *Group
	err error
}

func (r *reader) text(controller, file string) string {
	dir := r.g.dir(controller)
	if dir == "" {
		return ""
	}
	text, err := read(dir, file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.err = errors.Join(r.err, err)
	}
	return text
}

func (r *reader) num(controller, file string) uint64 { return number(r.text(controller, file)) }

func number(text string) uint64 {
	if text == "max" {
		return math.MaxUint64
	}
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// keyed reads "key value" lines.
func keyed(text string) map[string]uint64 {
	m := make(map[string]uint64)
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			m[k] = number(v)
		}
	}
	return m
}

func (r *reader) v1(s *Stats) {
	const tick = time.Second / 100 // USER_HZ
	s.CPU.Total = time.Duration(r.num("cpuacct", "cpuacct.usage"))
	split := keyed(r.text("cpuacct", "cpuacct.stat"))
	s.CPU.User, s.CPU.System = time.Duration(split["user"])*tick, time.Duration(split["system"])*tick
	for f := range strings.FieldsSeq(r.text("cpuacct", "cpuacct.usage_percpu")) {
		s.CPU.PerCPU = append(s.CPU.PerCPU, time.Duration(number(f)))
	}
	throttled := keyed(r.text("cpu", "cpu.stat"))
	s.CPU.Periods, s.CPU.ThrottledPeriods = throttled["nr_periods"], throttled["nr_throttled"]
	s.CPU.Throttled = time.Duration(throttled["throttled_time"])

	s.Memory = MemoryStats{
		Usage:    r.num("memory", "memory.usage_in_bytes"),
		Max:      r.num("memory", "memory.max_usage_in_bytes"),
		Limit:    r.num("memory", "memory.limit_in_bytes"),
		Failures: r.num("memory", "memory.failcnt"),
		Detail:   keyed(r.text("memory", "memory.stat")),
	}
	if s.Memory.Limit >= 1<<62 {
		s.Memory.Limit = math.MaxUint64
	}
	s.IO = throttleStats(r.text("blkio", "blkio.throttle.io_service_bytes_recursive"), r.text("blkio", "blkio.throttle.io_serviced_recursive"))
}

// throttleStats joins lines "8:0 Read 4096" of bytes and of operations.
func throttleStats(bytes, counts string) []IOStat {
	var out []IOStat
	index := make(map[string]int)
	scan := func(text string, put func(*IOStat, uint64)) {
		sc := bufio.NewScanner(strings.NewReader(text))
		for sc.Scan() {
			f := strings.Fields(sc.Text())
			if len(f) != 3 {
				continue
			}
			key := f[0] + f[1]
			i, ok := index[key]
			if !ok {
				major, minor, _ := strings.Cut(f[0], ":")
				i = len(out)
				index[key] = i
				out = append(out, IOStat{Major: number(major), Minor: number(minor), Op: strings.ToLower(f[1])})
			}
			put(&out[i], number(f[2]))
		}
	}
	scan(bytes, func(s *IOStat, n uint64) { s.Bytes = n })
	scan(counts, func(s *IOStat, n uint64) { s.Count = n })
	return out
}

func (r *reader) v2(s *Stats) {
	cpu := keyed(r.text("cpu", "cpu.stat"))
	us := func(key string) time.Duration { return time.Duration(cpu[key]) * time.Microsecond }
	s.CPU = CPUStats{
		Total: us("usage_usec"), User: us("user_usec"), System: us("system_usec"),
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], Throttled: us("throttled_usec"),
	}
	s.Memory = MemoryStats{
		Usage:    r.num("memory", "memory.current"),
		Max:      r.num("memory", "memory.peak"),
		Limit:    r.num("memory", "memory.max"),
		Failures: keyed(r.text("memory", "memory.events"))["max"],
		Detail:   keyed(r.text("memory", "memory.stat")),
	}
	for line := range strings.Lines(r.text("io", "io.stat")) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, _ := strings.Cut(f[0], ":")
		v := make(map[string]uint64)
		for _, kv := range f[1:] {
			k, n, _ := strings.Cut(kv, "=")
			v[k] = number(n)
		}
		s.IO = append(s.IO,
			IOStat{number(major), number(minor), "read", v["rbytes"], v["rios"]},
			IOStat{number(major), number(minor), "write", v["wbytes"], v["wios"]})
	}
}
