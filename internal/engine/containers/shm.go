package containers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// Shm makes the memory that containers of --ipc=shareable share. It is mounted on
// the host, as no other thing of a container is but its volumes: a mount in the donor's own
// namespace cannot be handed on to others.
type Shm interface {
	Mount(dir string, size int64) error
	Unmount(dir string) error // of none is no error
}

type hostShm struct{}

func (hostShm) Mount(dir string, size int64) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	fd, err := mnt.New("tmpfs", "shm", []mnt.Opt{{Key: "mode", Value: "1777"}, {Key: "size", Value: strconv.FormatInt(size, 10)}},
		unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("make shared memory: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(at) }()
	return mnt.Attach(fd, at)
}

func (hostShm) Unmount(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || err == unix.EINVAL || err == unix.ENOENT {
		return nil
	}
	return &os.PathError{Op: "unmount", Path: dir, Err: err}
}

const shmName = "shm"

func (s *Service) shmDir(id string) string { return filepath.Join(s.runDir(id), shmName) }

// mountShm makes a shareable container's shared memory, in place of one that a
// killed daemon may have left.
func (s *Service) mountShm(rec *Record) error {
	dir := s.shmDir(rec.ID)
	if err := s.o.Shm.Unmount(dir); err != nil {
		return err
	}
	return s.o.Shm.Mount(dir, rec.HostConfig.ShmSize)
}

func (s *Service) unmountShm(id string) {
	if err := s.o.Shm.Unmount(s.shmDir(id)); err != nil {
		s.log.Warn("cannot unmount a container's shared memory", "container", id, "err", err)
	}
}

// shmPath is what is bound to a container's /dev/shm; "" for a tmpfs of its own.
func (s *Service) shmPath(rec *Record) string {
	for range 16 {
		switch m := rec.HostConfig.IpcMode; {
		case m.IsShareable():
			return s.shmDir(rec.ID)
		case m.IsHost():
			return "/dev/shm"
		case !m.IsContainer():
			return ""
		}
		other, err := s.index.get(rec.HostConfig.IpcMode.Container())
		if err != nil {
			return ""
		}
		o := other.record()
		rec = &o
	}
	return ""
}
