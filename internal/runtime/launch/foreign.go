//go:build linux

package launch

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// What another runtime cannot do for itself, with the care this launcher takes:
// the root is mounted by descriptors, the user looked up below it.

// MountRoot mounts a container's root at a directory of the calling thread's
// mount namespace and returns a descriptor of it.
func MountRoot(fs *runtime.Rootfs, at string) (fd int, err error) {
	if fs.Bind != "" {
		fd, err = mnt.Clone(unix.AT_FDCWD, fs.Bind, true)
	} else {
		fd, err = overlay(fs, at, "", !mnt.OverlayTakesLayers())
	}
	if err != nil {
		return -1, fmt.Errorf("root file system: %w", err)
	}
	if err := mnt.SetAttr(fd, 0, 0, unix.MS_PRIVATE, true); err != nil {
		return -1, fmt.Errorf("root file system: %w", err)
	}
	dir, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: at, Err: err}
	}
	defer func() { _ = unix.Close(dir) }()
	if err := mnt.Attach(fd, dir); err != nil {
		return -1, fmt.Errorf("attach root: %w", err)
	}
	return fd, nil
}

// Identify makes p run as u, who is looked up in the file system at root: its
// numbers, its groups, and a HOME where there is none.
func Identify(root int, u *runtime.User, p *specs.Process) error {
	s := &setup{root: root, proc: -1, req: &request{User: u, Process: commandOf(p, nil, nil)}}
	if err := s.identify(); err != nil {
		return err
	}
	s.environment()
	p.Env = s.env
	umask := p.User.Umask
	p.User = specs.User{UID: uint32(s.ids.uid), GID: uint32(s.ids.gid), Umask: umask}
	for _, g := range s.ids.groups {
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	return nil
}
