//go:build linux

package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// Host is what [Start] and [Exec] need to know of the machine.
type Host struct {
	Cgroups *cgroup.System
	Exe     string // this program, sealed: "/proc/self/exe" in the shim

	null nullDevice
}

// Streams are the ends that the child gets; those not set are /dev/null.
type Streams [3]*os.File

// Options are what [Host.Start] needs beside the launch.
type Options struct {
	MountPoint string // where the root is attached before it becomes "/", in the child's mounts only
	// Gate, if set, is where the child waits once all is prepared: [Child.Go]
	// returns then, and the command is executed when anybody calls [Release].
	Gate *os.File
	// Bundle is the directory of the specification, told to hooks.
	Bundle string
	// Parked, if set, becomes the process; [Parkable] has allowed it. If Start
	// fails it is still the caller's to end.
	Parked *Parked
	ProcessOptions
}

// ProcessOptions are what any process may be given, also an exec.
type ProcessOptions struct {
	Files        []*os.File // the command's descriptors from 3 on
	NoNewKeyring bool       // it keeps the caller's session keyring
}

// Start clones the first process of a container. Its control group must exist.
func (h *Host) Start(l *runtime.Launch, prog *seccomp.Program, g *cgroup.Group, streams Streams, o Options) (_ *Child, err error) {
	if err := Check(l); err != nil {
		return nil, err
	}
	spec := l.Spec
	state := specs.State{Version: specs.Version, ID: l.ID, Status: specs.StateCreating, Bundle: o.Bundle, Annotations: spec.Annotations}
	req := &request{
		ID: l.ID, Spec: worldOf(spec), Process: commandOf(spec.Process, spec.Linux.Personality, spec.Linux.MemoryPolicy), Rootfs: l.Rootfs, User: l.User, Seccomp: prog,
		TTY: l.IO.TTY, Console: l.IO.Console, Init: l.Init, OwnIO: !l.IO.Passed,
		MountPoint: o.MountPoint, Cgroups: h.Cgroups.Mounts(), CgroupPath: g.Path(),
		Hooks: hookWorkOf(spec.Hooks, state), ByPage: l.Rootfs != nil && !mnt.OverlayTakesLayers(),
	}
	req.PIDsFile, req.PIDsMax = g.PIDsFile(cgroup.PIDs(spec.Linux.Resources))
	if o.Gate != nil { // a limit may come while it waits
		req.PIDsFile, _ = g.PIDsFile(&specs.LinuxPids{Limit: new(int64(-1))})
	}
	ns, err := openNamespaces(spec, l.NetNS)
	if err != nil {
		return nil, err
	}
	defer ns.close()
	req.Shared, req.UserNS = ns.shared, ns.user >= 0
	if req.Spec.Linux.Namespaces, req.NetNS, err = ownNamespaces(spec.Linux.Namespaces, ns, l.NetNS); err != nil {
		return nil, err
	}
	files := &inherited{first: fdMore}
	if o.Gate != nil {
		req.Gate = files.add(int(o.Gate.Fd()))
		defer goruntime.KeepAlive(o.Gate)
	}
	o.into(req, files)
	defer goruntime.KeepAlive(o.Files)
	if ns.mount >= 0 {
		req.MountNS = files.add(ns.mount)
	}
	if ns.group >= 0 {
		req.GroupNS = files.add(ns.group)
	}
	rdt := &rdtEntry{}
	if spec.Linux.IntelRdt != nil {
		if rdt, err = joinRDT(resctrl, l.ID, spec.Linux.IntelRdt); err != nil {
			return nil, err
		}
		defer func() {
			rdt.close()
			if err != nil {
				rdt.undo()
			}
		}()
		req.enter(rdt, files)
	}
	s := &spawning{host: h, req: req, group: g, ns: ns, files: files, streams: streams, offsets: spec.Linux.TimeOffsets}
	if ns.user >= 0 || slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return len(m.UIDMappings) > 0 }) {
		s.prepare = &preparation{launch: l, req: req, ns: ns, files: files}
	}
	var c *Child
	if o.Parked != nil {
		c, err = s.occupy(o.Parked)
	} else {
		c, err = s.spawn()
	}
	g.Born()
	if errors.Is(err, unix.ENOENT) && ns.user >= 0 && ns.joins(unix.CLONE_NEWCGROUP) {
		err = errs.Newf(errs.Unsupported, "control groups that are delegated with namespaces (nsdelegate) let nobody join a cgroup namespace and a user namespace: %w", err)
	}
	if err != nil {
		return nil, err
	}
	c.hooks, c.state, c.RDT = spec.Hooks, state, rdt.own
	c.state.Pid = c.PID
	if err := moveDevices(c.PID, spec.Linux.NetDevices); err != nil {
		c.discard()
		return nil, err
	}
	return c, nil
}

