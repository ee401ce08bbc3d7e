//go:build linux

package ociruntime

import (
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// placeGroup decides where the container's control group goes.
func (a *app) placeGroup(s *specs.Spec, id string, sys *cgroup.System) (string, error) {
	if a.systemd {
		return "", errs.New(errs.Unsupported, "--systemd-cgroup is not supported: control groups are made in the cgroup file system")
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
	own, err := cgroup.Own()
	if err != nil {
		return "", err
	}
	if sys.Unified() { // where there are processes are no controllers for those below
		own = path.Dir(own)
	}
	return path.Join(own, path.Clean("/"+named)), nil
}
