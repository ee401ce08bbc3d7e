//go:build linux

package shim

import (
	"context"
	"errors"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
)

func (s *server) exec(ctx context.Context, e *runtime.Exec) (runtime.Started, error) {
	var none runtime.Started
	if err := checkExec(e); err != nil {
		return none, err
	}
	c, err := s.container(e.ContainerID)
	if err != nil {
		return none, err
	}
	var prog *seccomp.Program
	if c.ext == nil {
		if prog, err = s.profile(e.Seccomp); err != nil {
			return none, err
		}
	}
	c.main.rec.ForAll.add(e)
	if c.ext == nil {
		s.tellCaps(c.id, e.Process, nil)
	}
	p, err := s.reserveExec(c, e)
	if err != nil {
		return none, err
	}
	main, err := c.main.pidfdCopy()
	if err != nil {
		s.forgetExec(c, p)
		return none, err
	}
	defer func() { _ = unix.Close(main) }()
	err = s.run(ctx, c, p, e.Stdio, func(streams launch.Streams) (*newborn, error) {
		c.verbs.Lock()
		defer c.verbs.Unlock()
		if frozen, err := c.group.Frozen(); err != nil {
			return nil, err
		} else if frozen {
			return nil, errs.Newf(errs.Conflict, "Container %s is paused, unpause the container before exec", c.id)
		}
		if c.ext != nil {
			return s.execExternal(ctx, c, e, streams)
		}
		child, err := s.host.Exec(e, prog, c.group, streams, c.main.rec.PID, main, launch.ProcessOptions{})
		if err != nil {
			return nil, err
		}
		return cloned(child, nil), nil
	})
	if err != nil {
		s.forgetExec(c, p)
		if !s.alive(c.main) { // and took the newcomer with it
			return none, errs.Newf(errs.Conflict, "container %s is not running", c.id)
		}
		return none, err
	}
	go s.watch(c, p)
	return runtime.Started{PID: p.rec.PID, StartTicks: p.rec.Ticks, At: p.rec.StartedAt}, nil
}

// reserveExec takes the process's id; clients may have attached to it.
func (s *server) reserveExec(c *container, e *runtime.Exec) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.main.rec.Exit != nil {
		return nil, errs.Newf(errs.Conflict, "container %s is not running", c.id)
	}
	if c.execs[e.ExecID] != nil {
		return nil, errs.Newf(errs.Conflict, "container %s has a process %s already", c.id, e.ExecID)
	}
	key := c.id + "/" + e.ExecID
	h := s.waiting[key]
	delete(s.waiting, key)
	if h == nil {
		h = newHub(s.log, e.IO)
	}
	h.mu.Lock()
	h.used, h.io = true, e.IO
	h.mu.Unlock()
	p := &process{hub: h, child: true, done: make(chan struct{}), rec: record{ID: c.id, ExecID: e.ExecID, IO: e.IO}}
	c.execs[e.ExecID] = p
	return p, nil
}

func (s *server) forgetExec(c *container, p *process) {
	s.mu.Lock()
	delete(c.execs, p.rec.ExecID)
	s.mu.Unlock()
	p.hub.close()
}

// control calls f with the process's pidfd, which stays open meanwhile.
func (p *process) control(f func(fd int) error) error {
	rc, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return unix.ESRCH // closed: it has ended
	}
	return ferr
}

func (p *process) pidfdCopy() (fd int, err error) {
	err = p.control(func(from int) error {
		var derr error
		fd, derr = unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 0)
		return derr
	})
	if err != nil {
		return -1, errs.Newf(errs.Conflict, "container %s is not running", p.rec.ID)
	}
	return fd, nil
}

// alive asks the kernel, which knows before it is recorded.
func (s *server) alive(p *process) bool {
	err := p.control(func(fd int) error {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 0); err == nil && n > 0 {
			return unix.ESRCH
		}
		return nil
	})
	return err == nil
}

func (s *server) running(p *process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.rec.Exit == nil && p.pidfd != nil
}

