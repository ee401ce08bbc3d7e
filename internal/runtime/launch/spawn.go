//go:build linux

package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	goruntime "runtime"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// Host is what [Start] and [Exec] need to know of the machine.
type Host struct {
	Cgroups *cgroup.System
	Exe     string // this program, sealed: "/proc/self/exe" in the shim

	null nullDevice
}

// Child is a process that waits to be told what to become.
type Child struct {
	PID   int
	PidFD int // non-blocking; the caller's to close

	conn *net.UnixConn
	req  *request
}

// Streams are the ends that the child gets; those not set are /dev/null.
type Streams [3]*os.File

// Options are what [Host.Start] needs beside the launch.
type Options struct {
	MountPoint string // where the root is attached before it becomes "/", in the child's mounts only
	// Gate, if set, is where the child waits once all is prepared: [Child.Go]
	// returns then, and the command is executed when anybody calls [Release].
	Gate *os.File
	ProcessOptions
}

// ProcessOptions are what any process may be given, also an exec.
type ProcessOptions struct {
	Files        []*os.File // the command's descriptors from 3 on
	NoNewKeyring bool       // it keeps the caller's session keyring
}

// Start clones the first process of a container. Its control group must exist.
func (h *Host) Start(l *runtime.Launch, prog *seccomp.Program, g *cgroup.Group, streams Streams, o Options) (*Child, error) {
	if err := check(l.Spec); err != nil {
		return nil, err
	}
	linux := l.Spec.Linux
	req := &request{
		ID: l.ID, Spec: worldOf(l.Spec), Process: commandOf(l.Spec.Process), Rootfs: l.Rootfs, User: l.User, Seccomp: prog,
		TTY: l.IO.TTY, Console: l.IO.Console, Init: l.Init, OwnIO: !l.IO.Passed, NetNS: l.NetNS != nil,
		MountPoint: o.MountPoint, Cgroups: h.Cgroups.Mounts(), CgroupPath: linux.CgroupsPath,
	}
	if linux.Resources != nil {
		req.PIDsFile, req.PIDsMax = g.PIDsFile(linux.Resources.Pids)
	}
	join, flags, err := namespaces(linux.Namespaces, l.NetNS)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, j := range join {
			_ = unix.Close(j.fd)
		}
	}()
	var more []int
	if o.Gate != nil {
		req.Gate, more = fdMore+len(more), append(more, int(o.Gate.Fd()))
		defer goruntime.KeepAlive(o.Gate)
	}
	more = o.into(req, fdMore, more)
	defer goruntime.KeepAlive(o.Files)
	return h.spawn(req, g, join, flags, streams, more)
}

// Exec clones one more process into the container whose first process pid is;
// pidfd refers to it.
func (h *Host) Exec(e *runtime.Exec, prog *seccomp.Program, g *cgroup.Group, streams Streams, pid, pidfd int, o ProcessOptions) (*Child, error) {
	if err := checkProcess(e.Process); err != nil {
		return nil, err
	}
	req := &request{
		ID: e.ContainerID, Exec: true, Process: commandOf(e.Process), User: e.User, Seccomp: prog,
		TTY: e.IO.TTY, Console: e.IO.Console, OwnIO: !e.IO.Passed,
	}
	join := []joined{{pidfd, unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}}
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
	more := o.into(req, fdJoin, []int{pidfd, root})
	defer goruntime.KeepAlive(o.Files)
	c, err := h.spawn(req, g, join, 0, streams, more)
	if errors.Is(err, unix.EBUSY) && h.Cgroups.Unified() {
		// The container split its group up, and processes may be in leaves only:
		// join its first one.
		if leaf, lerr := g.Leaf(pid); lerr == nil {
			return h.spawn(req, leaf, join, 0, streams, more)
		}
	}
	return c, err
}

