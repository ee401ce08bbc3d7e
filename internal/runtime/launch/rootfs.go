//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// mountRoot opens the sources of bind mounts, cuts the ties to the host's mount
// table and attaches the container's root.
func (s *setup) mountRoot() error {
	if err := s.openSources(); err != nil {
		return err
	}
	if s.req.Shared {
		return s.openRoot()
	}
	fs := s.req.Rootfs
	if fs == nil {
		if s.req.Spec.Root.Path == "" {
			return errors.New("no root file system")
		}
		fs = &runtime.Rootfs{Bind: s.req.Spec.Root.Path}
	}
	var fd int
	var err error
	if made := s.req.Made.Root; made > 0 {
		fd = made
	} else if fs.Bind != "" { // cloned before propagation is cut: it may be shared
		fd, err = mnt.Clone(unix.AT_FDCWD, fs.Bind, true)
	} else {
		fd, err = overlay(fs, s.req.MountPoint, s.req.Spec.Linux.MountLabel, s.req.ByPage)
	}
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	host, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// What the host mounts later still reaches here until the root is changed;
	// nothing mounted here reaches the host.
	if err := mnt.SetAttr(host, 0, 0, unix.MS_SLAVE, true); err != nil {
		return err
	}
	// Nor of what is mounted in the root; of the host's it gets what it asks for.
	tie := uint64(unix.MS_PRIVATE)
	if mnt.ParseOptions([]string{s.req.Spec.Linux.RootfsPropagation}).Propagation == unix.MS_SLAVE {
		tie = unix.MS_SLAVE
	}
	if err := mnt.SetAttr(fd, 0, 0, tie, true); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	where := s.req.MountPoint
	if s.req.UserNS {
		where = "/" // on top of it: the way to the other one is root's alone
	}
	at, err := unix.Open(where, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: where, Err: err}
	}
	if err := mnt.Attach(fd, at); err != nil {
		return fmt.Errorf("attach root: %w", err)
	}
	s.root = fd
	return nil
}

// openRoot opens the root where the mounts are not the container's own: it is
// used where it is, and what is mounted below it is seen by others too.
func (s *setup) openRoot() (err error) {
	dir := s.req.Spec.Root.Path
	if fs := s.req.Rootfs; fs != nil {
		dir = fs.Bind
	}
	if s.root, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("root file system: %w", &os.PathError{Op: "open", Path: dir, Err: err})
	}
	return nil
}

// overlay makes the overlay of a root. Layers are handed over one by one, so
// there may be as many as the kernel stacks, whatever their paths' length; by
// page where the kernel takes them in one string only.
func overlay(fs *runtime.Rootfs, scratch, label string, byPage bool) (int, error) {
	if len(fs.Lower) == 0 {
		return -1, errors.New("overlay without layers")
	}
	if alone(fs) && label != "" {
		below := *fs
		below.Lower = []string{fs.Lower[0], scratch} // an empty one: a label needs an overlay
		fs = &below
	}
	if alone(fs) {
		// The kernel wants two lower layers for a read-only overlay; one alone is
		// a read-only view of itself.
		fd, err := mnt.Clone(unix.AT_FDCWD, fs.Lower[0], false)
		if err != nil {
			return -1, err
		}
		return fd, mnt.SetAttr(fd, unix.MOUNT_ATTR_RDONLY, 0, 0, false)
	}
	if fs.Volatile {
		// Left by an earlier run on purpose: nothing of it was promised to last.
		// The kernel keeps a file in there too.
		if err := os.RemoveAll(fs.Work + "/work/incompat"); err != nil {
			return -1, err
		}
	}
	if byPage {
		return overlayByPage(fs, scratch, label)
	}
	return overlayByLayer(fs, label)
}

func alone(fs *runtime.Rootfs) bool { return fs.Upper == "" && len(fs.Lower) == 1 }

func overlayByLayer(fs *runtime.Rootfs, label string) (int, error) {
	var opts []mnt.Opt
	for _, l := range fs.Lower {
		opts = append(opts, mnt.Opt{Key: "lowerdir+", Value: l})
	}
	if fs.Upper != "" {
		opts = append(opts, mnt.Opt{Key: "upperdir", Value: fs.Upper}, mnt.Opt{Key: "workdir", Value: fs.Work})
	}
	for i, o := range opts {
		if len(o.Value) < 256 {
			continue
		}
		// The kernel takes no longer string: pass the directory by descriptor's name.
		short, err := byDescriptor(o.Value)
		if err != nil {
			return -1, err
		}
		opts[i].Value = short
	}
	if fs.Volatile && fs.Upper != "" {
		opts = append(opts, mnt.Opt{Key: "volatile"})
	}
	return mnt.New("overlay", "overlay", labelled(opts, label), 0)
}

func byDescriptor(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd), nil
}

// overlayByPage is for kernels before 6.7: mount(2) takes one page of options,
// which holds some two hundred layers by their descriptors' names.
func overlayByPage(fs *runtime.Rootfs, scratch, label string) (int, error) {
	var lower []string
	for _, l := range fs.Lower {
		short, err := byDescriptor(l)
		if err != nil {
			return -1, err
		}
		lower = append(lower, short)
	}
	data := "lowerdir=" + strings.Join(lower, ":")
	if fs.Upper != "" {
		upper, err := byDescriptor(fs.Upper)
		if err != nil {
			return -1, err
		}
		work, err := byDescriptor(fs.Work)
		if err != nil {
			return -1, err
		}
		data += ",upperdir=" + upper + ",workdir=" + work
		if fs.Volatile {
			data += ",volatile"
		}
	}
	if label != "" {
		data += ",context=\"" + label + "\""
	}
	if len(data) >= os.Getpagesize() {
		return -1, fmt.Errorf("%d layers are too many for this kernel", len(fs.Lower))
	}
	// This mount must reach nobody else: propagation is not cut yet.
	host, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := mnt.SetAttr(host, 0, 0, unix.MS_SLAVE, true); err != nil {
		return -1, err
	}
	if err := unix.Mount("overlay", scratch, "overlay", 0, data); err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	fd, err := mnt.Clone(unix.AT_FDCWD, scratch, false)
	if err != nil {
		return -1, err
	}
	return fd, unix.Unmount(scratch, unix.MNT_DETACH)
}