func (s *server) kill(c *container, execID string, sig unix.Signal, all bool) error {
	if sig < 0 || sig > 64 {
		return errs.Newf(errs.Invalid, "no signal %d", sig)
	}
	p, err := s.process(c, execID)
	if err != nil {
		return err
	}
	if all && execID == "" {
		err = s.signalAll(c, sig)
	} else {
		if !s.running(p) {
			return errs.Newf(errs.Conflict, "process %s of container %s has ended", execID, c.id)
		}
		if c.ext != nil && execID == "" {
			err = s.killExternal(c, p, sig)
		} else {
			err = p.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
		}
		if errors.Is(err, unix.ESRCH) {
			return errs.Newf(errs.Conflict, "process %s of container %s has ended", execID, c.id)
		}
	}
	if err == nil && sig == unix.SIGKILL {
		// The frozen die only once thawed; with version 2 of control groups before.
		if frozen, ferr := c.group.Frozen(); ferr == nil && frozen {
			if err = s.freeze(c, false); !s.running(c.main) {
				err = nil
			}
		}
	}
	return err
}

// signalAll signals every process of the container's group. A pid is used by
// descriptor and only if it is of the group before and after it was opened.
func (s *server) signalAll(c *container, sig unix.Signal) error {
	for round := 0; ; round++ {
		pids, err := s.pids(c)
		if err != nil || len(pids) == 0 {
			return err
		}
		fds := make(map[int]int, len(pids))
		for _, pid := range pids {
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				fds[pid] = fd
			}
		}
		still, err := s.pids(c)
		for pid, fd := range fds {
			if err == nil && slices.Contains(still, pid) {
				if kerr := unix.PidfdSendSignal(fd, sig, nil, 0); kerr != nil && !errors.Is(kerr, unix.ESRCH) {
					err = kerr
				}
			}
			_ = unix.Close(fd)
		}
		// To kill is to kill those too that were born meanwhile.
		if err != nil || sig != unix.SIGKILL || round == 3 || len(fds) == 0 {
			return err
		}
	}
}

// pids lists the container's processes: not the shim, whose threads visit the
// group when they clone.
func (s *server) pids(c *container) ([]int, error) {
	pids, err := c.group.Procs()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	self := os.Getpid()
	return slices.DeleteFunc(pids, func(p int) bool { return p == self }), err
}

func (s *server) resize(c *container, execID string, height, width uint) error {
	p, err := s.process(c, execID)
	if err != nil {
		return err
	}
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if !p.hub.io.TTY || p.hub.stdin == nil {
		if p.hub.ended {
			return errs.Newf(errs.Conflict, "process %s of container %s is not running", execID, c.id)
		}
		return errs.Newf(errs.Invalid, "process %s of container %s has no terminal", execID, c.id)
	}
	rc, err := p.hub.stdin.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	if err := rc.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
	}); err != nil {
		return err
	}
	return ierr
}

func (s *server) freeze(c *container, frozen bool) error {
	c.verbs.Lock()
	defer c.verbs.Unlock()
	if !s.running(c.main) {
		return errs.Newf(errs.Conflict, "container %s is not running", c.id)
	}
	if c.ext != nil {
		return s.freezeExternal(c, frozen)
	}
	return c.group.Freeze(frozen)
}

func (s *server) update(c *container, r *specs.LinuxResources) error {
	if c.ext != nil {
		return s.updateExternal(c, r)
	}
	return s.limit(c, r, false)
}

func (s *server) list() []runtime.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]runtime.State, 0, len(s.containers))
	for _, c := range s.containers {
		if c.main != nil {
			out = append(out, c.state())
		}
	}
	return out
}

func (s *server) delete(c *container) error {
	s.mu.Lock()
	if c.main.rec.Exit == nil {
		s.mu.Unlock()
		return errs.Newf(errs.Conflict, "container %s is running", c.id)
	}
	s.mu.Unlock()
	c.verbs.Lock()
	defer c.verbs.Unlock()
	<-c.cleared
	if err := s.signalAll(c, unix.SIGKILL); err != nil {
		return err
	}
	if err := c.group.Delete(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	s.mu.Lock()
	if s.containers[c.id] == c {
		delete(s.containers, c.id)
	}
	s.mu.Unlock()
	s.dropWaiting(c.id) // those attached to execs that will not come
	s.afterEnd(c.id, c.main.rec.After)
	return nil
}
