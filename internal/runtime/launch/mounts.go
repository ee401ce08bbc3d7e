//go:build linux

package launch

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// openSources clones what bind mounts will show, while this process still sees
// the host's mounts as peers, so that shared and slave mounts can stay so.
func (s *setup) openSources() error {
	mounts := s.req.Spec.Mounts
	s.sources = make([]int, len(mounts))
	for i, m := range mounts {
		s.sources[i] = -1
		if made := s.req.Made.Sources; made != nil && made[i] > 0 {
			s.sources[i] = made[i]
			continue
		}
		o := mnt.ParseOptions(m.Options)
		if !o.Bind && m.Type != "bind" || o.Remount {
			continue
		}
		fd, err := mnt.CloneBelow(m.Source, o.Subpath, o.Recursive)
		if err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
		s.sources[i] = fd
	}
	return nil
}

func (s *setup) mountAll() error {
	// Without a mount there, the devices go to the root's own directory.
	s.ownDev = !s.req.UserNS && !slices.ContainsFunc(s.req.Spec.Mounts, func(m mount) bool { return path.Clean("/"+m.Destination) == "/dev" })
	for i := range s.req.Spec.Mounts {
		m := &s.req.Spec.Mounts[i]
		if err := s.mount(i, m); err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
	}
	return nil
}

func (s *setup) mount(i int, m *mount) error {
	dest := path.Clean("/" + m.Destination)
	o := mnt.ParseOptions(m.Options)
	if o.Remount {
		return s.remount(dest, o)
	}
	// What covers ours is not ours: nothing may be made in a /dev of the host's.
	switch dest {
	case "/dev":
		s.ownDev, s.devpts = m.Type == "tmpfs" && (s.sources[i] < 0 || s.req.Made.Dev), -1
	case "/dev/pts":
		s.devpts = -1
	}
	if s.sources[i] >= 0 {
		return s.bind(s.sources[i], dest, o)
	}
	if m.Type == "cgroup" {
		return s.mountCgroups(dest, o)
	}
	source := m.Source
	if source == "" {
		source = m.Type
	}
	label := s.req.Spec.Linux.MountLabel
	var fd int
	var err error
	switch m.Type {
	case "mqueue":
		fd, err = newMessageQueues(o, source, label)
	case "proc", "sysfs": // the policy's, as of all that is the kernel's own
		fd, err = mnt.New(m.Type, source, o.Data, int(o.Set))
	default:
		fd, err = mnt.New(m.Type, source, labelled(o.Data, label), int(o.Set))
	}
	if err != nil {
		return err
	}
	if o.Subpath != "" {
		clone, err := mnt.CloneInside(fd, s.root, o.Subpath)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
		return s.bind(clone, dest, o)
	}
	target, err := s.target(dest, true)
	if err != nil {
		return err
	}
	if m.Type != "proc" {
		if err := s.outsideProc(target, dest); err != nil {
			return err
		}
	}
	if m.Type == "tmpfs" {
		if err := inheritMode(fd, target, o.Data); err != nil {
			return err
		}
	}
	if o.CopyUp {
		if err := copyUp(target, fd); err != nil {
			return fmt.Errorf("tmpcopyup: %w", err)
		}
	}
	if err := s.attach(fd, target, dest, o); err != nil {
		return err
	}
	if m.Type == "devpts" && dest == "/dev/pts" {
		s.devpts = fd
	}
	return nil
}

