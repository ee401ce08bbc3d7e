package spec

import (
	"slices"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// DefaultRuntime is the name of the built-in launcher.
const DefaultRuntime = "skiff"

// IsBuiltin tells whether name is the built-in launcher's, or one under which
// clients and compose files know docker's.
func IsBuiltin(name string) bool {
	return slices.Contains([]string{"", DefaultRuntime, "runc", "io.containerd.runc.v1", "io.containerd.runc.v2"}, name)
}

// ShimPrograms names, for shims of containerd's, the programs that they run and
// that have an OCI command line.
func ShimPrograms() map[string]string {
	return map[string]string{
		"io.containerd.runc.v1": "runc", "io.containerd.runc.v2": "runc",
		"io.containerd.runsc.v1": "runsc",
		"io.containerd.crun.v1":  "crun", "io.containerd.crun.v2": "crun",
	}
}

// ShimProgram is the program of one type, "" if it is not known.
func ShimProgram(typ string) string { return ShimPrograms()[typ] }

func checkRuntime(name string, host HostFacts) error {
	switch {
	case IsBuiltin(name), slices.Contains(host.Runtimes, name):
		return nil
	case strings.HasPrefix(name, "io.containerd."):
		return errs.Newf(errs.Invalid, "unknown or invalid runtime name: %s: it is a shim of containerd's, and Skiff runs programs with an OCI command line", name)
	}
	return errs.Newf(errs.Invalid, "unknown or invalid runtime name: %s", name)
}
