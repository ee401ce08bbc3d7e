//go:build linux

package ociruntime

import (
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

// placeGroup decides where the container's control group goes.
func (a *app) placeGroup(s *specs.Spec, id string, sys *cgroup.System) (string, error) {
	if a.systemd {
		named := s.Linux.CgroupsPath
		if named == "" {
			named = ":skiff:" + id
		}
		if !cgroup.IsScope(named) {
			return "", errs.Newf(errs.Invalid, `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got %q instead`, named)
		}
		if !sys.Unified() || !systemd.Running() {
			return "", errs.New(errs.Unsupported, "--systemd-cgroup needs control groups of version 2 and systemd as the first process")
		}
		return named, nil
	}
	return groupPath(s.Linux.CgroupsPath, id, sys)
}

// groupPath puts absolute paths below the hierarchies' roots, others below the
// group that this program is in.
func groupPath(named, id string, sys *cgroup.System) (string, error) {
	if path.IsAbs(named) {
		if named = path.Clean(named); named == "/" {
			return "", errs.New(errs.Invalid, "cgroupsPath / is the host's own")
		}
		return named, nil
	}
	if named == "" {
		named = id
	}
	below := path.Clean("/" + named)
	if below == "/" {
		return "", errs.Newf(errs.Invalid, "cgroupsPath %q names no group below this program's", named)
	}
	own, err := cgroup.Own()
	if err != nil {
		return "", err
	}
	if sys.Unified() { // where there are processes are no controllers for those below
		own = path.Dir(own)
	}
	return path.Join(own, below), nil
}

// limit gives a group that was just made its limits. No list of devices means
// those that every container may use.
func (a *app) limit(g *cgroup.Group, r *specs.LinuxResources, laterPIDs bool) error {
	if err := a.checkLimits(g, r); err != nil {
		return err
	}
	var devices []specs.LinuxDeviceCgroup
	if r != nil {
		devices = r.Devices
	}
	if err := g.LimitDevices(devices); err != nil {
		return err
	}
	return g.Apply(r, laterPIDs)
}

// checkLimits warns of what is left out.
func (a *app) checkLimits(g *cgroup.Group, r *specs.LinuxResources) error {
	left, err := g.Check(r)
	for _, text := range left {
		a.log.Warn(text)
	}
	return errs.With(errs.Invalid, err)
}