// Exec clones one more process into the container whose first process pid is;
// pidfd refers to it.
func (h *Host) Exec(e *runtime.Exec, prog *seccomp.Program, g *cgroup.Group, streams Streams, pid, pidfd int, o ProcessOptions) (*Child, error) {
	if err := CheckExec(e); err != nil {
		return nil, err
	}
	req := &request{
		ID: e.ContainerID, Exec: true, Process: commandOf(e.Process, e.Personality, e.MemoryPolicy), User: e.User, Seccomp: prog,
		TTY: e.IO.TTY, Console: e.IO.Console, OwnIO: !e.IO.Passed,
	}
	ns := &namespaces{user: -1, time: -1, mount: -1}
	defer ns.close()
	ns.join = []joined{{pidfd, unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}}
	if err := ns.openOthers(pid); err != nil {
		return nil, err
	}
	req.UserNS = ns.user >= 0
	// To join a mount namespace leads to the root of the namespace, which is not
	// the container's where the shim itself runs in a chroot.
	root, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	defer func() { _ = unix.Close(root) }()
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil { // the pid was still its
		return nil, fmt.Errorf("look for the container's process: %w", err)
	}
	s := &spawning{host: h, req: req, group: g, ns: ns, files: &inherited{fdJoin, []int{pidfd, root}}, streams: streams}
	o.into(req, s.files)
	defer goruntime.KeepAlive(o.Files)
	if e.IntelRdt != nil {
		rdt, err := enterRDT(resctrl, e.ContainerID, e.IntelRdt)
		if err != nil {
			return nil, err
		}
		defer rdt.close()
		req.enter(rdt, s.files)
	}
	if a := e.Process.ExecCPUAffinity; a != nil {
		s.processors, req.Process.CPUs = a.Initial, a.Final
	}
	c, err := s.spawn()
	if errors.Is(err, unix.EBUSY) && h.Cgroups.Unified() {
		// The container split its group up, and processes may be in leaves only:
		// join its first one.
		if leaf, lerr := g.Leaf(pid); lerr == nil {
			s.group = leaf
			c, err = s.spawn()
		}
	}
	if err != nil {
		return nil, err
	}
	c.state = specs.State{Version: specs.Version, ID: e.ContainerID, Status: specs.StateRunning, Pid: pid}
	return c, nil
}

// enter has the child enter itself in groups of resctrl.
func (r *request) enter(e *rdtEntry, files *inherited) {
	for _, f := range e.tasks {
		r.Tasks = append(r.Tasks, files.add(int(f.Fd())))
	}
}

// inherited are the descriptors that a child gets beside the fixed ones.
type inherited struct {
	first int
	fds   []int
}

func (i *inherited) add(fd int) int {
	i.fds = append(i.fds, fd)
	return i.first + len(i.fds) - 1
}

// A spawning is all that goes into one clone.
type spawning struct {
	host       *Host
	req        *request
	group      *cgroup.Group
	ns         *namespaces
	files      *inherited
	streams    Streams
	prepare    *preparation
	offsets    map[string]specs.LinuxTimeOffset
	processors string // where the child begins
	args       []string
}

