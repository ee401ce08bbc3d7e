package daemon

import (
	"path/filepath"
	"strings"

	"github.com/skiff-containers/skiff/internal/runtime/spec"
	"github.com/skiff-containers/skiff/internal/runtime/spec/hostfacts"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

// Who makes control groups.
const (
	driverFS      = "cgroupfs"
	driverSystemd = "systemd"
)

// cgroupDriver is what --exec-opt says; the last one counts.
func (c *Config) cgroupDriver() string {
	driver := driverFS
	for _, o := range c.ExecOpts {
		driver = strings.TrimPrefix(o, "native.cgroupdriver=")
	}
	return driver
}

// checkCgroups checks who makes control groups and where, and fills in where.
func (c *Config) checkCgroups(check func(ok bool, format string, args ...any)) {
	for _, o := range c.ExecOpts {
		check(o == "native.cgroupdriver="+driverFS || o == "native.cgroupdriver="+driverSystemd,
			"--exec-opt %s is not supported: only native.cgroupdriver=cgroupfs and native.cgroupdriver=systemd are", o)
	}
	check(c.RealtimePeriod >= 0 && c.RealtimeRuntime >= 0 && (c.RealtimePeriod == 0 || c.RealtimeRuntime <= c.RealtimePeriod),
		"invalid --cpu-rt-period %d with --cpu-rt-runtime %d: want microseconds, no more of them than the period has", c.RealtimePeriod, c.RealtimeRuntime)
	check(c.RealtimePeriod == 0 && c.RealtimeRuntime == 0 || hostfacts.Realtime(),
		"--cpu-rt-period and --cpu-rt-runtime need control groups of version 1 and a kernel with CONFIG_RT_GROUP_SCHED")
	if c.cgroupDriver() != driverSystemd {
		if c.CgroupParent == "" {
			c.CgroupParent = "/skiff"
		}
		check(strings.HasPrefix(c.CgroupParent, "/") && filepath.Clean(c.CgroupParent) == c.CgroupParent && c.CgroupParent != "/",
			"invalid --cgroup-parent %q: want an absolute cgroup path below the root", c.CgroupParent)
		return
	}
	if c.CgroupParent == "" {
		c.CgroupParent = "system.slice"
	}
	_, err := systemd.SlicePath(c.CgroupParent)
	check(err == nil && spec.IsSlice(c.CgroupParent), spec.ErrNoSlice)
	groups, err := cgroup.Detect()
	check(err == nil && groups.Unified() && systemd.Running(),
		"--exec-opt native.cgroupdriver=systemd needs control groups of version 2 and systemd as the host's first process")
}

// stepCgroups is where a build's steps go, in the builder's words.
func (c *Config) stepCgroups() string {
	if c.cgroupDriver() == driverSystemd {
		return c.CgroupParent + ":skiff-build:"
	}
	return c.CgroupParent
}
