package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// Changes tells what a container changed: its upper directory against the
// layers below, topmost first, as docker diff shows it: sorted by path, a
// directory with something changed in it is changed. Left out is what the
// engine makes for mounts of its own (see isStub), and what skip says (nil:
// nothing).
func Changes(ctx context.Context, upper string, lowers []string, skip func(path string) bool) ([]container.FilesystemChange, error) {
	up, err := openDir(upper)
	if err != nil {
		return nil, err
	}
	if skip == nil {
		skip = func(string) bool { return false }
	}
	c := &changes{ctx: ctx, skip: skip}
	var below []*os.File
	for _, l := range lowers {
		f, err := openDir(l)
		if err != nil {
			_ = up.Close()
			closeAll(below)
			return nil, err
		}
		below = append(below, f)
	}
	out, _, err := c.dir("/", up, below)
	if err != nil {
		return nil, fmt.Errorf("compare with the image: %w", err)
	}
	return out, nil
}

func openDir(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func closeAll(fs []*os.File) {
	for _, f := range fs {
		_ = f.Close()
	}
}

type changes struct {
	ctx  context.Context //nolint:containedctx // for the length of one call
	skip func(string) bool
}

// isStub reports places where every container has something mounted. What was
// made there, empty, for the mount is no change of the container's.
func isStub(p string) bool {
	switch p {
	case "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
		"/proc", "/sys", "/sys/fs", "/sys/fs/cgroup":
		return true
	}
	return false
}

// dir compares a directory with what the layers below have in its place, and
// closes all it is given. skipped says that something in it was left out.
func (c *changes) dir(at string, up *os.File, below []*os.File) (out []container.FilesystemChange, skipped bool, err error) {
	defer func() { _ = up.Close(); closeAll(below) }()
	if err := c.ctx.Err(); err != nil {
		return nil, false, context.Cause(c.ctx)
	}
	names, err := up.Readdirnames(-1)
	if err != nil {
		return nil, false, err
	}
	opaque, err := isOpaque(int(up.Fd()))
	if err != nil {
		return nil, false, err
	}
	if opaque { // what is below and not here anew was removed
		hidden, err := c.hidden(below, names)
		if err != nil {
			return nil, false, err
		}
		names = append(names, hidden...)
	}
	slices.Sort(names)
	for _, n := range names {
		p := at + n
		if c.skip(p) {
			skipped = true
			continue
		}
		some, stub, err := c.entry(p, n, up, below)
		if errors.Is(err, unix.ENOENT) {
			continue // a live tree: gone meanwhile
		}
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", p, err)
		}
		skipped = skipped || stub
		out = append(out, some...)
	}
	return out, skipped, nil
}

// hidden lists the names that only the layers below have.
func (c *changes) hidden(below []*os.File, have []string) (out []string, err error) {
	for _, b := range below {
		names, err := b.Readdirnames(-1)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if !slices.Contains(have, n) && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out, nil
}

// entry compares one name; stub says that it is only there for a mount.
func (c *changes) entry(p, name string, up *os.File, below []*os.File) (out []container.FilesystemChange, stub bool, err error) {
	was, wasSt, err := lookBelow(below, name)
	if err != nil {
		return nil, false, err
	}
	var st unix.Stat_t
	err = unix.Fstatat(int(up.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		sub, err := openAt(up, name)
		if err != nil {
			closeAll(was)
			return nil, false, err
		}
		return c.subdir(p, &st, wasSt, sub, was)
	}
	closeAll(was)
	one := func(k container.ChangeType) []container.FilesystemChange {
		return []container.FilesystemChange{{Kind: k, Path: p}}
	}
	gone := err == unix.ENOENT || err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
	switch {
	case gone && wasSt == nil:
		return nil, false, nil
	case gone:
		return one(container.ChangeDelete), false, nil
	case err != nil:
		return nil, false, err
	case st.Size == 0 && isStub(p) && (wasSt == nil || wasSt.Size == 0):
		return nil, true, nil
	case wasSt == nil:
		return one(container.ChangeAdd), false, nil
	case same(&st, wasSt): // copied up, and left as it was
		return nil, false, nil
	}
	return one(container.ChangeModify), false, nil
}

func (c *changes) subdir(p string, st, wasSt *unix.Stat_t, sub *os.File, was []*os.File) (out []container.FilesystemChange, stub bool, err error) {
	in, skipped, err := c.dir(p+"/", sub, was)
	switch {
	case err != nil:
		return nil, false, err
	case wasSt == nil && len(in) == 0 && isStub(p):
		return nil, true, nil
	case wasSt == nil:
		return append([]container.FilesystemChange{{Kind: container.ChangeAdd, Path: p}}, in...), false, nil
	case len(in) > 0 || !sameDir(st, wasSt, skipped):
		return append([]container.FilesystemChange{{Kind: container.ChangeModify, Path: p}}, in...), false, nil
	}
	return nil, skipped, nil
}

func openAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// lookBelow finds what the layers show as name: nil if nothing; of a directory
// also the parts it is made of, topmost first.
func lookBelow(below []*os.File, name string) (parts []*os.File, first *unix.Stat_t, err error) {
	for _, b := range below {
		var st unix.Stat_t
		err := unix.Fstatat(int(b.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			closeAll(parts)
			return nil, nil, err
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFCHR && st.Rdev == 0 { // removed by this layer
			break
		}
		if first == nil {
			first = &st
		} else if kind != unix.S_IFDIR {
			break
		}
		if kind != unix.S_IFDIR {
			break
		}
		f, err := openAt(b, name)
		if err != nil {
			closeAll(parts)
			return nil, nil, err
		}
		parts = append(parts, f)
		opaque, err := isOpaque(int(f.Fd()))
		if err != nil {
			closeAll(parts)
			return nil, nil, err
		}
		if opaque {
			break
		}
	}
	return parts, first, nil
}

func same(a, b *unix.Stat_t) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && a.Rdev == b.Rdev && a.Size == b.Size && a.Mtim == b.Mtim
}

// sameDir compares directories; one in which the engine made a mount point has
// another time for that alone.
func sameDir(a, b *unix.Stat_t, touched bool) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && (touched || a.Mtim == b.Mtim)
}
