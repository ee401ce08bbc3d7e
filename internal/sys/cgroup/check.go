//go:build linux

package cgroup

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Check refuses limits that cannot be, and tells which ones this host's control
// groups do not know: those are left out.
func (g *Group) Check(r *specs.LinuxResources) (left []string, err error) {
	if r == nil {
		return nil, nil
	}
	no := func(field string, given bool, why string) {
		if given {
			left = append(left, field+" is ignored: "+why)
		}
	}
	const v1 = "control groups of version 2 have no such limit"
	if m := r.Memory; m != nil {
		if m.Swappiness != nil && *m.Swappiness > 100 {
			return nil, fmt.Errorf("memory.swappiness %d is not within 0 to 100", *m.Swappiness)
		}
		no("memory.kernel", nonZero(m.Kernel), "kernels do not limit it any more") //nolint:staticcheck // to tell of it
		no("memory.useHierarchy", m.UseHierarchy != nil && !*m.UseHierarchy, "kernels always count what is below a group, too")
		if g.sys.Unified() {
			no("memory.swappiness", m.Swappiness != nil, v1)
			no("memory.disableOOMKiller", m.DisableOOMKiller != nil && *m.DisableOOMKiller, v1)
			no("memory.kernelTCP", nonZero(m.KernelTCP), v1) //nolint:staticcheck // to tell of it
		}
	}
	if b := r.BlockIO; b != nil && g.sys.Unified() {
		no("blockIO.leafWeight", nonZero(b.LeafWeight), v1)
		for _, d := range b.WeightDevice {
			no(fmt.Sprintf("blockIO.leafWeight of device %d:%d", d.Major, d.Minor), nonZero(d.LeafWeight), v1)
		}
	}
	return left, nil
}

func nonZero[T int64 | uint16](v *T) bool { return v != nil && *v != 0 }

// checkUsage refuses limits below what is in use, if that is asked for: version
// 1 does so itself, version 2 would kill.
func (g *Group) checkUsage(m *specs.LinuxMemory) error {
	if m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate {
		return nil
	}
	text, err := read(g.dir("memory"), "memory.current")
	if err != nil {
		return nil // nothing is counted
	}
	usage := number(text)
	below := func(v *int64) bool { return v != nil && *v > 0 && uint64(*v) < usage }
	switch {
	case below(m.Limit):
		return fmt.Errorf("memory limit %d is below the %d bytes in use", *m.Limit, usage)
	case below(m.Swap):
		return fmt.Errorf("memory+swap limit %d is below the %d bytes in use", *m.Swap, usage)
	}
	return nil
}
