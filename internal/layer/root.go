package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// Root is a container's file system as its processes see it, opened as a
// directory descriptor. Whatever is looked up in it is resolved by the kernel
// inside it; no path of it ever becomes one of the host's. It does not appear
// in the host's mount table.
type Root struct {
	fd  int
	ns  *os.File    // keeps the mount namespace that mounts were attached in
	ids *userns.Map // who is who, of a process in a user namespace; else nil
}

// RootMount is a directory seen at a place of a stopped container's root.
type RootMount struct {
	Source, Destination string
	Subpath             string // of Source: no link in it leads out
	ReadOnly            bool
}

// OpenRoot opens the root of a container that does not run, with the mounts it
// would have.
func OpenRoot(r *runtime.Rootfs, mounts ...RootMount) (*Root, error) {
	fd, err := mountRootfs(r)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	if len(mounts) == 0 {
		return &Root{fd: fd}, nil
	}
	ns, err := attachAll(fd, mounts)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open root: %w", err)
	}
	return &Root{fd: fd, ns: ns}, nil
}

// OpenPID opens the root of a running process. The caller makes sure that the
// pid is still the one meant, once it is open.
func OpenPID(pid int) (*Root, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/root"
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return ofProcess(fd, pid)
}

// ofProcess is the root of a process; what it says of owners is what they are in
// that one's user namespace.
func ofProcess(fd, pid int) (*Root, error) {
	m, err := userns.Of(pid)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("look at the user namespace of process %d: %w", pid, err)
	}
	if m.Identity() {
		return &Root{fd: fd}, nil
	}
	return &Root{fd: fd, ids: &m}, nil
}

// OpenMount opens the mount that is the root of a running process's mount
// namespace, without what is mounted in it: a second mount of the same layers
// would be one that the kernel promises nothing about. The caller makes sure
// that the pid is still the one meant, once it is open. The kernel refuses
// (EINVAL) where what is mounted in it hides something from its own user namespace.
func OpenMount(pid int) (*Root, error) {
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	fd := -1
	err = mnt.OnOwnThread(func() error {
		// A thread that shares its directories with others may not enter.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter the mount namespace of process %d: %w", pid, err)
		}
		// To enter leads to its root.
		var err error
		fd, err = mnt.Clone(unix.AT_FDCWD, "/", false)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ofProcess(fd, pid)
}

// Close unmounts what OpenRoot mounted.
func (r *Root) Close() error {
	err := unix.Close(r.fd)
	if r.ns != nil {
		err = errors.Join(err, r.ns.Close())
	}
	return err
}

// mountRootfs makes the overlay without attaching it anywhere.
func mountRootfs(r *runtime.Rootfs) (int, error) {
	switch {
	case r.Bind != "":
		return mnt.Clone(unix.AT_FDCWD, r.Bind, false)
	case len(r.Lower) == 0:
		return -1, errors.New("overlay without layers")
	case r.Upper == "" && len(r.Lower) == 1: // overlayfs wants two
		fd, err := mnt.Clone(unix.AT_FDCWD, r.Lower[0], false)
		if err == nil {
			err = mnt.SetAttr(fd, unix.MOUNT_ATTR_RDONLY, 0, 0, false)
		}
		return fd, err
	}
	if r.Upper != "" {
		// Left by a volatile mount of before; what it promised is not asked of this one.
		if err := os.RemoveAll(filepath.Join(r.Work, "work/incompat")); err != nil {
			return -1, err
		}
	}
	dirs := &openDirs{}
	defer dirs.close()
	if !mnt.OverlayTakesLayers() {
		return mountByPage(r)
	}
	var opts []mnt.Opt
	for _, l := range r.Lower {
		opts = append(opts, mnt.Opt{Key: "lowerdir+", Value: dirs.name(l)})
	}
	if r.Upper != "" {
		opts = append(opts, mnt.Opt{Key: "upperdir", Value: dirs.name(r.Upper)}, mnt.Opt{Key: "workdir", Value: dirs.name(r.Work)})
	}
	if dirs.err != nil {
		return -1, dirs.err
	}
	return mnt.New("overlay", "overlay", opts, 0)
}

// openDirs names directories by descriptor: the kernel takes no long strings,
// and a path with a colon or a comma would be cut.
type openDirs struct {
	fds []int
	err error
}

func (o *openDirs) name(dir string) string {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		o.err = errors.Join(o.err, &os.PathError{Op: "open", Path: dir, Err: err})
		return ""
	}
	o.fds = append(o.fds, fd)
	return "/proc/self/fd/" + strconv.Itoa(fd)
}

func (o *openDirs) close() {
	for _, fd := range o.fds {
		_ = unix.Close(fd)
	}
}

// mountByPage is for kernels before 6.7. It mounts with mount(2), in a mount namespace of a thread of its
// own, and takes the mount along as an unattached one. The directories have to
// be opened in that namespace: overlayfs takes no mounts of another.
func mountByPage(r *runtime.Rootfs) (fd int, err error) {
	err = mnt.InNamespace(func() error {
		dirs := &openDirs{}
		defer dirs.close()
		var lower []string
		for _, l := range r.Lower {
			lower = append(lower, dirs.name(l))
		}
		data := "lowerdir=" + strings.Join(lower, ":")
		if r.Upper != "" {
			data += ",upperdir=" + dirs.name(r.Upper) + ",workdir=" + dirs.name(r.Work)
		}
		if dirs.err != nil {
			return dirs.err
		}
		if len(data) >= os.Getpagesize() {
			return fmt.Errorf("%d layers are too many for this kernel", len(lower))
		}
		const at = "/proc/self/fdinfo" // a directory that is always there
		if err := unix.Mount("overlay", at, "overlay", 0, data); err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
		fd, err = mnt.Clone(unix.AT_FDCWD, at, false)
		return err
	})
	return fd, err
}