// remount changes the flags of what the container has mounted at a place.
func (s *setup) remount(dest string, o mnt.Options) error {
	fd, err := mnt.OpenIn(s.root, dest, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := mnt.SetAttr(fd, o.Set, clears(o), 0, false); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	if err := mnt.SetAttr(fd, o.RecSet, o.RecClear, 0, true); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	return mnt.SetAttr(fd, 0, 0, o.Propagation, o.RecPropagation)
}

// inheritMode gives a tmpfs the permissions of the directory it covers, unless
// its options say others: /tmp stays sticky.
func inheritMode(fd, target int, data []mnt.Opt) error {
	if slices.ContainsFunc(data, func(o mnt.Opt) bool { return o.Key == "mode" }) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	return chmodFD(fd, st.Mode&0o7777)
}

// attach puts fd over target and settles propagation and recursive flags.
func (s *setup) attach(fd, target int, dest string, o mnt.Options) error {
	if err := mnt.SetAttr(fd, o.RecSet, o.RecClear, 0, true); err != nil {
		return err
	}
	if o.Propagation != 0 {
		if err := mnt.SetAttr(fd, 0, 0, o.Propagation, o.RecPropagation); err != nil {
			return err
		}
	}
	if err := mnt.Attach(fd, target); err != nil {
		return err
	}
	return unix.Close(target)
}

// clears are the flags to clear of a mount that has some. Those of access times
// cannot be changed half way: naming one clears the others.
func clears(o mnt.Options) uint64 {
	if o.Set&unix.MOUNT_ATTR__ATIME != 0 {
		return o.Clear | unix.MOUNT_ATTR__ATIME
	}
	return o.Clear
}

func (s *setup) bind(fd int, dest string, o mnt.Options) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	target, err := s.target(dest, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	if err := s.outsideProc(target, dest); err != nil {
		return err
	}
	if err := mnt.SetAttr(fd, o.Set, clears(o), 0, false); err != nil {
		return err
	}
	if o.Propagation == 0 {
		o.Propagation, o.RecPropagation = unix.MS_PRIVATE, true
	}
	return s.attach(fd, target, dest, o)
}

// outsideProc refuses mounts over the container's procfs, where the launcher
// and the kernel's own view would be fooled, but for the files that report
// resources.
func (s *setup) outsideProc(target int, dest string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(target, &fs); err != nil {
		return err
	}
	if dest == "/proc" || fs.Type == unix.PROC_SUPER_MAGIC && !slices.Contains([]string{
		"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
		"/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/net/dev",
	}, dest) {
		return fmt.Errorf("%q cannot be mounted because it is inside /proc", dest)
	}
	return nil
}

// target opens what a mount covers. The places that the kernel's own file
// systems go to must be plain directories: an image that makes them links wants
// something.
func (s *setup) target(dest string, dir bool) (int, error) {
	var resolve uint64
	for _, p := range []string{"/proc", "/sys", "/dev"} {
		if dest == p || strings.HasPrefix(dest, p+"/") {
			resolve = unix.RESOLVE_NO_SYMLINKS
		}
	}
	fd, _, err := mnt.Target(s.root, dest, dir, resolve)
	return fd, err
}

// mountCgroups shows the container its control groups. With version 1 they are
// a directory of mounts, one a hierarchy.
func (s *setup) mountCgroups(dest string, o mnt.Options) error {
	list := s.req.Cgroups
	if len(list) == 1 && list[0].Name == "" {
		return s.mountCgroup2(dest, o)
	}
	dir, err := mnt.New("tmpfs", "tmpfs", labelled([]mnt.Opt{{Key: "mode", Value: "755"}}, s.req.Spec.Linux.MountLabel), unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	target, err := s.target(dest, true)
	if err != nil {
		return err
	}
	if err := s.attach(dir, target, dest, mnt.Options{}); err != nil {
		return err
	}
	for _, h := range list {
		if err := unix.Mkdirat(dir, h.Name, 0o755); err != nil {
			return err
		}
		if err := s.mountCgroup1(dir, h.Name, h.Options, h.Host, o); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		for _, c := range h.Options { // "cpu,cpuacct" is also found as "cpu"
			if c != h.Name && !strings.HasPrefix(c, "name=") {
				if err := unix.Symlinkat(h.Name, dir, c); err != nil {
					return err
				}
			}
		}
	}
	return mnt.SetAttr(dir, o.Set&unix.MOUNT_ATTR_RDONLY, 0, 0, false)
}

func (s *setup) mountCgroup1(dir int, name string, controllers []string, host string, o mnt.Options) error {
	at, err := mnt.OpenIn(dir, name, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(at) }()
	attrs := o.Set | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	var fd int
	if s.joins("cgroup") {
		var opts []mnt.Opt
		for _, c := range controllers {
			if n, ok := strings.CutPrefix(c, "name="); ok {
				opts = append(opts, mnt.Opt{Key: "none"}, mnt.Opt{Key: "name", Value: n})
			} else {
				opts = append(opts, mnt.Opt{Key: c})
			}
		}
		fd, err = mnt.New("cgroup", "cgroup", opts, int(attrs))
	} else { // the host's namespace: show the container's own group and no other
		if fd, err = mnt.Clone(unix.AT_FDCWD, host+s.req.CgroupPath, false); err == nil {
			err = mnt.SetAttr(fd, attrs, 0, unix.MS_PRIVATE, false)
		}
	}
	if err != nil {
		return err
	}
	return mnt.Attach(fd, at)
}

func (s *setup) mountCgroup2(dest string, o mnt.Options) error {
	fd, err := mnt.New("cgroup2", "cgroup", o.Data, int(o.Set))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		// In a user namespace, of the host's control groups: it is shown its own.
		fd, err = mnt.Clone(unix.AT_FDCWD, s.req.Cgroups[0].Host+s.req.CgroupPath, false)
		if err == nil {
			err = mnt.SetAttr(fd, o.Set, 0, unix.MS_PRIVATE, false)
		}
	}
	if err != nil {
		return err
	}
	target, err := s.target(dest, true)
	if err != nil {
		return err
	}
	return s.attach(fd, target, dest, o)
}
