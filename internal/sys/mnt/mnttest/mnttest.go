//go:build linux

// Package mnttest prepares the mount namespace that tests run in.
package mnttest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OwnRoot makes the root directory of a process in a chroot the root of its
// mount namespace, which must be its own. The kernel lets nobody in a chroot
// make user namespaces, and whoever joins the namespace would be outside of
// it. Without a chroot, or where the root is no mount point, nothing changes.
func OwnRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return nil // no mount point
		}
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	cwd, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(cwd) }()
	if err := leave(); err != nil {
		return fmt.Errorf("leave the chroot: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	switch err := unix.PivotRoot(".", "."); {
	case errors.Is(err, unix.EBUSY): // it is the root already
	case err != nil:
		_ = unix.Chroot(".")
		return fmt.Errorf("pivot into the chroot: %w", err)
	default:
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return unix.Fchdir(cwd)
}

// leave goes to the root of the mount namespace: a working directory that is
// not below the root directory has no end but that.
func leave() error {
	dir, err := os.MkdirTemp("", "leave")
	if err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := os.Remove(dir); err != nil { // a directory without a name will do
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Chroot(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		return err
	}
	for {
		var here, above unix.Statx_t
		const mask = unix.STATX_INO | unix.STATX_MNT_ID
		if err := unix.Statx(unix.AT_FDCWD, ".", 0, mask, &here); err != nil {
			return err
		}
		if err := unix.Statx(unix.AT_FDCWD, "..", 0, mask, &above); err != nil {
			return err
		}
		if here.Ino == above.Ino && here.Mnt_id == above.Mnt_id {
			return unix.Chroot(".")
		}
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
}
