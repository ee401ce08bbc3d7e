//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (w *writer) v2(r *specs.LinuxResources) {
	w.memoryV2(r.Memory)
	w.cpuV2(r.CPU)
	w.ioV2(r.BlockIO)
	w.hugepages(r.HugepageLimits, "max")
	if n := r.Network; n != nil && (n.ClassID != nil && *n.ClassID != 0 || len(n.Priorities) > 0) {
		w.err = errors.Join(w.err, errors.New("network classes need control groups of version 1"))
	}
	w.rdma(r.Rdma)
	w.unified(r.Unified)
}

// unified writes files by their names, and what is said of them line by line:
// the kernel takes one a time. The limit of processes has its own moment.
func (w *writer) unified(files map[string]string) {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if err := checkUnified(file); err != nil {
			w.err = errors.Join(w.err, err)
			return
		}
		if file == pidsMax {
			continue
		}
		if lines := strings.Split(strings.TrimSuffix(files[file], "\n"), "\n"); w.err == nil {
			w.set("", file, lines...)
		}
	}
}

// checkUnified takes every controller's file, known here or not. Of those of the
// group itself it takes limits: others would move processes, or the group away
// from under them.
func checkUnified(file string) error {
	switch {
	case strings.Contains(file, "/"), !strings.Contains(strings.Trim(file, "."), "."):
		return fmt.Errorf("unified limit %q: not a controller's file", file)
	case strings.HasPrefix(file, "cgroup.") && !slices.Contains([]string{"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"}, file):
		return fmt.Errorf("unified limit %q: this file of control groups is the runtime's alone", file)
	}
	return nil
}

func (w *writer) memoryV2(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	limit := func(file string, v *int64) {
		switch {
		case v == nil || *v == 0:
		case *v < 0:
			w.set("memory", file, "max")
		default:
			w.set("memory", file, strconv.FormatInt(*v, 10))
		}
	}
	if err := w.g.checkUsage(m); err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	if m.Swap != nil && *m.Swap != 0 {
		// Here swap is counted alone, in OCI it is the sum with memory.
		swap := *m.Swap
		if swap > 0 {
			if m.Limit == nil || *m.Limit <= 0 {
				w.err = errors.Join(w.err, errors.New("the limit of memory and swap together needs one of memory"))
				return
			}
			if swap -= *m.Limit; swap < 0 {
				w.err = errors.Join(w.err, errors.New("memory+swap limit is below the memory limit"))
				return
			}
		}
		text := strconv.FormatInt(swap, 10)
		if swap < 0 {
			text = "max"
		}
		if _, err := read(w.g.dir("memory"), "memory.swap.max"); err == nil {
			w.set("memory", "memory.swap.max", text)
		}
	}
	limit("memory.max", m.Limit)
	limit("memory.low", m.Reservation)
}

func (w *writer) cpuV2(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	w.exactInt("cpu", "cpu.idle", c.Idle)
	if idle := c.Idle != nil && *c.Idle == 1; c.Shares != nil && *c.Shares != 0 && !idle { // whose weight is fixed
		w.set("cpu", "cpu.weight", strconv.FormatUint(weight(*c.Shares), 10))
	}
	w.burst("cpu.max.burst", c, func() { w.quotaV2(c) })
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 || c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		w.err = errors.Join(w.err, errors.New("realtime limits need control groups of version 1"))
	}
	if c.Cpus != "" {
		w.set("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		w.set("cpuset", "cpuset.mems", c.Mems)
	}
}

func (w *writer) quotaV2(c *specs.LinuxCPU) {
	if (c.Quota == nil || *c.Quota == 0) && (c.Period == nil || *c.Period == 0) {
		return
	}
	quota, period := "max", uint64(100000)
	if c.Quota != nil && *c.Quota > 0 {
		quota = strconv.FormatInt(*c.Quota, 10)
	}
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
	}
	w.set("cpu", "cpu.max", fmt.Sprintf("%s %d", quota, period))
}

// weight maps CPU shares (2…262144, default 1024) to a weight of version 2
// (1…10000, default 100), so that both defaults meet.
func weight(shares uint64) uint64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (w *writer) ioV2(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	if b.Weight != nil && *b.Weight != 0 {
		if _, err := read(w.g.dir("io"), "io.bfq.weight"); err == nil {
			w.set("io", "io.bfq.weight", strconv.Itoa(int(*b.Weight)))
		} else {
			// 10…1000 there, 1…10000 here.
			w.set("io", "io.weight", strconv.FormatUint(ioWeight(*b.Weight), 10))
		}
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			w.set("io", "io.bfq.weight", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight))
		}
	}
	throttle := func(key string, list []specs.LinuxThrottleDevice) {
		for _, d := range list {
			w.set("io", "io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, key, d.Rate))
		}
	}
	throttle("rbps", b.ThrottleReadBpsDevice)
	throttle("wbps", b.ThrottleWriteBpsDevice)
	throttle("riops", b.ThrottleReadIOPSDevice)
	throttle("wiops", b.ThrottleWriteIOPSDevice)
}
