//go:build linux

package ociruntime

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// status is a container's state in the specification's words; paused is runc's.
type status string

const (
	creating status = "creating"
	created  status = "created"
	running  status = "running"
	paused   status = "paused"
	stopped  status = "stopped"
)

// open returns a pidfd of the container's first process if that is alive, and
// not a zombie.
func (c *container) open() (pidfd int, alive bool, err error) {
	if c.PID == 0 {
		return -1, false, nil
	}
	fd, err := proc.Open(c.PID, c.Ticks)
	if errors.Is(err, unix.ESRCH) {
		return -1, false, nil
	}
	if err != nil {
		return -1, false, err
	}
	if ended(fd, 0) {
		_ = unix.Close(fd)
		return -1, false, nil
	}
	return fd, true, nil
}

// ended tells whether a process has ended, within so many milliseconds.
func ended(pidfd, ms int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
	for {
		n, err := unix.Poll(p, ms)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0
	}
}

// status looks at what runs.
func (c *container) status() (status, error) {
	if c.PID == 0 {
		// A create holds the lock while it goes on.
		if lock, err := lockDir(c.dir, false); err == nil {
			_ = lock.Close()
			return stopped, nil
		}
		return creating, nil
	}
	fd, alive, err := c.open()
	if err != nil || !alive {
		return stopped, err
	}
	_ = unix.Close(fd)
	if g, err := c.group(); err == nil {
		if frozen, err := g.Frozen(); err == nil && frozen {
			return paused, nil
		}
	}
	switch _, err := os.Lstat(c.gate()); {
	case err == nil:
		return created, nil
	case errors.Is(err, fs.ErrNotExist):
		return running, nil
	default:
		return "", err
	}
}

// group is the container's control group.
func (c *container) group() (*cgroup.Group, error) {
	sys, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	return sys.Open(c.Cgroup)
}
