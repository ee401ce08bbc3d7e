//go:build linux

package ociruntime

import (
	"context"
	"flag"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/skiff-containers/skiff/internal/kit/version"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

func (a *app) features(*flag.FlagSet) func(context.Context, []string) error {
	return func(context.Context, []string) error { return a.printJSON(supported(), "    ") }
}

// supported says what this runtime can do, whatever the host's kernel can.
func supported() *features.Features {
	yes, no := true, false
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  mnt.KnownOptions(),
		Linux: &features.Linux{
			Namespaces:   launch.KnownNamespaces(),
			Capabilities: launch.KnownCapabilities(),
			Cgroup:       &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Seccomp: &features.Seccomp{
				Enabled: &yes, Actions: seccomp.KnownActions(), Operators: seccomp.KnownOperators(),
				Archs: seccomp.KnownArchs(), KnownFlags: seccomp.KnownFlags(), SupportedFlags: seccomp.KnownFlags(),
			},
			Apparmor: &features.Apparmor{Enabled: &yes},
			Selinux:  &features.Selinux{Enabled: &yes},
			IntelRdt: &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy: &features.MemoryPolicy{
				Modes: launch.KnownMemoryModes(), Flags: launch.KnownMemoryFlags(),
			},
			MountExtensions: &features.MountExtensions{
				IDMap: &features.IDMap{Enabled: &yes},
			},
			NetDevices: &features.NetDevices{Enabled: &yes},
		},
		Annotations: map[string]string{
			"org.skiff-containers.version":               version.Version,
			"org.opencontainers.runc.checkpoint.enabled": "true",
		},
		PotentiallyUnsafeConfigAnnotations: []string{criuConfig},
	}
}