// attachAll attaches the root and, in it, the mounts, in a new mount namespace,
// and returns that. The places are resolved inside the root; where one is
// missing it is made, as it would be at start.
func attachAll(root int, mounts []RootMount) (ns *os.File, err error) {
	err = mnt.InNamespace(func() error {
		over, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(over) }()
		var trees []int
		defer func() {
			for _, fd := range trees {
				_ = unix.Close(fd)
			}
		}()
		for _, m := range mounts {
			fd, err := mnt.CloneBelow(m.Source, m.Subpath, true)
			if err != nil {
				return err
			}
			trees = append(trees, fd)
			if m.ReadOnly {
				if err := mnt.SetAttr(fd, unix.MOUNT_ATTR_RDONLY, 0, 0, true); err != nil {
					return err
				}
			}
		}
		if err := mnt.Attach(root, over); err != nil {
			return err
		}
		for i, m := range mounts {
			if err := attach(root, trees[i], m.Destination); err != nil {
				return fmt.Errorf("%s: %w", m.Destination, err)
			}
		}
		ns, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	return ns, err
}

func attach(root, tree int, destination string) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	target, _, err := mnt.Target(root, destination, st.Mode&unix.S_IFMT == unix.S_IFDIR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(target) }()
	return mnt.Attach(tree, target)
}

// place is a name in an opened directory.
type place struct {
	dir  int
	base string
}

func (p place) close() { _ = unix.Close(p.dir) }

// find opens the directory that holds p's last name, which may be a link and is
// not followed, unless p ends in a slash or a dot, which ask for what it leads
// to. "." is the base of a directory itself.
func (r *Root) find(p string) (place, error) {
	clean := path.Join("/", p)
	if clean == "/" || strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") {
		fd, err := mnt.OpenIn(r.fd, clean, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return place{}, &fs.PathError{Op: "lstat", Path: p, Err: err}
		}
		return place{fd, "."}, nil
	}
	dir, base := path.Split(clean)
	fd, err := mnt.OpenIn(r.fd, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return place{}, &fs.PathError{Op: "lstat", Path: p, Err: err}
	}
	return place{fd, base}, nil
}

func (p place) stat(st *unix.Stat_t) error {
	return unix.Fstatat(p.dir, p.base, st, unix.AT_SYMLINK_NOFOLLOW)
}

// archiveName is what the thing at p is called in an archive: its own last
// name, or "." where the path asks for the content.
func archiveName(p string) string {
	if p == "" || p == "." || strings.HasSuffix(p, "/.") || path.Clean(p) == "." || strings.HasSuffix(p, "/./") && path.Clean(p) == "/" {
		return "."
	}
	return path.Base(path.Join("/", p))
}

// Stat describes the thing at p; a link is described as such, with the path it
// leads to.
func (r *Root) Stat(_ context.Context, p string) (*container.PathStat, error) {
	at, err := r.find(p)
	if err != nil {
		return nil, err
	}
	defer at.close()
	var st unix.Stat_t
	if err := at.stat(&st); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: p, Err: err}
	}
	out := &container.PathStat{
		Name: archiveName(p), Size: st.Size, Mode: fileMode(st.Mode),
		Mtime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), //nolint:unconvert // 32 bits elsewhere
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		out.LinkTarget = r.resolve(p, at)
	}
	return out, nil
}

// resolve tells where in the root a link leads, as far as it leads anywhere.
func (r *Root) resolve(p string, at place) string {
	if fd, err := mnt.OpenIn(r.fd, path.Join("/", p), unix.O_PATH, 0); err == nil {
		defer func() { _ = unix.Close(fd) }()
		return r.pathOf(fd)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at.dir, at.base, buf)
	if err != nil {
		return ""
	}
	if target := string(buf[:n]); path.IsAbs(target) {
		return path.Clean(target)
	}
	return path.Join(r.pathOf(at.dir), string(buf[:n]))
}

// pathOf is the path of an opened file inside the root.
func (r *Root) pathOf(fd int) string {
	name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	root, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(r.fd))
	if root != "/" {
		name = strings.TrimPrefix(name, root)
	}
	return path.Join("/", name)
}

// fileMode is the Go form of a mode.
func fileMode(m uint32) os.FileMode {
	out := os.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		out |= os.ModeDir
	case unix.S_IFLNK:
		out |= os.ModeSymlink
	case unix.S_IFIFO:
		out |= os.ModeNamedPipe
	case unix.S_IFSOCK:
		out |= os.ModeSocket
	case unix.S_IFBLK:
		out |= os.ModeDevice
	case unix.S_IFCHR:
		out |= os.ModeDevice | os.ModeCharDevice
	}
	for bit, mode := range map[uint32]os.FileMode{unix.S_ISUID: os.ModeSetuid, unix.S_ISGID: os.ModeSetgid, unix.S_ISVTX: os.ModeSticky} {
		if m&bit != 0 {
			out |= mode
		}
	}
	return out
}
