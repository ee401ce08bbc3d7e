package spec

import (
	"cmp"
	"slices"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Remapped reports whether a container runs in a user namespace.
func Remapped(h *container.HostConfig, host HostFacts) bool {
	return len(host.UIDMap) > 0 && h.UsernsMode.IsPrivate()
}

// checkUserNS refuses what a user namespace rules out, in docker's words.
func checkUserNS(h *container.HostConfig, host HostFacts) error {
	if !Remapped(h, host) {
		return nil
	}
	switch {
	case h.Privileged:
		return errs.New(errs.Invalid, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case h.NetworkMode.IsHost():
		return errs.New(errs.Invalid, "cannot share the host's network namespace when user namespaces are enabled")
	case h.PidMode.IsHost():
		return errs.New(errs.Invalid, "cannot share the host PID namespace when user namespaces are enabled")
	case external(cmp.Or(h.Runtime, host.DefaultRuntime), host):
		return errs.Newf(errs.Unsupported, "runtime %s cannot be used with user namespaces: use the built-in one, or --userns=host", h.Runtime)
	}
	return nil
}

func external(runtime string, host HostFacts) bool {
	return !IsBuiltin(runtime) || slices.Contains(host.Runtimes, runtime)
}

// addUserNS gives the specification its user namespace.
func addUserNS(s *specs.Spec, in Input) {
	if !Remapped(in.HostConfig, in.Host) {
		return
	}
	l := s.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: in.JoinUser})
	l.UIDMappings, l.GIDMappings = in.Host.UIDMap, in.Host.GIDMap
}