// check refuses what this launcher does not do, rather than leave it out.
func check(s *specs.Spec) error {
	switch {
	case s == nil || s.Process == nil || s.Linux == nil:
		return errs.New(errs.Invalid, "start: the specification has no process or no linux section")
	case s.Hooks != nil:
		return errs.New(errs.Unsupported, "start: hooks are not supported")
	case len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0:
		return errs.New(errs.Unsupported, "start: user namespaces are not supported")
	case s.Linux.IntelRdt != nil:
		return errs.New(errs.Unsupported, "start: Intel RDT is not supported")
	case s.Linux.MemoryPolicy != nil:
		return errs.New(errs.Unsupported, "start: memory policies are not supported")
	case len(s.Linux.NetDevices) > 0:
		return errs.New(errs.Unsupported, "start: moving network devices is not supported")
	case s.Linux.MountLabel != "":
		return errs.New(errs.Unsupported, "start: SELinux labels are not supported")
	case len(s.Linux.TimeOffsets) > 0:
		return errs.New(errs.Unsupported, "start: time namespaces are not supported")
	case s.Linux.Personality != nil && s.Linux.Personality.Domain != specs.PerLinux:
		return errs.Newf(errs.Unsupported, "start: personality %q is not supported", s.Linux.Personality.Domain)
	}
	for _, m := range s.Mounts {
		if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
			return errs.Newf(errs.Unsupported, "start: mount %s: mapped owners are not supported", m.Destination)
		}
	}
	return checkProcess(s.Process)
}

func checkProcess(p *specs.Process) error {
	switch {
	case p == nil || len(p.Args) == 0:
		return errs.New(errs.Invalid, "no command")
	case p.SelinuxLabel != "":
		return errs.New(errs.Unsupported, "SELinux labels are not supported")
	case p.Scheduler != nil && p.Scheduler.Policy != "":
		return errs.New(errs.Unsupported, "scheduler attributes are not supported")
	case p.ExecCPUAffinity != nil:
		return errs.New(errs.Unsupported, "processor affinities of single processes are not supported")
	}
	return nil
}

type joined struct {
	fd    int
	flags int
}

// namespaces splits the list in those to join, which the cloning thread does,
// and the flags of those to make. The control group namespace is made by the
// child, once it is in its group.
func namespaces(list []specs.LinuxNamespace, net *os.File) (join []joined, flags uintptr, err error) {
	kinds := map[specs.LinuxNamespaceType]uintptr{
		specs.PIDNamespace: unix.CLONE_NEWPID, specs.NetworkNamespace: unix.CLONE_NEWNET, specs.MountNamespace: unix.CLONE_NEWNS,
		specs.IPCNamespace: unix.CLONE_NEWIPC, specs.UTSNamespace: unix.CLONE_NEWUTS, specs.CgroupNamespace: unix.CLONE_NEWCGROUP,
	}
	defer func() {
		if err != nil {
			for _, j := range join {
				_ = unix.Close(j.fd)
			}
		}
	}()
	for _, n := range list {
		kind, ok := kinds[n.Type]
		switch {
		case !ok:
			return join, 0, errs.Newf(errs.Unsupported, "start: %s namespaces are not supported", n.Type)
		case n.Type == specs.NetworkNamespace && net != nil:
		case n.Path == "" && n.Type == specs.CgroupNamespace:
		case n.Path == "":
			flags |= kind
		case n.Type == specs.MountNamespace:
			return join, 0, errs.New(errs.Unsupported, "start: joining a mount namespace is not supported")
		default:
			fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return join, 0, fmt.Errorf("join %s namespace %s: %w", n.Type, n.Path, err)
			}
			join = append(join, joined{fd, int(kind)})
		}
	}
	if net != nil {
		fd, err := unix.FcntlInt(net.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return join, 0, fmt.Errorf("network namespace: %w", err)
		}
		join = append(join, joined{fd, unix.CLONE_NEWNET})
	}
	if flags&unix.CLONE_NEWNS == 0 {
		return join, 0, errs.New(errs.Unsupported, "start: a container needs a mount namespace of its own")
	}
	return join, flags, nil
}

