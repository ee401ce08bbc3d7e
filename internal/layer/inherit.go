package layer

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// Inherit gives the implicit directories of a layer in dir the owner, mode and
// time they have below: lowers are the directories of the layers under it,
// topmost first. What is in the layers came from strangers: it is only named,
// and opened never.
func Inherit(dir string, implicit, lowers []string) error {
	if len(implicit) == 0 {
		return nil
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, d := range append([]string{dir}, lowers...) {
		fd, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: d, Err: err}
		}
		fds = append(fds, fd)
	}
	for _, name := range implicit {
		if err := inherit(fds[0], name, fds[1:]); err != nil {
			return fmt.Errorf("attributes of %q: %w", name, err)
		}
	}
	return nil
}

func inherit(dir int, name string, lowers []int) error {
	for _, l := range lowers {
		var st unix.Stat_t
		err := withDir(l, name, func(fd int) error { return unix.Fstat(fd, &st) })
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case noDirectory(err):
			return nil // nothing to inherit
		case err != nil:
			return err
		}
		err = withDir(dir, name, func(fd int) error { return takeOn(fd, &st) })
		if errors.Is(err, unix.ENOENT) || noDirectory(err) {
			return nil // a later entry of the archive replaced it
		}
		return err
	}
	return nil
}

// withDir calls do with a descriptor that only names the directory.
func withDir(base int, name string, do func(fd int) error) error {
	fd, err := mnt.DirBelow(base, name)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return do(fd)
}

// noDirectory reports that there was something else in the way, or a link.
func noDirectory(err error) bool {
	return errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func takeOn(fd int, st *unix.Stat_t) error {
	if err := unix.Fchownat(fd, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return os.NewSyscallError("chown", err)
	}
	if err := unix.Chmod(selfFD(fd), st.Mode&0o7777); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	ts := []unix.Timespec{st.Mtim, st.Mtim}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH))
}
