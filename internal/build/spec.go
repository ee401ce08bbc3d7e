package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	ctdoci "github.com/containerd/containerd/v2/pkg/oci"
	bkexec "github.com/moby/buildkit/executor"
	bkoci "github.com/moby/buildkit/executor/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// defaultHostname is that of a step, when the build names none.
const defaultHostname = "buildkitsandbox"

// prepare collects what the launcher needs; undo takes it away again, after
// the container is gone.
func (e *executor) prepare(ctx context.Context, id string, root bkexec.Mount, mounts []bkexec.Mount, meta bkexec.Meta, undo *cleanup.Stack) (*Run, error) {
	if err := e.permit(meta); err != nil {
		return nil, err
	}
	var network string
	meta.CgroupParent, network = networkOf(meta.CgroupParent, meta.NetMode)
	dir := filepath.Join(e.state, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	undo.Push(func() { _ = os.RemoveAll(dir) })

	rootfs, err := e.rootfs(ctx, root, undo)
	if err != nil {
		return nil, err
	}
	stubs, err := newStubs(rootfs, mounts, meta.RemoveMountStubsRecursive)
	if err != nil {
		return nil, err
	}
	undo.Push(func() { stubs.remove(ctx, e.log) })

	n, err := e.network(ctx, id, network, meta, undo)
	if err != nil {
		return nil, err
	}
	hosts, resolv := filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(hosts, hostsFile(n.hosts, meta), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(resolv, n.resolv, 0o644); err != nil {
		return nil, err
	}
	if meta.Hostname == "" {
		meta.Hostname = defaultHostname
	}
	var opts []ctdoci.SpecOpts
	if meta.ReadonlyRootFS {
		opts = append(opts, ctdoci.WithRootFSReadonly())
	}
	if rest, ok := strings.CutSuffix(e.opt.CgroupParent, ":"); ok && meta.CgroupParent != "" { // systemd's: "slice:prefix:"
		_, prefix, _ := strings.Cut(rest, ":")
		meta.CgroupParent += ":" + prefix + ":"
	}
	spec, release, err := bkoci.GenerateSpec(ctx, meta, mounts, id, resolv, hosts, n, e.opt.CgroupParent,
		bkoci.ProcessSandbox, nil, "", false, "", nil, opts...)
	if err != nil {
		return nil, err
	}
	undo.Push(release)
	spec.Process.Terminal = meta.Tty
	if meta.SecurityMode != pb.SecurityMode_INSECURE {
		spec.Process.ApparmorProfile = e.opt.ApparmorProfile
	}
	return &Run{ID: id, Spec: spec, Rootfs: rootfs, User: userOf(meta), TTY: meta.Tty, NetNS: n.file,
		Insecure: meta.SecurityMode == pb.SecurityMode_INSECURE}, nil
}

// permit refuses what the daemon's configuration does not allow, and what
// nobody here can do. BuildKit has checked entitlements before; this is the
// last gate before the kernel.
func (e *executor) permit(meta bkexec.Meta) error {
	switch {
	case meta.SecurityMode == pb.SecurityMode_INSECURE && !e.opt.Insecure:
		return errs.New(errs.Denied, "security.insecure is not allowed on this daemon")
	case meta.NetMode == pb.NetMode_HOST && !e.opt.HostNetwork:
		return errs.New(errs.Denied, "network.host is not allowed on this daemon")
	case meta.Proxy != nil:
		return errs.New(errs.Unsupported, "build steps behind a capturing proxy are not supported")
	case len(meta.CDIDevices) > 0:
		return errs.New(errs.Unsupported, "CDI devices in build steps are not supported")
	}
	return nil
}

// rootfs finds the directories of the step's root without mounting them here.
func (e *executor) rootfs(ctx context.Context, root bkexec.Mount, undo *cleanup.Stack) (Rootfs, error) {
	if root.Src == nil {
		return Rootfs{}, errs.New(errs.Invalid, "a build step has no root file system")
	}
	claiming, c := withClaim(ctx)
	m, err := root.Src.Mount(claiming, false)
	if err != nil {
		return Rootfs{}, fmt.Errorf("mount the root of a build step: %w", err)
	}
	r, ok := rootfsOf(c.mounts)
	if !ok {
		// Mounted before, or not by our snapshotter: take what BuildKit mounts.
		ms, release, err := m.Mount()
		if err != nil {
			return Rootfs{}, fmt.Errorf("mount the root of a build step: %w", err)
		}
		undo.Push(func() { _ = release() })
		if r, ok = rootfsOf(ms); !ok {
			return Rootfs{}, fmt.Errorf("mount the root of a build step: no rule for %v", ms)
		}
	}
	if root.Selector != "" && path.Clean("/"+root.Selector) != "/" {
		return Rootfs{}, errs.New(errs.Unsupported, "a build step cannot have a part of a file system as its root")
	}
	if r.Upper != "" {
		// guard.go syncs before a layer counts.
		r.Volatile = true
		work := r.Work
		undo.Push(func() { _ = os.RemoveAll(filepath.Join(work, "work", "incompat")) })
	}
	return r, nil
}

// stepNet is a step's network. It implements BuildKit's network.Namespace.
type stepNet struct {
	mode          pb.NetMode
	file          *os.File
	hosts, resolv []byte
}

// Set implements network.Namespace.
func (n *stepNet) Set(s *specs.Spec) error {
	if n.mode == pb.NetMode_HOST {
		var keep []specs.LinuxNamespace
		for _, ns := range s.Linux.Namespaces {
			if ns.Type != specs.NetworkNamespace {
				keep = append(keep, ns)
			}
		}
		s.Linux.Namespaces = keep
	}
	return nil
}

// Sample implements network.Namespace.
func (*stepNet) Sample() (*resourcestypes.NetworkSample, error) { return nil, nil }

// Close implements network.Namespace.
func (*stepNet) Close() error { return nil }

func (e *executor) network(ctx context.Context, id, name string, meta bkexec.Meta, undo *cleanup.Stack) (*stepNet, error) {
	switch meta.NetMode {
	case pb.NetMode_NONE:
		return &stepNet{mode: meta.NetMode}, nil
	case pb.NetMode_HOST:
		resolv, err := e.opt.Networks.HostResolvConf(ctx)
		if err != nil {
			return nil, err
		}
		return &stepNet{mode: meta.NetMode, resolv: resolv}, nil
	case pb.NetMode_UNSET:
		n, err := e.opt.Networks.New(ctx, id, meta.Hostname, name)
		if err != nil {
			return nil, fmt.Errorf("connect a build step: %w", err)
		}
		undo.Push(func() {
			if err := n.Close(); err != nil {
				e.log.WarnContext(ctx, "cannot disconnect a build step", "id", id, "error", err)
			}
		})
		return &stepNet{mode: meta.NetMode, file: n.NetNS(), hosts: n.Hosts(), resolv: n.ResolvConf()}, nil
	}
	return nil, errs.Newf(errs.Unsupported, "network mode %s is not supported", meta.NetMode)
}

// hostsFile is the network's, or a plain one, with the build's own hosts.
func hostsFile(base []byte, meta bkexec.Meta) []byte {
	var b bytes.Buffer
	if len(base) > 0 {
		b.Write(base)
		if !bytes.HasSuffix(base, []byte("\n")) {
			b.WriteByte('\n')
		}
	} else {
		names := []string{"localhost"}
		if meta.Hostname != "" {
			names = append(names, meta.Hostname)
		} else {
			names = append(names, defaultHostname)
		}
		fmt.Fprintf(&b, "127.0.0.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n", strings.Join(names, " "))
	}
	for _, h := range meta.ExtraHosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Host)
	}
	return b.Bytes()
}

// userOf is never empty: root's groups, too, are those of the image.
func userOf(meta bkexec.Meta) string {
	if meta.User == "" {
		return "0"
	}
	return meta.User
}
