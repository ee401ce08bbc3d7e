//go:build linux

package mnt

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Target opens what a mount will cover, below root, and makes it if it is
// missing: a directory, or else an empty file. The way to it is made too, also
// behind symbolic links that lead nowhere yet. made tells if it is new.
func Target(root int, path string, dir bool, resolve uint64) (fd int, made bool, err error) {
	fd, err = OpenIn(root, path, unix.O_PATH, resolve)
	if err == nil {
		return fd, false, checkKind(fd, path, dir)
	}
	if !errors.Is(err, unix.ENOENT) || resolve&unix.RESOLVE_NO_SYMLINKS != 0 && isLink(root, path) {
		return -1, false, err
	}
	fd, err = makeIn(root, path, dir)
	return fd, err == nil, err
}

func isLink(root int, path string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(root, strings.TrimLeft(path, "/"), &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

func checkKind(fd int, path string, dir bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if is := st.Mode&unix.S_IFMT == unix.S_IFDIR; is != dir {
		_ = unix.Close(fd)
		return &os.PathError{Op: "mount on", Path: path, Err: unix.ENOTDIR}
	}
	return nil
}

const maxLinks = 40

// makeIn walks path one name at a time, below root, following links inside it
// by hand, and makes what is missing. Each step is opened anew from the names
// walked so far and must hold no link, so a name that somebody swaps meanwhile
// is an error and never leads out.
func makeIn(root int, path string, dir bool) (int, error) {
	todo := split(path)
	var walked []string
	links := 0
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			walked = walked[:max(0, len(walked)-1)]
			continue
		}
		parent, err := OpenIn(root, strings.Join(walked, "/"), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			return -1, err
		}
		link, err := step(parent, name, dir || len(todo) > 0)
		_ = unix.Close(parent)
		if err != nil {
			return -1, &os.PathError{Op: "create mount point", Path: "/" + strings.Join(append(walked, name), "/"), Err: err}
		}
		if link == "" {
			walked = append(walked, name)
			continue
		}
		if links++; links > maxLinks {
			return -1, &os.PathError{Op: "create mount point", Path: path, Err: unix.ELOOP}
		}
		if strings.HasPrefix(link, "/") {
			walked = nil
		}
		todo = append(split(link), todo...)
	}
	full := strings.Join(walked, "/")
	fd, err := OpenIn(root, full, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return -1, err
	}
	return fd, checkKind(fd, "/"+full, dir)
}

// step makes name in parent if it is missing; if it is a link, that is returned.
func step(parent int, name string, dir bool) (link string, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT) && dir:
		return "", unix.Mkdirat(parent, name, 0o755)
	case errors.Is(err, unix.ENOENT):
		fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return "", err
		}
		return "", unix.Close(fd)
	case err != nil:
		return "", err
	case st.Mode&unix.S_IFMT != unix.S_IFLNK:
		return "", nil
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, name, buf)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", fmt.Errorf("empty link: %w", unix.ENOENT)
	}
	return string(buf[:n]), nil
}

func split(path string) []string {
	var out []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			out = append(out, name)
		}
	}
	return out
}
