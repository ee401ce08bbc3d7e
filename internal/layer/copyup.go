package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// CopyUp fills dir, a volume's directory, or the place sub in it, with what the
// root file system has at p: content, owners, modes, extended attributes, times.
// The directory itself takes on owner, mode and time of p. Where p is no
// directory, or not there, or where something is in the volume, nothing is done.
// owners, if given, says who the owners are outside of a user namespace.
func CopyUp(ctx context.Context, r *runtime.Rootfs, p, dir, sub string, owners *userns.Map) error {
	to, err := openEmpty(dir, sub)
	if to < 0 || err != nil {
		return err
	}
	defer func() { _ = unix.Close(to) }()
	root, err := OpenRoot(r)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	from, err := mnt.OpenIn(root.fd, path.Join("/", p), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", p, err)
	}
	c := &copier{ctx: ctx, root: to, links: map[inode]string{}, owners: owners}
	if err := c.dir(os.NewFile(uintptr(from), p), to, ""); err != nil {
		return fmt.Errorf("copy %s: %w", p, err)
	}
	return nil
}

// openEmpty opens a directory; -1 and no error if it is none, or not empty.
func openEmpty(dir, sub string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if sub != "" {
		base := fd
		place, err := mnt.OpenBelow(base, dir, sub)
		_ = unix.Close(base)
		if err != nil {
			return -1, err
		}
		fd, err = reopenDir(place)
		_ = unix.Close(place)
		if errors.Is(err, unix.ENOTDIR) {
			return -1, nil
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: path.Join(dir, sub), Err: err}
		}
	}
	var buf [512]byte // holds more than "." and ".."
	for {
		n, err := unix.Getdents(fd, buf[:])
		if err == nil && n == 0 {
			_, err = unix.Seek(fd, 0, io.SeekStart)
			if err == nil {
				return fd, nil
			}
		}
		if _, _, names := unix.ParseDirent(buf[:max(n, 0)], -1, nil); err != nil || len(names) > 0 {
			_ = unix.Close(fd)
			return -1, err
		}
	}
}

// copier copies a tree that nobody else writes to, to where others may write
// meanwhile: each step is made by a descriptor, and follows no link.
type copier struct {
	ctx    context.Context //nolint:containedctx // for the length of one call
	root   int
	links  map[inode]string // where the first name of each inode went, below root
	owners *userns.Map
}

// dir copies what is in from, and its attributes, to the directory to, which
// lies at prefix below the root.
func (c *copier) dir(from *os.File, to int, prefix string) error {
	defer func() { _ = from.Close() }()
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := c.entry(int(from.Fd()), to, n, path.Join(prefix, n)); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	return c.attributes(int(from.Fd()), to, &st)
}

func (c *copier) entry(from, to int, name, at string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		key := inode{st.Dev, st.Ino}
		if first, ok := c.links[key]; ok {
			return c.link(first, to, name)
		}
		c.links[key] = at
	}
	switch kind {
	case unix.S_IFDIR:
		return c.subdir(from, to, name, at)
	case unix.S_IFREG:
		return c.file(from, to, name, &st)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, buf)
		if err == nil {
			err = unix.Symlinkat(string(buf[:n]), to, name)
		}
		if err == nil {
			err = c.chown(to, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err == nil {
			err = unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		}
		return err
	case unix.S_IFSOCK:
		return nil // nobody listens on a copy
	}
	if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil { //nolint:gosec // the kernel's own number
		return err
	}
	return c.node(from, to, name, &st)
}

// link makes name a second one of the file that was copied to first.
func (c *copier) link(first string, to int, name string) error {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(c.root, first, &how)
	for err == unix.EAGAIN || err == unix.EINTR {
		fd, err = unix.Openat2(c.root, first, &how)
	}
	if err != nil {
		return &os.LinkError{Op: "link", Old: first, New: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Linkat(unix.AT_FDCWD, selfFD(fd), to, name, unix.AT_SYMLINK_FOLLOW)
}

func (c *copier) subdir(from, to int, name, at string) error {
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	src, err := unix.Openat(from, name, flags, 0)
	if err != nil {
		return err
	}
	dst, err := unix.Openat(to, name, flags, 0)
	if err != nil {
		_ = unix.Close(src)
		return err
	}
	defer func() { _ = unix.Close(dst) }()
	return c.dir(os.NewFile(uintptr(src), name), dst, at)
}

func (c *copier) file(from, to int, name string, st *unix.Stat_t) error {
	src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(src), name)
	defer func() { _ = in.Close() }()
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(dst), name)
	_, err = io.Copy(out, in) // copy_file_range: the kernel copies, or shares
	if err == nil {
		err = c.attributes(src, dst, st)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

func (c *copier) node(from, to int, name string, st *unix.Stat_t) error {
	dst, err := unix.Openat(to, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dst) }()
	src, err := unix.Openat(from, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(src) }()
	return c.attributes(src, dst, st)
}

// chown gives a copy its owners.
func (c *copier) chown(dir int, name string, st *unix.Stat_t, flags int) error {
	uid, gid := int(st.Uid), int(st.Gid)
	if c.owners != nil {
		var ok bool
		if uid, gid, ok = c.owners.Outside(st.Uid, st.Gid); !ok {
			return fmt.Errorf("owner %d:%d is nobody in the user namespace", st.Uid, st.Gid)
		}
	}
	return unix.Fchownat(dir, name, uid, gid, flags)
}

func (c *copier) attributes(from, to int, st *unix.Stat_t) error {
	if err := c.chown(to, "", st, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if err := unix.Chmod(selfFD(to), st.Mode&0o7777); err != nil {
		return err
	}
	xs, err := fdXattrs(from)
	if err != nil {
		return err
	}
	for k, v := range xs {
		if err := unix.Setxattr(selfFD(to), k, []byte(v), 0); err != nil && err != unix.ENOTSUP {
			return fmt.Errorf("set %s: %w", k, err)
		}
	}
	return unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}
