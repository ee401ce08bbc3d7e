//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

type joined struct {
	fd    int
	flags int
}

// namespaces are those of one child.
type namespaces struct {
	join    []joined // by the thread that clones
	flags   uintptr  // to be made by the clone
	newTime bool     // and by that thread, which is not in it itself
	// Descriptors, -1 without. A user and a time namespace are joined by a child
	// of one thread, a mount namespace by the launcher. So is one of control groups:
	// who is in it may not clone into a group outside (nsdelegate).
	user, time, mount, group int
	shared                   bool // the mounts are not the container's own

	own   []int // to be closed
	named map[specs.LinuxNamespaceType]int
}

func (n *namespaces) close() {
	for _, fd := range n.own {
		_ = unix.Close(fd)
	}
}

func (n *namespaces) open(kind specs.LinuxNamespaceType, path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("join %s namespace %s: %w", kind, path, err)
	}
	n.own = append(n.own, fd)
	if n.named == nil {
		n.named = make(map[specs.LinuxNamespaceType]int)
	}
	n.named[kind] = fd
	return fd, nil
}

// joins tells whether the thread that clones joins one.
func (n *namespaces) joins(flag int) bool {
	return slices.ContainsFunc(n.join, func(j joined) bool { return j.flags&flag != 0 })
}

func cloneFlag(kind specs.LinuxNamespaceType) uintptr {
	switch kind {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	}
	return 0
}

// openNamespaces splits a container's namespaces in those to join and those to
// make. A control group namespace is made by the child, once it is in its group.
func openNamespaces(s *specs.Spec, net *os.File) (_ *namespaces, err error) {
	n := &namespaces{user: -1, time: -1, mount: -1, group: -1, shared: true}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for _, want := range s.Linux.Namespaces {
		if err := n.add(s, want, net); err != nil {
			return nil, err
		}
	}
	if n.group >= 0 && n.user >= 0 {
		// The launcher has no power over it in a user namespace.
		n.join, n.group = append(n.join, joined{n.group, unix.CLONE_NEWCGROUP}), -1
	}
	if net != nil {
		fd, err := unix.FcntlInt(net.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("network namespace: %w", err)
		}
		n.own = append(n.own, fd)
		n.join = append(n.join, joined{fd, unix.CLONE_NEWNET})
	}
	return n, nil
}

func (n *namespaces) add(s *specs.Spec, want specs.LinuxNamespace, net *os.File) (err error) {
	switch want.Type {
	case specs.UserNamespace:
		if want.Path != "" {
			n.user, err = n.open(want.Type, want.Path)
			return err
		}
		return n.newUser(s, net)
	case specs.TimeNamespace:
		if want.Path != "" {
			n.time, err = n.open(want.Type, want.Path)
		}
		n.newTime = want.Path == ""
		return err
	case specs.MountNamespace:
		if want.Path != "" {
			n.mount, err = n.open(want.Type, want.Path)
			return err
		}
		n.shared = false
	}
	flag := cloneFlag(want.Type)
	switch {
	case flag == 0:
		return errs.Newf(errs.Unsupported, "start: %s namespaces are not supported", want.Type)
	case want.Type == specs.NetworkNamespace && net != nil:
	case want.Type == specs.CgroupNamespace:
		if want.Path != "" {
			n.group, err = n.open(want.Type, want.Path)
			return err
		}
	case want.Path == "":
		n.flags |= flag
	default:
		fd, err := n.open(want.Type, want.Path)
		if err != nil {
			return err
		}
		n.join = append(n.join, joined{fd, int(flag)})
	}
	return nil
}

// newUser makes the user namespace, unless the network namespace to join belongs
// to one already: only there is root its master.
func (n *namespaces) newUser(s *specs.Spec, net *os.File) (err error) {
	if net != nil {
		if n.user, err = userns.Owner(int(net.Fd())); err != nil {
			return err
		}
	}
	if n.user < 0 {
		if n.user, err = userns.New(mapOf(s.Linux)); err != nil {
			return err
		}
	}
	n.own = append(n.own, n.user)
	return nil
}

// openOthers opens the user and time namespaces of a process that are not ours.
func (n *namespaces) openOthers(pid int) error {
	for _, k := range []struct {
		file string
		to   *int
	}{{"user", &n.user}, {"time", &n.time}} {
		var ours, theirs unix.Stat_t
		path := "/proc/" + strconv.Itoa(pid) + "/ns/" + k.file
		err := unix.Stat(path, &theirs)
		if errors.Is(err, unix.ENOENT) && k.file == "time" {
			continue // a kernel without
		}
		if err == nil {
			err = unix.Stat("/proc/self/ns/"+k.file, &ours)
		}
		if err != nil {
			return fmt.Errorf("look at the container's %s namespace: %w", k.file, err)
		}
		if ours.Ino == theirs.Ino {
			continue
		}
		if *k.to, err = n.open(specs.LinuxNamespaceType(k.file), path); err != nil {
			return err
		}
	}
	return nil
}

// newTimeNS makes a time namespace for the children of this thread.
func newTimeNS(offsets map[string]specs.LinuxTimeOffset) error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("time namespace: %w", err)
	}
	if len(offsets) == 0 {
		return nil
	}
	var text strings.Builder
	for clock, o := range offsets {
		if clock != "monotonic" && clock != "boottime" {
			return errs.Newf(errs.Invalid, "time namespace: clock %q has no offset", clock)
		}
		_, _ = fmt.Fprintf(&text, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	// By the thread's number: only in this way are a thread's own meant.
	if err := writeOnce("/proc/"+strconv.Itoa(unix.Gettid())+"/timens_offsets", text.String()); err != nil {
		return fmt.Errorf("time namespace: %w", err)
	}
	return nil
}
