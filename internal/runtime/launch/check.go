//go:build linux

package launch

import (
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// Check refuses, before anything is made, what cannot be done here: nothing that
// a specification says is left out silently.
func Check(l *runtime.Launch) error {
	s := l.Spec
	if s == nil || s.Process == nil || s.Linux == nil {
		return errs.New(errs.Invalid, "start: the specification has no process or no linux section")
	}
	for _, err := range []error{
		checkProcess(s.Process), checkNamespaces(l), checkKernel(s.Linux), checkMounts(s), checkHooks(s.Hooks),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// CheckExec is [Check] for one more process.
func CheckExec(e *runtime.Exec) error {
	if err := checkProcess(e.Process); err != nil {
		return err
	}
	return checkForAll(e.Personality, e.MemoryPolicy)
}

func checkProcess(p *specs.Process) error {
	if p == nil || len(p.Args) == 0 {
		return errs.New(errs.Invalid, "no command")
	}
	return checkAttributes(p)
}

// find returns the namespace of a kind, nil if the container has the host's.
func find(s *specs.Spec, kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	i := slices.IndexFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	if i < 0 {
		return nil
	}
	return &s.Linux.Namespaces[i]
}

func checkNamespaces(l *runtime.Launch) error {
	s := l.Spec
	user, time, mount := find(s, specs.UserNamespace), find(s, specs.TimeNamespace), find(s, specs.MountNamespace)
	mapped := len(s.Linux.UIDMappings) > 0 && len(s.Linux.GIDMappings) > 0
	switch {
	case len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0 && user == nil:
		return errs.New(errs.Invalid, "start: ids are mapped without a user namespace")
	case user != nil && user.Path == "" && !mapped:
		return errs.New(errs.Invalid, "start: a new user namespace needs mappings of user and group ids")
	case len(s.Linux.TimeOffsets) > 0 && (time == nil || time.Path != ""):
		return errs.New(errs.Invalid, "start: time offsets need a new time namespace")
	case len(s.Linux.NetDevices) > 0 && find(s, specs.NetworkNamespace) == nil && l.NetNS == nil:
		return errs.New(errs.Invalid, "start: network devices need a network namespace to be moved to")
	}
	if user != nil && user.Path == "" {
		if _, _, ok := mapOf(s.Linux).Outside(0, 0); !ok {
			return errs.New(errs.Invalid, "start: a user namespace must map root")
		}
	}
	if mount != nil && mount.Path == "" {
		return nil
	}
	// The mounts are not its own: what would change them for others is refused.
	switch {
	case l.Rootfs != nil && l.Rootfs.Bind == "":
		return errs.New(errs.Invalid, "start: an overlay needs a mount namespace of the container's own")
	case s.Root == nil || s.Root.Readonly:
		return errs.New(errs.Invalid, "start: a read-only root needs a mount namespace of the container's own")
	case len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) > 0:
		return errs.New(errs.Invalid, "start: masked and read-only paths need a mount namespace of the container's own")
	case s.Linux.RootfsPropagation != "":
		return errs.New(errs.Invalid, "start: the root's propagation needs a mount namespace of the container's own")
	}
	for _, m := range s.Mounts {
		if len(m.UIDMappings) > 0 || mnt.ParseOptions(m.Options).IDMap {
			return errs.Newf(errs.Invalid, "start: mount %s: to map owners needs a mount namespace of the container's own", m.Destination)
		}
	}
	return nil
}

func checkKernel(l *specs.Linux) error {
	if l.MountLabel != "" && !selinuxEnabled() {
		return errs.Newf(errs.Unsupported, "start: mount label %q: SELinux is not enabled on this host", l.MountLabel)
	}
	if err := checkForAll(l.Personality, l.MemoryPolicy); err != nil {
		return err
	}
	if p := l.RootfsPropagation; p != "" {
		if o := mnt.ParseOptions([]string{p}); o.Propagation == 0 {
			return errs.Newf(errs.Invalid, "start: root propagation %q is not known", p)
		}
	}
	return nil
}

// checkForAll looks at what holds for all of a container's processes.
func checkForAll(p *specs.LinuxPersonality, policy *specs.LinuxMemoryPolicy) error {
	switch {
	case p == nil:
	case p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32:
		return errs.Newf(errs.Invalid, "start: personality %q is not known", p.Domain)
	case len(p.Flags) > 0:
		return errs.Newf(errs.Invalid, "start: personality flags %v are not known", p.Flags)
	}
	if policy == nil {
		return nil
	}
	_, err := memoryMode(policy)
	return err
}

func isWord(o mnt.Opt) bool { return o.Value == "" }

// Unheeded tells what options of bind mounts are left out: those with values are
// a file system's, which is mounted already. Words, which may be flags
// misspelt, are refused.
func Unheeded(s *specs.Spec) (out []string) {
	for _, m := range s.Mounts {
		if o := mnt.ParseOptions(m.Options); o.Bind || m.Type == "bind" {
			for _, d := range o.Data {
				out = append(out, "mount "+m.Destination+": option "+d.Key+"="+d.Value+" is ignored: it is a bind mount")
			}
		}
	}
	return out
}

func checkMounts(s *specs.Spec) error {
	if len(s.Linux.Devices) > 0 && find(s, specs.UserNamespace) != nil && !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
		return path.Clean("/"+m.Destination) == "/dev"
	}) {
		return errs.New(errs.Unsupported, "start: devices in a user namespace need a tmpfs at /dev")
	}
	for _, d := range s.Linux.Devices {
		if _, ok := belowDev(d); !ok && find(s, specs.UserNamespace) != nil {
			return errs.Newf(errs.Unsupported, "start: device %s: in a user namespace devices can be in /dev only", d.Path)
		}
	}
	for _, m := range s.Mounts {
		o := mnt.ParseOptions(m.Options)
		bind := o.Bind || m.Type == "bind"
		switch mapped := len(m.UIDMappings) + len(m.GIDMappings); {
		case bind && slices.ContainsFunc(o.Data, isWord):
			i := slices.IndexFunc(o.Data, isWord)
			return errs.Newf(errs.Invalid, "start: mount %s: option %q: a bind mount has none of a file system", m.Destination, o.Data[i].Key)
		case o.Remount && (len(o.Data) > 0 || mapped > 0 || o.IDMap || o.Subpath != "" || o.CopyUp):
			return errs.Newf(errs.Unsupported, "start: mount %s: remount changes flags, and nothing else", m.Destination)
		case mapped > 0 && (len(m.UIDMappings) == 0 || len(m.GIDMappings) == 0):
			return errs.Newf(errs.Invalid, "start: mount %s: user and group ids must both be mapped", m.Destination)
		case (mapped > 0 || o.IDMap) && !bind:
			return errs.Newf(errs.Unsupported, "start: mount %s: owners of a %s cannot be mapped, only those of a bind mount", m.Destination, m.Type)
		case o.IDMap && mapped == 0 && find(s, specs.UserNamespace) == nil:
			return errs.Newf(errs.Invalid, "start: mount %s: nothing says how owners are to be mapped", m.Destination)
		case o.CopyUp && (m.Type != "tmpfs" || path.Clean("/"+m.Destination) == "/dev"):
			return errs.Newf(errs.Invalid, "start: mount %s: tmpcopyup is for a tmpfs", m.Destination)
		}
	}
	return nil
}
