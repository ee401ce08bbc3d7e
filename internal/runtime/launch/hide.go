//go:build linux

package launch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// hidePaths covers what the container may not see and what it may not write.
func (s *setup) hidePaths() error {
	linux := s.req.Spec.Linux
	for _, p := range linux.ReadonlyPaths {
		target, err := mnt.OpenIn(s.root, p, unix.O_PATH, 0)
		if absent(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
		fd, err := mnt.Clone(target, "", true)
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
		if err := mnt.SetAttr(fd, unix.MOUNT_ATTR_RDONLY, 0, 0, true); err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
		if err := mnt.Attach(fd, target); err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
		_, _ = unix.Close(fd), unix.Close(target)
	}
	if len(linux.MaskedPaths) == 0 {
		return nil
	}
	null, err := openNull()
	if err != nil {
		return err
	}
	// One empty read-only directory covers all directories.
	opts := labelled([]mnt.Opt{{Key: "nr_blocks", Value: "1"}, {Key: "nr_inodes", Value: "1"}}, linux.MountLabel)
	empty, err := mnt.New("tmpfs", "tmpfs", opts, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	used := false
	for _, p := range linux.MaskedPaths {
		if err := s.mask(p, null, empty, &used); err != nil {
			return fmt.Errorf("mask %s: %w", p, err)
		}
	}
	return nil
}

func absent(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

func (s *setup) mask(p string, null, empty int, used *bool) error {
	target, err := mnt.OpenIn(s.root, p, unix.O_PATH, 0)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(target) }()
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		fd, err := cloneNull(null)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return mnt.Attach(fd, target)
	}
	if !*used {
		*used = true
		return mnt.Attach(empty, target)
	}
	fd, err := mnt.Clone(empty, "", false)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return mnt.Attach(fd, target)
}

func ioctlPtr(fd int, req uintptr, v *int32) error {
	return unix.IoctlSetPointerInt(fd, uint(req), int(*v))
}
