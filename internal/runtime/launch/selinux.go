//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

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
	ring, err := unix.KeyctlJoinSessionKeyring("_ses." + s.req.ID)
	if err == nil && !s.req.Exec {
		err = searchable(ring) // an exec would make another one of the same name
	}
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

// searchable lets processes of the keyring's owner find it by its name.
func searchable(ring int) error {
	text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, ring)
	if err != nil {
		return err
	}
	fields := strings.SplitN(text, ";", 5) // type, uid, gid, permissions, name
	if len(fields) < 5 {
		return fmt.Errorf("described as %q", text)
	}
	perm, err := strconv.ParseUint(fields[3], 16, 32)
	if err != nil {
		return fmt.Errorf("described as %q", text)
	}
	const ownerSearches = 0x80000
	return unix.KeyctlSetperm(ring, uint32(perm)|ownerSearches)
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