// spawn clones the child from a thread of its own. That thread joins
// namespaces and control groups, which its child inherits; it can never run
// anything else afterwards and ends with its goroutine.
func (s *spawning) spawn() (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "launch")
	defer func() { _ = ours.Close(); _ = unix.Close(pair[1]) }()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	if s.args == nil {
		s.args = []string{InitName}
	}
	c := &Child{conn: conn.(*net.UnixConn), req: s.req, PidFD: -1}
	null, err := s.host.null.open()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	defer func() { _ = null.Close() }()
	attr := &syscall.ProcAttr{
		Dir: "/",
		// A child that lives for two milliseconds needs no garbage collector.
		Env: []string{"GOGC=off", "GOMAXPROCS=1", "GODEBUG=containermaxprocs=0"},
		Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: s.ns.flags, PidFD: &c.PidFD},
	}
	if s.req.Gate > 0 || s.req.Seccomp.Listens() { // two threads: neither may wait for the other
		attr.Env[1] = "GOMAXPROCS=2"
	}
	for _, f := range s.streams {
		if f == nil {
			f = null
		}
		attr.Files = append(attr.Files, f.Fd())
	}
	attr.Files = append(attr.Files, uintptr(pair[1]))
	if s.host.Cgroups.Unified() {
		dir, err := s.group.FD()
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		defer func() { _ = dir.Close() }()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	done := make(chan error)
	go func() { done <- recovered(func() error { return s.clone(c, attr) }) }()
	err = <-done
	goruntime.KeepAlive(s.streams)
	if err != nil {
		_ = c.conn.Close()
		return nil, err
	}
	if s.req.UserNS {
		var want *specs.Linux
		if s.prepare != nil {
			want = s.prepare.launch.Spec.Linux
		}
		err = settle(c.PID, s.req, attr.Files, want)
	}
	if err == nil {
		err = unix.SetNonblock(c.PidFD, true)
	}
	if err != nil {
		c.discard()
		return nil, fmt.Errorf("start: %w", err)
	}
	return c, nil
}

func (s *spawning) clone(c *Child, attr *syscall.ProcAttr) error {
	goruntime.LockOSThread() // and never unlock: the thread is thrown away
	if unix.Gettid() == os.Getpid() {
		// The main thread never goes: use another one.
		done := make(chan error)
		go func() { done <- recovered(func() error { return s.clone(c, attr) }) }()
		err := <-done
		goruntime.UnlockOSThread()
		return err
	}
	if s.processors != "" {
		if err := setAffinity(s.processors); err != nil {
			return err
		}
	}
	for _, j := range s.ns.join {
		if err := unix.Setns(j.fd, j.flags); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
	}
	if !s.host.Cgroups.Unified() {
		if err := s.group.JoinThread(); err != nil {
			return err
		}
	}
	if s.ns.newTime {
		if err := newTimeNS(s.offsets); err != nil {
			return err
		}
	}
	if s.prepare != nil {
		defer s.prepare.close()
		if err := s.prepare.run(); err != nil {
			return fmt.Errorf("start: %w", err)
		}
	}
	for _, fd := range s.files.fds {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	// Into a new time namespace, too: some kernels refuse it to a child that still
	// shares its parent's memory.
	if s.ns.user >= 0 || s.ns.time >= 0 || s.ns.newTime {
		return s.fork(c, attr)
	}
	pid, err := syscall.ForkExec(s.host.Exe, s.args, attr)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	c.PID = pid
	return nil
}

// fork is for namespaces that only a process of one thread can join.
func (s *spawning) fork(c *Child, attr *syscall.ProcAttr) (err error) {
	f := &forked{
		user: s.ns.user, time: s.ns.time, flags: s.ns.flags, cgroup: -1,
		files: attr.Files, exe: s.host.Exe, argv: s.args, env: attr.Env,
	}
	if attr.Sys.UseCgroupFD {
		f.cgroup = attr.Sys.CgroupFD
	}
	if c.PID, err = f.start(); err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	if c.PidFD, err = unix.PidfdOpen(c.PID, 0); err != nil { // not reaped yet: it is that one
		_ = unix.Kill(c.PID, unix.SIGKILL)
		reapChild(c.PID)
		return fmt.Errorf("pidfd: %w", err)
	}
	return nil
}

// discard ends and reaps a child that the caller never sees.
func (c *Child) discard() {
	c.Abort()
	_ = unix.PidfdSendSignal(c.PidFD, unix.SIGKILL, nil, 0)
	reapChild(c.PID)
	_ = unix.Close(c.PidFD)
}
