//go:build linux

package launch

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// makeDevices fills the container's /dev: a tmpfs that is ours alone or, without
// one, a directory of the root, which must not be a link to elsewhere.
func (s *setup) makeDevices() error {
	dev, _, err := mnt.Target(s.root, "/dev", true, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dev) }()
	return fillDev(dev, s.req.Spec.Linux.Devices, s.devpts >= 0, nil)
}

// fillDev makes the devices below dev. pts tells that the container has
// terminals of its own; owner, if set, translates owners.
func fillDev(dev int, devices []specs.LinuxDevice, pts bool, owner func(uid, gid int) (int, int, error)) error {
	if owner == nil {
		owner = func(uid, gid int) (int, int, error) { return uid, gid, nil }
	}
	uid, gid, err := owner(0, 0)
	if err != nil {
		return err
	}
	type std struct {
		name         string
		major, minor uint32
	}
	listed := make(map[string]bool) // the specification's word counts
	for _, d := range devices {
		listed[path.Clean("/"+d.Path)] = true
	}
	for _, d := range []std{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		if listed["/dev/"+d.name] {
			continue
		}
		if err := mknod(dev, d.name, unix.S_IFCHR|0o666, d.major, d.minor, uid, gid); err != nil {
			return err
		}
	}
	links := [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}}
	if pts {
		links = append(links, [2]string{"pts/ptmx", "ptmx"})
	}
	for _, l := range links {
		if err := unix.Symlinkat(l[0], dev, l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make /dev/%s: %w", l[1], err)
		}
	}
	for _, d := range devices {
		below, ok := belowDev(d)
		if !ok || below == "ptmx" {
			continue // the host's is of no use here: terminals are the container's own
		}
		uid, gid := ownerOf(d)
		if uid, gid, err = owner(uid, gid); err != nil {
			return fmt.Errorf("device %s: %w", d.Path, err)
		}
		if err := makeDevice(dev, below, unix.RESOLVE_NO_SYMLINKS, d, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// makeOtherDevices makes those that are not in /dev. The way to them may lead
// over links of the image, inside of the root.
func (s *setup) makeOtherDevices() error {
	for _, d := range s.req.Spec.Linux.Devices {
		if _, ok := belowDev(d); ok {
			continue
		}
		uid, gid := ownerOf(d)
		if err := makeDevice(s.root, path.Clean("/"+d.Path), 0, d, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func belowDev(d specs.LinuxDevice) (string, bool) {
	return strings.CutPrefix(path.Clean("/"+d.Path), "/dev/")
}

func ownerOf(d specs.LinuxDevice) (uid, gid int) {
	if d.UID != nil {
		uid = int(*d.UID)
	}
	if d.GID != nil {
		gid = int(*d.GID)
	}
	return uid, gid
}

// makeDevice makes one at a place below root.
func makeDevice(root int, place string, resolve uint64, d specs.LinuxDevice, uid, gid int) error {
	parent, _, err := mnt.Target(root, path.Dir(place), true, resolve)
	if err != nil {
		return fmt.Errorf("device %s: %w", d.Path, err)
	}
	defer func() { _ = unix.Close(parent) }()
	mode, ok := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}[d.Type]
	if !ok {
		return fmt.Errorf("device %s: type %q is not known", d.Path, d.Type)
	}
	perm := uint32(0o666)
	if d.FileMode != nil {
		perm = uint32(d.FileMode.Perm())
	}
	return mknod(parent, path.Base(place), mode|perm, uint32(d.Major), uint32(d.Minor), uid, gid)
}

func mknod(dir int, name string, mode, major, minor uint32, uid, gid int) error {
	dev := unix.Mkdev(major, minor)
	err := unix.Mknodat(dir, name, mode, int(dev))
	if errors.Is(err, unix.EEXIST) { // named twice: fine if it is the same
		return settleDevice(dir, name, mode, dev, uid, gid)
	}
	if err != nil {
		return fmt.Errorf("make device %s: %w", name, err)
	}
	// The umask was cleared, but the file system may have defaults of its own.
	if uid|gid != 0 {
		if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("own device %s: %w", name, err)
		}
	}
	return nil
}

// settleDevice makes a device that is there what it should be.
func settleDevice(dir int, name string, mode uint32, dev uint64, uid, gid int) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make device %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("make device %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != mode&unix.S_IFMT || st.Rdev != dev && mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("make device %s: something else is there", name)
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("own device %s: %w", name, err)
		}
	}
	if st.Mode&0o7777 != mode&0o7777 {
		if err := chmodFD(fd, mode&0o7777); err != nil {
			return fmt.Errorf("mode of device %s: %w", name, err)
		}
	}
	return nil
}

// chmodFD changes the mode of what an O_PATH descriptor names.
func chmodFD(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		// Before kernel 6.6 only by the descriptor's name, of the host's /proc.
		return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
	}
	return err
}

// terminal opens a terminal of the container's own, sends its master end to the
// shim and makes the other end this process's streams and controlling terminal.
func (s *setup) terminal() error {
	if !s.req.TTY {
		return nil
	}
	master, err := s.openMaster()
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	var unlock int32
	if err := ioctlPtr(master, unix.TIOCSPTLCK, &unlock); err != nil {
		return fmt.Errorf("unlock terminal: %w", err)
	}
	// By the master, not by a path: nothing can be in its place.
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fmt.Errorf("open terminal: %w", errno)
	}
	slave := int(n)
	h, w := s.req.Console[0], s.req.Console[1]
	if box := s.req.Process.ConsoleSize; box != nil && h|w == 0 {
		h, w = box.Height, box.Width
	}
	if h|w != 0 {
		if err := unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(h), Col: uint16(w)}); err != nil {
			return fmt.Errorf("size terminal: %w", err)
		}
	}
	if s.ownDev {
		if err := s.console(slave); err != nil {
			return fmt.Errorf("mount /dev/console: %w", err)
		}
	}
	msg, err := encode(&answer{Console: true})
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(fdControl, msg, unix.UnixRights(master), nil, 0); err != nil {
		return fmt.Errorf("hand over terminal: %w", err)
	}
	_ = unix.Close(master)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(slave), unix.TIOCSCTTY, 0); errno != 0 {
		return fmt.Errorf("control terminal: %w", errno)
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return err
		}
	}
	return unix.Close(slave)
}

// openMaster opens a new terminal: of the devpts just mounted or, in a running
// container, of what is at /dev/ptmx if that is what it should be.
func (s *setup) openMaster() (int, error) {
	if s.devpts >= 0 {
		return unix.Openat(s.devpts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	how := unix.O_RDWR | unix.O_NOCTTY
	fd, err := mnt.OpenIn(s.root, "/dev/pts/ptmx", how, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		if fd, err = mnt.OpenIn(s.root, "/dev/ptmx", how, unix.RESOLVE_NO_SYMLINKS); err != nil {
			return -1, err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) {
		return -1, errors.New("/dev/ptmx is not the terminal multiplexer")
	}
	return fd, nil
}

func (s *setup) console(slave int) error {
	target, _, err := mnt.Target(s.root, "/dev/console", false, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	fd, err := mnt.Clone(slave, "", false)
	if err != nil {
		return err
	}
	return mnt.Attach(fd, target)
}
