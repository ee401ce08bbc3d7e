package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	compiler "github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
)

// A bundle is what every runtime is given: busybox's true, in namespaces of its
// own, with docker's seccomp profile and some limits.
type bundle struct {
	dir, rootfs string
	spec        *specs.Spec
	filter      string // the profile, compiled: for bubblewrap, which takes no other
}

func makeBundle(dir, runtime string) (*bundle, error) {
	b := &bundle{dir: dir, rootfs: filepath.Join(dir, "rootfs"), spec: &specs.Spec{}, filter: filepath.Join(dir, "seccomp.bpf")}
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(b.rootfs, d), 0o755); err != nil {
			return nil, err
		}
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("busybox-static is needed: %w", err)
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(b.rootfs, "bin/busybox"), box, 0o755), //nolint:gosec // a program
		os.Symlink("busybox", filepath.Join(b.rootfs, "bin/true")),
	)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(runtime, "spec", "--bundle", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s spec: %w: %s", runtime, err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	s := b.spec
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	limit, memory, shares := int64(100), int64(256<<20), uint64(512)
	s.Version = "1.0.2" // what Debian's crun knows
	s.Root = &specs.Root{Path: b.rootfs}
	s.Process.Args, s.Process.Terminal = []string{"/bin/true"}, false
	s.Process.Rlimits, s.Process.OOMScoreAdj = nil, nil // not every root may raise them
	s.Linux.Resources = &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}, Pids: &specs.LinuxPids{Limit: &limit},
		Memory: &specs.LinuxMemory{Limit: &memory}, CPU: &specs.LinuxCPU{Shares: &shares},
	}
	if s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s); err != nil {
		return nil, err
	}
	prog, err := compiler.Compile(s.Linux.Seccomp, compiler.Native())
	if err != nil {
		return nil, err
	}
	return b, os.WriteFile(b.filter, prog.Code, 0o600)
}

// write puts the specification into the bundle, for a container of this group.
func (b *bundle) write(dir, group string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(b.in(group))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
}

// in is the specification of a container in this group.
func (b *bundle) in(group string) *specs.Spec {
	s, linux := *b.spec, *b.spec.Linux
	linux.CgroupsPath = group
	s.Linux = &linux
	return &s
}
