package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// The files the engine keeps for a container, in its run directory.
const (
	hostsName    = "hosts"
	hostnameName = "hostname"
	resolvName   = "resolv.conf"
)

var keptFiles = [...]struct{ name, target string }{
	{resolvName, "/etc/resolv.conf"}, {hostnameName, "/etc/hostname"}, {hostsName, "/etc/hosts"},
}

// specMounts resolves a container's mounts to what the launcher can mount.
func (s *Service) specMounts(ctx context.Context, rec *Record, volumes map[string]MountedVolume) ([]spec.Mount, error) {
	out := make([]spec.Mount, 0, len(rec.Mounts)+len(keptFiles))
	for _, m := range rec.Mounts {
		sm := spec.Mount{
			Destination: m.Destination, Source: m.Source, ReadOnly: m.ReadOnly, Propagation: m.Propagation,
			NonRecursive: m.NonRecursive, ReadOnlyNonRecursive: m.ReadOnlyNonRecursive, ReadOnlyForceRecursive: m.ReadOnlyForceRecursive,
		}
		var err error
		switch m.Type {
		case mount.TypeTmpfs:
			sm = spec.TmpfsMount(m.Destination, m.Tmpfs)
		case mount.TypeBind:
			err = bindSource(m)
		case mount.TypeVolume:
			sm.Inside = !volumes[m.Name].Foreign
			if m.Subpath != "" {
				sm.Subpath, err = m.Subpath, checkSubpath(m)
			}
		case mount.TypeImage:
			sm, err = s.imageMount(ctx, m)
		default:
			err = fmt.Errorf("mounts of type %q are not supported", m.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		out = append(out, sm)
	}
	return out, nil
}

// bindSource makes sure that what is to be bound is there.
func bindSource(m Mount) error {
	_, err := os.Stat(m.Source)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !m.MakeSource {
		return fmt.Errorf("bind source path does not exist: %s", m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
	}
	return nil
}

// checkSubpath refuses a place that is not in the volume before anything is made.
// It is the launcher who resolves it, once, for the mount: another container may
// put links there meanwhile.
func checkSubpath(m Mount) error {
	dir, err := os.Open(m.Source)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	fd, err := mnt.OpenBelow(int(dir.Fd()), m.Source, m.Subpath)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (s *Service) imageMount(ctx context.Context, m Mount) (spec.Mount, error) {
	img, err := s.o.Images.Resolve(ctx, m.Source, nil)
	if errs.Is(err, errs.NotFound) && m.ChainID != "" { // removed by force: its layers stay
		img, err = &Image{ID: m.Source, ChainID: m.ChainID}, nil
	}
	if err != nil {
		return spec.Mount{}, err
	}
	lowers, err := s.o.Images.Lowers(ctx, img)
	if err != nil {
		return spec.Mount{}, err
	}
	switch len(lowers) {
	case 0:
		return spec.Mount{}, fmt.Errorf("image %s has no files", m.Name)
	case 1:
		return spec.Mount{Destination: m.Destination, Type: "bind", Source: lowers[0], ReadOnly: true, Subpath: m.Subpath, Inside: true}, nil
	}
	list := lowers[0]
	for _, l := range lowers[1:] {
		list += ":" + l
	}
	return spec.Mount{Destination: m.Destination, Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + list}, ReadOnly: true, Subpath: m.Subpath}, nil
}

// addFiles writes hosts, hostname and resolv.conf, or takes those of the
// container whose network is shared, and has them mounted where the user has
// nothing of their own.
func (s *Service) addFiles(c *ctr, rec *Record, net *netPlan, oci *specs.Spec) error {
	dir := net.filesDir
	if dir == "" {
		dir = s.runDir(c.id)
		hostname := rec.Config.Hostname + "\n"
		if rec.Config.Hostname == "" {
			hostname = ""
		}
		for name, data := range map[string][]byte{
			hostnameName: []byte(hostname), hostsName: net.sandbox.Hosts(), resolvName: net.sandbox.ResolvConf(),
		} {
			file := filepath.Join(dir, name)
			err := writeInPlace(file, data)
			if users := s.users(rec); err == nil && users != nil { // its root's to change
				uid, gid, _ := users.Outside(0, 0)
				err = os.Chown(file, uid, gid)
			}
			if err != nil {
				return fmt.Errorf("write %s of container %s: %w", name, rec.Name, err)
			}
		}
	}
	for _, f := range keptFiles {
		if slices.ContainsFunc(oci.Mounts, func(m specs.Mount) bool { return m.Destination == f.target }) {
			continue
		}
		opts := []string{"rbind", "rprivate"}
		if rec.HostConfig.ReadonlyRootfs {
			opts = append(opts, "ro")
		}
		oci.Mounts = append(oci.Mounts, specs.Mount{Destination: f.target, Type: "bind", Source: filepath.Join(dir, f.name), Options: opts})
	}
	return nil
}

// writeInPlace keeps the inode: it is bind-mounted in a running container.
func writeInPlace(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
