//go:build linux

// Package mnt makes mounts by file descriptor, with the kernel's mount calls of
// 5.12 and later, so that nobody can swap a path for a symbolic link between a
// check and its use.
//
//	fd, err := mnt.New("tmpfs", "tmpfs", []mnt.Opt{{Key: "size", Value: "64m"}}, unix.MOUNT_ATTR_NOSUID)
//	target, err := mnt.OpenIn(root, "/run", unix.O_PATH, 0)
//	err = mnt.Attach(fd, target)
package mnt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Opt is one option of a file system; without a value it is a flag.
type Opt struct{ Key, Value string }

// New makes a file system that is not attached anywhere yet and returns its
// root. attrs are MOUNT_ATTR_ flags.
func New(fstype, source string, opts []Opt, attrs int) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	defer func() { _ = unix.Close(fs) }()
	if source != "" {
		if err := unix.FsconfigSetString(fs, "source", source); err != nil {
			return -1, fsError(fs, fstype, err)
		}
	}
	for _, o := range opts {
		if err := o.set(fs); err != nil {
			return -1, fsError(fs, fmt.Sprintf("%s: option %s=%s", fstype, o.Key, o.Value), err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, fstype, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fsError(fs, fstype, err)
	}
	return fd, nil
}

func (o Opt) set(fs int) error {
	if o.Value == "" {
		return unix.FsconfigSetFlag(fs, o.Key)
	}
	return unix.FsconfigSetString(fs, o.Key, o.Value)
}

// fsError adds what the kernel noted on a file system context.
func fsError(fs int, what string, err error) error {
	var notes []string
	buf := make([]byte, 1024)
	for range 8 {
		n, rerr := unix.Read(fs, buf)
		if rerr != nil || n <= 0 {
			break
		}
		notes = append(notes, strings.TrimSpace(strings.TrimPrefix(string(buf[:n]), "e ")))
	}
	if len(notes) > 0 {
		return fmt.Errorf("mount %s: %w (%s)", what, err, strings.Join(notes, "; "))
	}
	return fmt.Errorf("mount %s: %w", what, err)
}

// Clone copies the mount at fd (AT_FDCWD with a path) as an unattached tree.
func Clone(dirfd int, path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dirfd, path, flags)
	if err != nil {
		return -1, fmt.Errorf("open_tree %s: %w", path, err)
	}
	return fd, nil
}

// CloneBelow is Clone of a place in a directory, as [OpenBelow] finds it.
func CloneBelow(dir, sub string, recursive bool) (int, error) {
	if sub == "" {
		return Clone(unix.AT_FDCWD, dir, recursive)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(root) }()
	at, err := OpenBelow(root, dir, sub)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(at) }()
	return Clone(at, "", recursive)
}

// CloneInside is Clone of a place in the unattached mount fd. Kernels clone what
// is attached: it is for a moment, over the directory at.
func CloneInside(fd, at int, sub string) (clone int, err error) {
	cwd, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: ".", Err: err}
	}
	defer func() { _ = unix.Close(cwd) }()
	if err := Attach(fd, at); err != nil {
		return -1, err
	}
	defer func() {
		// By its name in the file system it may be covered; as "." it is meant.
		uerr := unix.Fchdir(fd)
		if uerr == nil {
			uerr = unix.Unmount(".", unix.MNT_DETACH)
		}
		if uerr = errors.Join(uerr, unix.Fchdir(cwd)); uerr != nil && err == nil {
			_ = unix.Close(clone)
			clone, err = -1, fmt.Errorf("unmount again: %w", uerr)
		}
	}()
	place, err := OpenBelow(fd, "", sub)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(place) }()
	return Clone(place, "", false)
}

// Attach puts the unattached mount fd over target.
func Attach(fd, target int) error {
	if err := unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// SetAttr changes the mount at fd: flags to set and to clear, and the
// propagation (0: as it is).
func SetAttr(fd int, set, clr, propagation uint64, recursive bool) error {
	if set|clr|propagation == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: set, Attr_clr: clr, Propagation: propagation}
	if err := unix.MountSetattr(fd, "", flags, &attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return nil
}

// MapOwners shows what is in the unattached mount fd as owned by those whom the
// user namespace userns maps the owners to.
func MapOwners(fd, userns int, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}
	if err := unix.MountSetattr(fd, "", flags, &attr); err != nil {
		return fmt.Errorf("map owners: %w", err)
	}
	return nil
}

// OpenIn opens path below root: symbolic links, ".." and absolute links are all
// resolved inside it. resolve adds RESOLVE_ flags.
func OpenIn(root int, path string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	path = strings.TrimLeft(path, "/")
	if path == "" {
		path = "."
	}
	fd, err := openat2(root, path, &how)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/" + path, Err: err}
	}
	return fd, nil
}

// OpenBelow names a place in the directory dir, opened as root. Links may lead
// about in it; one that leads out of it, or that is absolute, is refused, whoever
// puts it there meanwhile. The errors are in docker's words.
func OpenBelow(root int, dir, sub string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := openat2(root, sub, &how)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EXDEV) && dir == "":
		return -1, fmt.Errorf("path concatenation escapes the base directory, subpath: %s", sub)
	case errors.Is(err, unix.EXDEV):
		return -1, fmt.Errorf("path concatenation escapes the base directory, base: %s, subpath: %s", dir, sub)
	}
	return -1, fmt.Errorf("cannot access path %s: %w", filepath.Join("/", dir, sub), err)
}

// DirBelow names the directory at path below dir, if there are only directories
// on the way, and no link. Nothing else is ever opened, whatever is there: a pipe
// would let its opener wait, and a device of the host may act.
func DirBelow(dir int, path string) (int, error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := openat2(dir, path, &how)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// ErrNotRegular is that of [OpenFile] for whatever is no regular file.
var ErrNotRegular = errors.New("not a regular file")

// OpenFile makes of fd, which only names a file, a descriptor to read it with. A
// file that others may have made is opened in these two steps: the mere opening
// lets somebody wait at a pipe, and devices of the host act on it. proc is a
// procfs, or -1 for the one at its usual place.
func OpenFile(fd, proc int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, os.NewSyscallError("stat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, ErrNotRegular
	}
	name := "self/fd/" + strconv.Itoa(fd)
	if proc < 0 {
		name = "/proc/" + name
	}
	out, err := unix.Openat(proc, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	return out, os.NewSyscallError("open", err)
}

func openat2(dir int, path string, how *unix.OpenHow) (fd int, err error) {
	for range 128 { // EAGAIN: something was renamed meanwhile
		fd, err = unix.Openat2(dir, path, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}
