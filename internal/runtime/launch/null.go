//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// The host's null device is shown to containers, as a stream and over masked
// files, on read-only mounts only. Data still goes through such a mount, but the
// container's root, who is the host's, cannot change the device's mode, owner or
// times for everybody.

// nullDevice opens the null device for streams. The mount is kept: it is made
// once, and taking an unattached one apart waits for all processors.
type nullDevice struct {
	once sync.Once
	fd   int // an unattached read-only mount of it
	err  error
}

func (n *nullDevice) open() (*os.File, error) {
	n.once.Do(func() { n.fd, n.err = readOnlyNull() })
	if n.err != nil {
		return nil, n.err
	}
	return os.OpenFile("/proc/self/fd/"+strconv.Itoa(n.fd), os.O_RDWR, 0)
}

func readOnlyNull() (int, error) {
	null, err := openNull()
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(null) }()
	return cloneNull(null)
}

// cloneNull makes one more read-only mount of what openNull opened.
func cloneNull(null int) (int, error) {
	fd, err := mnt.Clone(null, "", false)
	if err != nil {
		return -1, err
	}
	if err := mnt.SetAttr(fd, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, 0, unix.MS_PRIVATE, false); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openNull opens the host's null device and makes sure it is one.
func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/null: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, fmt.Errorf("stat /dev/null: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return -1, errors.New("/dev/null is not the null device")
	}
	return fd, nil
}
