//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// realtime writes the period and the runtime in an order that the kernel takes:
// at no moment may the runtime, old or new, be above the period.
func (w *writer) realtime(c *specs.LinuxCPU) {
	if w.err != nil {
		return
	}
	period := func() { w.uint("cpu", "cpu.rt_period_us", c.RealtimePeriod) }
	runtime := func() { w.int("cpu", "cpu.rt_runtime_us", c.RealtimeRuntime) }
	period()
	if c.RealtimeRuntime != nil && errors.Is(w.err, unix.EINVAL) {
		w.err = nil
		runtime()
		period()
		return
	}
	runtime()
}

// GiveRealtime makes the group at path p and those above it, and lets each run
// real-time tasks for runtime of every period microseconds: a group's children
// have only what it has itself. 0 leaves a value as it is. Version 1 only.
func (s *System) GiveRealtime(p string, period, runtime int64) error {
	if s.Unified() {
		return errors.New("control groups of version 2 have no real-time limits")
	}
	g, err := s.Open(p)
	if err != nil {
		return err
	}
	if above := path.Dir(p); above != "/" {
		if err := s.GiveRealtime(above, period, runtime); err != nil {
			return err
		}
	}
	dir := g.dir("cpu")
	if dir == "" {
		return errors.New("real-time limits need the controller cpu, which is not mounted")
	}
	if err := mkdirs(dir); err != nil {
		return err
	}
	micros := uint64(period)
	w := &writer{g: g}
	w.realtime(&specs.LinuxCPU{RealtimePeriod: &micros, RealtimeRuntime: &runtime})
	if w.err != nil {
		return fmt.Errorf("real-time limits of control group %s: %w", p, w.err)
	}
	return nil
}