// spawn clones the child from a thread of its own. That thread joins
// namespaces and control groups, which its child inherits; it can never run
// anything else afterwards and ends with its goroutine.
func (h *Host) spawn(req *request, g *cgroup.Group, join []joined, flags uintptr, streams Streams, more []int) (*Child, error) {
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
	c := &Child{conn: conn.(*net.UnixConn), req: req, PidFD: -1}
	null, err := h.null.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	attr := &syscall.ProcAttr{
		Dir: "/",
		// A child that lives for two milliseconds needs no garbage collector.
		Env: []string{"GOGC=off", "GOMAXPROCS=1"},
		Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: flags, PidFD: &c.PidFD},
	}
	for _, f := range streams {
		if f == nil {
			f = null
		}
		attr.Files = append(attr.Files, f.Fd())
	}
	attr.Files = append(attr.Files, uintptr(pair[1]))
	for _, fd := range more {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	if req.Gate > 0 { // two threads: neither may wait for the other
		attr.Env = []string{"GOGC=off", "GOMAXPROCS=2"}
	}
	if h.Cgroups.Unified() {
		dir, err := g.FD()
		if err != nil {
			return nil, err
		}
		defer func() { _ = dir.Close() }()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	done := make(chan error)
	go func() { done <- h.clone(c, g, join, attr) }()
	err = <-done
	goruntime.KeepAlive(streams)
	if err != nil {
		_ = c.conn.Close()
		return nil, err
	}
	if err := unix.SetNonblock(c.PidFD, true); err != nil {
		c.Abort()
		_ = unix.Close(c.PidFD)
		return nil, fmt.Errorf("pidfd: %w", err)
	}
	return c, nil
}

func (h *Host) clone(c *Child, g *cgroup.Group, join []joined, attr *syscall.ProcAttr) error {
	goruntime.LockOSThread() // and never unlock: the thread is thrown away
	if unix.Gettid() == os.Getpid() {
		// The main thread never goes: use another one.
		done := make(chan error)
		go func() { done <- h.clone(c, g, join, attr) }()
		err := <-done
		goruntime.UnlockOSThread()
		return err
	}
	for _, j := range join {
		if err := unix.Setns(j.fd, j.flags); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
	}
	if !h.Cgroups.Unified() {
		if err := g.JoinThread(); err != nil {
			return err
		}
	}
	pid, err := syscall.ForkExec(h.Exe, []string{InitName}, attr)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	c.PID = pid
	return nil
}

// Go tells the child what to become and waits until it is, or until it waits at
// its gate. With a terminal, its master end is returned. A failure of the command itself is a
// *runtime.StartError. The child of a failed Go ends by itself.
func (c *Child) Go(ctx context.Context) (console *os.File, err error) {
	defer func() { _ = c.conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	defer func() {
		if err != nil && console != nil {
			_ = console.Close()
			console = nil
		}
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	msg, err := encode(c.req)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(msg); err != nil && !errors.Is(err, unix.EPIPE) {
		return nil, fmt.Errorf("instruct child: %w", err)
	}
	r := &fdReader{conn: c.conn}
	defer r.close()
	ready := false
	for {
		var a answer
		err := decode(r, &a)
		ready = ready || a.Ready
		switch {
		case errors.Is(err, io.EOF) && !ready:
			return console, fmt.Errorf("the launcher of %s was killed", c.req.ID)
		case errors.Is(err, io.EOF):
			if !stop() {
				return console, context.Canceled
			}
			return console, nil
		case err != nil:
			return console, fmt.Errorf("hear from child: %w", err)
		case a.Created:
			if !stop() {
				return console, context.Canceled
			}
			return console, nil
		case a.Console && r.fd >= 0 && console == nil:
			if err := unix.SetNonblock(r.fd, true); err != nil {
				return nil, err
			}
			console, r.fd = os.NewFile(uintptr(r.fd), "terminal"), -1
		case a.Text != "":
			return console, &runtime.StartError{Code: a.Code, Text: a.Text, Invalid: a.Invalid}
		}
	}
}

// Abort lets the child end without having become anything.
func (c *Child) Abort() { _ = c.conn.Close() }

// fdReader reads a socket and keeps the last descriptor that came along.
type fdReader struct {
	conn *net.UnixConn
	fd   int
	init bool
}

func (r *fdReader) Read(p []byte) (int, error) {
	if !r.init {
		r.fd, r.init = -1, true
	}
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		msgs, perr := unix.ParseSocketControlMessage(oob[:oobn])
		if perr != nil {
			return n, perr
		}
		for _, m := range msgs {
			fds, perr := unix.ParseUnixRights(&m)
			if perr != nil {
				return n, perr
			}
			for _, fd := range fds {
				r.close()
				r.fd = fd
			}
		}
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		return n, errors.New("too many descriptors")
	}
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return n, err
}

func (r *fdReader) close() {
	if r.init && r.fd >= 0 {
		_ = unix.Close(r.fd)
		r.fd = -1
	}
}
