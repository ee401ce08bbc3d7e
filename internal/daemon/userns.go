package daemon

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// defaultRemap is docker's word for a user of the engine's own.
const defaultRemap = "default"

// remap finds whose ids the containers' are, by --userns-remap; nil: they are
// the host's.
func (d *daemon) remap(ctx context.Context) (*userns.Map, error) {
	var m userns.Map
	var err error
	switch who := d.c.UsernsRemap; who {
	case "":
		return nil, nil //nolint:nilnil // none is asked for
	case defaultRemap:
		m, err = userns.SubordinateDefault("/etc")
	default:
		m, err = userns.Subordinate("/etc", who)
	}
	if err == nil {
		err = canRemap(d.c.DataRoot, m)
	}
	if err != nil {
		return nil, fmt.Errorf("--userns-remap %s: %w", d.c.UsernsRemap, err)
	}
	if last := m.UIDs[len(m.UIDs)-1]; last.ContainerID+last.Size < 65536 {
		d.log.WarnContext(ctx, "containers have few users: not every image can be used", "ids", last.ContainerID+last.Size)
	}
	return &m, nil
}

// canRemap tries whether the owners of layers can be mapped: layers hold those
// that the containers see, whatever a container is mapped to.
func canRemap(dir string, m userns.Map) error {
	ns, err := userns.New(m)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ns) }()
	fd, err := mnt.Clone(unix.AT_FDCWD, dir, false)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := mnt.MapOwners(fd, ns, false); err != nil {
		return errs.Newf(errs.Unsupported, "the file system of %s cannot show its files with other owners, which needs ext4, xfs or btrfs and Linux 5.19: %w", dir, err)
	}
	return nil
}

// mapsMemory tells whether this kernel can map the owners of a tmpfs: from Linux
// 6.3 on.
func mapsMemory(m *userns.Map) (bool, error) {
	if m == nil {
		return false, nil // nobody will ask it to
	}
	ns, err := userns.New(*m)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(ns) }()
	fd, err := mnt.New("tmpfs", "tmpfs", nil, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	return mnt.MapOwners(fd, ns, false) == nil, nil
}

// steps says how build steps are put in user namespaces.
type steps struct {
	users      *userns.Map // nil: they are not
	mapsMemory bool        // see mapsMemory
}

// remapped is a step's specification in a user namespace, unless it is allowed to
// be root on the host.
func (st steps) remapped(r *build.Run) (*specs.Spec, error) {
	if st.users == nil || r.Insecure {
		return r.Spec, nil
	}
	s := *r.Spec
	l := *s.Linux
	s.Linux = &l
	l.Namespaces = append(slices.Clone(l.Namespaces), specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings, l.GIDMappings = st.users.UIDs, st.users.GIDs
	s.Mounts = slices.Clone(s.Mounts)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
			continue
		}
		// All that a step is given is BuildKit's own, with the owners that it shall see.
		var fs unix.Statfs_t
		if !st.mapsMemory && unix.Statfs(m.Source, &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
			if err := giveAway(m.Source, *st.users); err != nil {
				return nil, err
			}
			continue
		}
		m.Options = append(slices.Clone(m.Options), "idmap")
	}
	return &s, nil
}

// giveAway changes the owners of what was made for one step (its secrets, its
// hosts) where they cannot be mapped.
func giveAway(dir string, users userns.Map) error {
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		if err != nil {
			return err
		}
		uid, gid, ok := users.Outside(st.Uid, st.Gid)
		if !ok {
			return errs.Newf(errs.Invalid, "owner %d:%d of %s is not mapped in user namespaces", st.Uid, st.Gid, p)
		}
		return os.Lchown(p, uid, gid)
	})
}
