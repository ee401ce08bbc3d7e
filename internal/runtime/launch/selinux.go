//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// selinuxEnabled tells whether the kernel enforces, or would log, SELinux labels.
func selinuxEnabled() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/selinux", &fs) == nil && fs.Type == unix.SELINUX_MAGIC
}

// joinKeyring gives the command a session keyring of its own.
func (s *setup) joinKeyring() error {
	label := s.req.Process.SelinuxLabel
	if label != "" {
		if err := s.writeProc("thread-self/attr/keycreate", label); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("selinux label %q of keyring: %w", label, err)
		}
	}
	// It may not be searched for by its name, or other containers' processes of the
	// same owner could join it: each exec has its own.
	_, err := unix.KeyctlJoinSessionKeyring("_ses." + s.req.ID)
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("session keyring: %w", err)
	}
	if label != "" {
		if err := s.writeProc("thread-self/attr/keycreate", ""); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("reset selinux label of keyrings: %w", err)
		}
	}
	return nil
}

// newMessageQueues mounts an mqueue, whose label no option sets.
func newMessageQueues(o mnt.Options, source, label string) (int, error) {
	fd, err := mnt.New("mqueue", source, o.Data, int(o.Set))
	if err != nil || label == "" {
		return fd, err
	}
	if err := unix.Setxattr(byNumber(fd), "security.selinux", []byte(label), 0); err != nil {
		return -1, closeOn(fd, fmt.Errorf("selinux label %q: %w", label, err))
	}
	return fd, nil
}

// labelled adds the label that all files of a new file system have, unless its
// own options say one.
func labelled(data []mnt.Opt, label string) []mnt.Opt {
	if label == "" || slices.ContainsFunc(data, func(o mnt.Opt) bool { return o.Key == "context" }) {
		return data
	}
	return append(slices.Clip(data), mnt.Opt{Key: "context", Value: label})
}
