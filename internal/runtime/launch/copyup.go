//go:build linux

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyUp copies what is in the directory from to the empty directory to: a tmpfs
// that begins with what it covers. Names are opened one by one and never
// followed, so a link stays a link.
func copyUp(from, to int) error {
	src, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(src), ".")
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyName(src, to, name); err != nil {
			return &os.PathError{Op: "copy", Path: name, Err: err}
		}
	}
	return nil
}

func copyName(src, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = copyDir(src, to, name)
	case unix.S_IFREG:
		err = copyFile(src, to, name)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, rerr := unix.Readlinkat(src, name, buf)
		if rerr != nil {
			return rerr
		}
		err = unix.Symlinkat(string(buf[:n]), to, name)
	default:
		err = unix.Mknodat(to, name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	// After the owner: to change that takes set-id bits away.
	if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyDir(src, to int, name string) error {
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	const how = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW
	below, err := unix.Openat(src, name, how, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(below) }()
	there, err := unix.Openat(to, name, how, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(there) }()
	return copyUp(below, there)
}

func copyFile(src, to int, name string) error {
	// Without waiting, should it have become a fifo meanwhile.
	in, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	r := os.NewFile(uintptr(in), name)
	defer func() { _ = r.Close() }()
	if st, err := r.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s is no file any more", name))
	}
	out, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	w := os.NewFile(uintptr(out), name)
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
