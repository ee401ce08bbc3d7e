//go:build linux

package oci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/criu"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
)

// Restore is what a container is made anew from.
type Restore struct {
	Dir, Work string // the container's directory; where criu writes its log
	Launch    *runtime.Launch
	Meta      *criu.Meta
	Streams   [3]*os.File
	Place     func(pid int) error // puts a process into the container's control groups
}

// Restore has criu make a container of the built-in launcher anew: like a
// runtime, it finds the root mounted in a namespace of its own.
func (d *Driver) Restore(ctx context.Context, o *Restore) (*Process, error) {
	dir, work, l, meta, streams := o.Dir, o.Work, o.Launch, o.Meta, o.Streams
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errTooLong)
	defer cancel()
	pidFile := filepath.Join(dir, "restored")
	r := &criu.Restore{
		Program: l.Restore.CRIU, Images: l.Restore.Dir, Work: work, Root: filepath.Join(dir, MountPoint), PIDFile: pidFile, Meta: meta,
		Streams: [3]int{-1, -1, -1}, Net: -1,
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	c := &Container{ID: l.ID, Bundle: dir, Runtime: runtime.External{Name: "criu"}}
	k := &call{c: c, req: &request{Bundle: dir, Argv: []string{r.Program}, Spec: l.Spec, Rootfs: l.Rootfs, Restore: r}, fresh: true, place: o.Place}
	pass := func(f *os.File) int {
		k.more = append(k.more, f)
		return fdMounts + len(k.more) - 1
	}
	for i, f := range streams {
		if f == nil {
			f = null
		}
		r.Streams[i] = pass(f)
	}
	if l.NetNS != nil {
		r.Net = pass(l.NetNS)
	}
	out, err := memory()
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	err = d.helper(ctx, k, out)
	if c.Mounts != nil {
		_ = c.Mounts.Close() // the container has its own
	}
	if _, failed := err.(*exec.ExitError); failed { //nolint:errorlint // as Wait returns it
		if ctx.Err() != nil {
			return nil, fmt.Errorf("criu was given up: %w", context.Cause(ctx))
		}
		return nil, criu.Failure("restore", filepath.Join(work, "restore.log"), tail(out), err)
	}
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	p := &Process{}
	if p.PID, p.PidFD, err = readPID(pidFile); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return p, nil
}

// prepareRestore mounts the root and finds what the mounts of the checkpoint
// are now.
func (r *request) prepareRestore() ([]string, error) {
	if err := cutPropagation(r.Bundle); err != nil {
		return nil, err
	}
	if hasOwn(r.Spec, specs.CgroupNamespace) {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return nil, fmt.Errorf("cgroup namespace: %w", err)
		}
	}
	root, err := launch.MountRoot(r.Rootfs, r.Restore.Root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(root) }()
	if err := mountSubpaths(r.Bundle, r.Spec.Mounts); err != nil {
		return nil, err
	}
	if r.Restore.Net < 0 && r.Restore.Meta.Net != "" && hasOwn(r.Spec, specs.NetworkNamespace) {
		if r.Restore.Net, err = newNetwork(); err != nil {
			return nil, fmt.Errorf("network namespace: %w", err)
		}
	}
	r.Restore.Sources = bindSources(r.Spec.Mounts)
	return r.Restore.Args()
}

func hasOwn(s *specs.Spec, ns specs.LinuxNamespaceType) bool {
	return s.Linux != nil && slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == ns && n.Path == ""
	})
}

// newNetwork makes a network namespace, which this thread does not stay in, and
// returns a descriptor that criu inherits.
func newNetwork() (int, error) {
	const own = "/proc/thread-self/ns/net"
	before, err := unix.Open(own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(before) }()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, err
	}
	fd, err := unix.Open(own, unix.O_RDONLY, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Setns(before, unix.CLONE_NEWNET)
}

func bindSources(mounts []specs.Mount) map[string]string {
	out := map[string]string{}
	for _, m := range mounts {
		if m.Type == "bind" {
			out[filepath.Clean("/"+m.Destination)] = m.Source
		}
	}
	return out
}
