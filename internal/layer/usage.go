package layer

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// DiskUsage adds up the sizes of the files below dir, each inode once, without
// what is mounted there.
func DiskUsage(ctx context.Context, dir string) (int64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	u := usage{ctx: ctx, dev: st.Dev, seen: map[uint64]bool{}}
	err = u.dir(os.NewFile(uintptr(fd), dir))
	return u.sum, err
}

type usage struct {
	ctx  context.Context //nolint:containedctx // for the length of one call
	dev  uint64
	seen map[uint64]bool
	sum  int64
}

func (u *usage) dir(d *os.File) error {
	defer func() { _ = d.Close() }()
	for {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		names, err := d.Readdirnames(1024)
		if len(names) == 0 {
			return nil // the end, or a directory that was just removed
		}
		for _, n := range names {
			if err := u.entry(int(d.Fd()), n); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

func (u *usage) entry(dir int, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil || st.Dev != u.dev {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil
		}
		if err != nil {
			return err
		}
		return u.dir(os.NewFile(uintptr(fd), name))
	}
	if st.Nlink > 1 {
		if u.seen[st.Ino] {
			return nil
		}
		u.seen[st.Ino] = true
	}
	u.sum += st.Size
	return nil
}
