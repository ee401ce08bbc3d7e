//go:build linux

package cgroup

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

// unlimited is systemd's "infinity".
const unlimited = uint64(math.MaxUint64)

// unifiedProperties are those files with one number that systemd writes, too.
var unifiedProperties = map[string]string{
	"memory.min": "MemoryMin", "memory.low": "MemoryLow", "memory.high": "MemoryHigh", "memory.max": "MemoryMax",
	"memory.swap.max": "MemorySwapMax", "cpu.weight": "CPUWeight",
}

// properties says limits in systemd's words. Devices are none of them: the
// program that guards them is ours, and systemd leaves it alone. Nor are huge
// pages, RDMA and bursts, whose files systemd does not know.
func properties(r *specs.LinuxResources) (out []systemd.Property, err error) {
	add := func(name string, value any) { out = append(out, systemd.Property{Name: name, Value: value}) }
	if m := r.Memory; m != nil {
		limit := func(name string, v *int64) {
			if v != nil && *v != 0 {
				add(name, orUnlimited(*v))
			}
		}
		if m.Swap != nil && *m.Swap != 0 {
			swap := *m.Swap
			if swap > 0 && m.Limit != nil && *m.Limit > 0 {
				swap = max(swap-*m.Limit, 0) // the writer refuses what is below
			}
			add("MemorySwapMax", orUnlimited(swap))
		}
		limit("MemoryMax", m.Limit)
		limit("MemoryLow", m.Reservation)
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			add("CPUWeight", weight(*c.Shares))
		}
		if c.Idle != nil && *c.Idle == 1 {
			add("CPUWeight", uint64(0))
		}
		if c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period != 0 {
			quota, period := quotaProperties(c)
			add("CPUQuotaPerSecUSec", quota)
			add("CPUQuotaPeriodUSec", period)
		}
		for name, list := range map[string]string{"AllowedCPUs": c.Cpus, "AllowedMemoryNodes": c.Mems} {
			if list == "" {
				continue
			}
			bits, err := bitmap(list)
			if err != nil {
				return nil, err
			}
			add(name, bits)
		}
	}
	ioProperties(r.BlockIO, add)
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		name, value := unifiedProperties[file], r.Unified[file]
		if name == "" {
			continue
		}
		n := unlimited
		if value = strings.TrimSpace(value); value != "max" {
			if n, err = strconv.ParseUint(value, 10, 64); err != nil {
				return nil, fmt.Errorf("unified limit %s: %q is not a number", file, value)
			}
		}
		add(name, n)
	}
	return out, nil
}

func orUnlimited(v int64) uint64 {
	if v < 0 {
		return unlimited
	}
	return uint64(v)
}

// quotaProperties is the processor time for each second, which systemd keeps in
// hundredths, and the period.
func quotaProperties(c *specs.LinuxCPU) (quota, period uint64) {
	const percent = 10_000
	quota, period = unlimited, 100_000
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
	}
	if c.Quota != nil && *c.Quota > 0 {
		hi, lo := bits.Mul64(uint64(*c.Quota), 1_000_000)
		if hi >= period {
			return unlimited, period
		}
		if quota, _ = bits.Div64(hi, lo, period); quota <= unlimited-percent {
			quota = (quota + percent - 1) / percent * percent
		}
	}
	return quota, period
}

func ioProperties(b *specs.LinuxBlockIO, add func(string, any)) {
	if b == nil {
		return
	}
	device := func(major, minor int64, value uint64) systemd.DeviceLimit {
		return systemd.DeviceLimit{Path: fmt.Sprintf("/dev/block/%d:%d", major, minor), Value: value}
	}
	if b.Weight != nil && *b.Weight != 0 {
		add("IOWeight", ioWeight(*b.Weight))
	}
	var weights []systemd.DeviceLimit
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			weights = append(weights, device(d.Major, d.Minor, ioWeight(*d.Weight)))
		}
	}
	if len(weights) > 0 {
		add("IODeviceWeight", weights)
	}
	for _, k := range []struct {
		name string
		list []specs.LinuxThrottleDevice
	}{
		{"IOReadBandwidthMax", b.ThrottleReadBpsDevice},
		{"IOWriteBandwidthMax", b.ThrottleWriteBpsDevice},
		{"IOReadIOPSMax", b.ThrottleReadIOPSDevice},
		{"IOWriteIOPSMax", b.ThrottleWriteIOPSDevice},
	} {
		var limits []systemd.DeviceLimit
		for _, d := range k.list {
			limits = append(limits, device(d.Major, d.Minor, d.Rate))
		}
		if len(limits) > 0 {
			add(k.name, limits)
		}
	}
}

// ioWeight maps a weight of version 1 (10…1000) to one of version 2 (1…10000).
func ioWeight(w uint16) uint64 { return uint64(1 + (max(int(w), 10)-10)*9999/990) }

func tasksMax(p *specs.LinuxPids) *systemd.Property {
	if p == nil || p.Limit == nil {
		return nil
	}
	limit := *p.Limit
	if limit == 0 { // which systemd refuses
		limit = 1
	}
	return &systemd.Property{Name: "TasksMax", Value: orUnlimited(limit)}
}

// bitmap turns "0-2,7" into bits, the first in the lowest of the first byte.
func bitmap(list string) ([]byte, error) {
	var out []byte
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 16)
		b, berr := strconv.ParseUint(to, 10, 16)
		if err != nil || berr != nil || a > b {
			return nil, fmt.Errorf("%q is not a list of numbers", list)
		}
		for ; a <= b; a++ {
			for uint64(len(out)) <= a/8 {
				out = append(out, 0)
			}
			out[a/8] |= 1 << (a % 8)
		}
	}
	return out, nil
}
