package spec

import (
	"cmp"
	"maps"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Build makes the specification. The user is not in it: the launcher looks it
// up in the container (see [User]).
func Build(in Input) (*specs.Spec, []string, error) {
	h := in.HostConfig
	sec, err := parseSecurityOpts(h.SecurityOpt, in.NoNewPrivileges)
	if err != nil {
		return nil, nil, err
	}
	if err := sec.check(in.Host); err != nil {
		return nil, nil, err
	}
	s := &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Readonly: h.ReadonlyRootfs},
		Annotations: maps.Clone(h.Annotations),
		Linux:       &specs.Linux{CgroupsPath: in.CgroupPath, Namespaces: namespaces(in)},
	}
	if err := checkUserNS(h, in.Host); err != nil { // the daemon may map users since it was created
		return nil, nil, err
	}
	addUserNS(s, in)
	if h.UTSMode.IsPrivate() && in.JoinUTS == "" {
		s.Hostname, s.Domainname = in.Hostname, in.Domainname
	}
	if s.Process, err = process(in, sec); err != nil {
		return nil, nil, err
	}
	l := s.Linux
	if s.Mounts, l.RootfsPropagation, err = mounts(in, sec); err != nil {
		return nil, nil, err
	}
	if l.Sysctl, err = sysctls(h, in.Host); err != nil {
		return nil, nil, err
	}
	if l.Resources, err = Resources(&h.Resources, in.Host); err != nil {
		return nil, nil, err
	}
	var warnings []string
	if l.Devices, l.Resources.Devices, warnings, err = devices(h, in.Host); err != nil {
		return nil, nil, err
	}
	names, err := requested(h.DeviceRequests, in.Host.CDI)
	if err != nil {
		return nil, nil, err
	}
	if len(names) > 0 {
		if err := in.Host.CDI.Inject(s, names); err != nil {
			return nil, nil, err
		}
	}
	protectPaths(l, h, sec, in.Host)
	if l.Seccomp, err = seccompFilter(s, sec.seccomp, in.SeccompProfile, h.Privileged, in.Host); err != nil {
		return nil, nil, err
	}
	return s, warnings, nil
}

// namespaces lists the ones to make, or to join by path; a mode of "host"
// leaves one out. A network namespace in the list is made only if none is
// passed by descriptor.
func namespaces(in Input) []specs.LinuxNamespace {
	h := in.HostConfig
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(t specs.LinuxNamespaceType, host bool, join string) {
		if !host {
			out = append(out, specs.LinuxNamespace{Type: t, Path: join})
		}
	}
	add(specs.NetworkNamespace, h.NetworkMode.IsHost(), "")
	add(specs.UTSNamespace, h.UTSMode.IsHost(), in.JoinUTS)
	add(specs.PIDNamespace, h.PidMode.IsHost(), in.JoinPID)
	add(specs.IPCNamespace, h.IpcMode.IsHost(), in.JoinIPC)
	add(specs.CgroupNamespace, cgroupnsMode(h, in.Host).IsHost(), "")
	return out
}

// cgroupnsMode is the mode asked for, or the default: the daemon's, or else a
// namespace of its own wherever there can be one; except for a privileged
// container on cgroup v1, which docker lets see the host's.
func cgroupnsMode(h *container.HostConfig, host HostFacts) container.CgroupnsMode {
	switch {
	case !host.CgroupNS:
		return container.CgroupnsModeHost
	case !h.CgroupnsMode.IsEmpty():
		return h.CgroupnsMode
	case h.Privileged && !host.CgroupV2:
		return container.CgroupnsModeHost
	}
	return cmp.Or(host.DefaultCgroupns, container.CgroupnsModePrivate)
}

// Defaults fills in what docker shows of a container whose creator left it
// open. Clients read these values back, so the engine stores them.
func Defaults(h *container.HostConfig, host HostFacts, shmSize int64) {
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory
	}
	if h.ShmSize == 0 {
		h.ShmSize = shmSize
		if h.ShmSize == 0 {
			h.ShmSize = defaultShmSize
		}
	}
	if h.IpcMode.IsEmpty() {
		h.IpcMode = cmp.Or(host.DefaultIPC, container.IPCModePrivate)
	}
	if h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = cgroupnsMode(h, host)
	}
	if h.OomKillDisable == nil && host.Cgroups.OOMKillDisable {
		h.OomKillDisable = new(bool)
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 {
		h.MemorySwappiness = nil // how old clients say "unset"
	}
	if h.Runtime == "" {
		h.Runtime = cmp.Or(host.DefaultRuntime, DefaultRuntime)
	}
	if h.MaskedPaths == nil && !h.Privileged {
		h.MaskedPaths = append(defaultMaskedPaths(), host.MaskedPaths...)
	}
	if h.ReadonlyPaths == nil && !h.Privileged {
		h.ReadonlyPaths = defaultReadonlyPaths()
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
}
