//go:build linux

package shim

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

func (s *server) start(ctx context.Context, l *runtime.Launch) (runtime.Started, error) {
	var none runtime.Started
	if err := checkLaunch(l); err != nil {
		return none, err
	}
	tellExternal(l)
	if !s.vault.reach() {
		go s.vault.warm()
	}
	group, err := s.group(l.Spec)
	if err != nil {
		return none, err
	}
	var prog *seccomp.Program
	if l.External == nil && l.Restore == nil {
		if prog, err = s.profile(l.Spec.Linux.Seccomp); err != nil {
			return none, err
		}
	}
	if l.External == nil {
		s.tellCaps(l.ID, l.Spec.Process, l.Spec)
		for _, text := range launch.Unheeded(l.Spec) {
			s.log.Warn(text, "container", l.ID)
		}
	}
	parked, over := s.lot.begin(l, group, prog)
	defer over()
	defer func() { s.unpark(parked) }()
	begun := make(chan struct{})
	defer close(begun)
	var undo cleanup.Stack
	defer undo.Run()
	c := &container{begun: begun, id: l.ID, dir: s.containerDir(l.ID), group: group, execs: make(map[string]*process), own: ownsPIDs(l.Spec)}
	h, err := s.reserve(c, l.IO)
	if err != nil {
		return none, err
	}
	undo.Push(func() { s.release(c); h.close() })
	after := aftermathOf(l)
	undo.Push(func() { s.afterEnd(c.id, after) })

	if err := os.MkdirAll(filepath.Join(c.dir, "root"), 0o700); err != nil {
		return none, err
	}
	undo.Push(func() { _ = os.RemoveAll(c.dir) })
	// For the next shim, should this one be killed before there is a record.
	if err := os.Symlink(group.Name(), filepath.Join(c.dir, "group")); err != nil {
		return none, err
	}
	p := &process{
		hub: h, child: true, done: make(chan struct{}),
		rec: record{ID: l.ID, IO: l.IO, Log: l.Log, Cgroup: group.Name(), OwnPIDs: c.own, External: l.External, After: after, ForAll: forAllOf(l)},
	}
	var ready *launch.Parked
	clone := func(streams launch.Streams) (*newborn, error) { return s.spawn(c, l, prog, streams, &ready) }
	if l.Restore != nil {
		clone = func(streams launch.Streams) (*newborn, error) { return s.restore(ctx, c, l, streams) }
	}
	if l.External != nil {
		if l.Restore != nil {
			return none, errs.Newf(errs.Unsupported, "start: checkpoints of containers that runtime %s runs are not supported", l.External.Name)
		}
		clone = func(streams launch.Streams) (*newborn, error) { return s.createExternal(ctx, c, l, streams) }
	} else {
		if ready, err = s.makeGroup(c, l, parked); ready != nil {
			parked = nil // it is the container's from here on
		}
		if err != nil {
			return none, err
		}
	}
	undo.Push(func() { s.warn(c.id, group.Delete()) })
	s.keepScope(c)
	undo.Push(func() { s.letScopeGo(c) })
	undo.Push(func() {
		if ready != nil { // nobody took it
			ready.End()
		}
	})
	if err := s.run(ctx, c, p, l.Stdio, clone); err != nil {
		return none, err
	}
	undo.Release()
	s.warn(c.id, group.SettlePIDs(l.Spec.Linux.Resources))
	s.mu.Lock()
	c.main = p
	s.mu.Unlock()
	go s.watch(c, p)
	return runtime.Started{PID: p.rec.PID, StartTicks: p.rec.Ticks, At: p.rec.StartedAt}, nil
}

// makeGroup makes the container's control group and sets its limits. The group of
// a parked child becomes the container's: then that child is returned, also if it
// has ended since the limits could not be set.
func (s *server) makeGroup(c *container, l *runtime.Launch, parked *parkedChild) (child *launch.Parked, err error) {
	limits := l.Spec.Linux.Resources
	if parked != nil {
		if err = parked.group.Rename(c.group); err == nil {
			child = parked.child
			_ = os.Remove(parked.link)
		}
	}
	if child == nil {
		if err := c.group.Create(); err != nil {
			return nil, err
		}
		err = c.group.LimitDevices(deviceRules(l.Spec)) // a parked child's has them
	}
	if err == nil {
		err = s.limit(c, limits, true)
	}
	if err != nil {
		if child != nil {
			child.End()
		}
		s.warn(c.id, c.group.Delete())
		return child, err
	}
	return child, nil
}

// limit sets limits, and tells the log of those that are left out.
func (s *server) limit(c *container, r *specs.LinuxResources, laterPIDs bool) error {
	left, err := c.group.Check(r)
	if err != nil {
		return errs.With(errs.Invalid, err)
	}
	for _, text := range left {
		s.log.Warn(text, "container", c.id)
	}
	return c.group.Apply(r, laterPIDs)
}

func deviceRules(s *specs.Spec) []specs.LinuxDeviceCgroup {
	if s.Linux.Resources == nil {
		return nil
	}
	return s.Linux.Resources.Devices
}

// spawn makes the process that becomes the container's first: the parked one,
// if there is one, which is gone from ready then.
func (s *server) spawn(c *container, l *runtime.Launch, prog *seccomp.Program, streams launch.Streams, ready **launch.Parked) (*newborn, error) {
	child, err := s.host.Start(l, prog, c.group, streams, launch.Options{MountPoint: filepath.Join(c.dir, "root"), Parked: *ready})
	if err != nil {
		return nil, err
	}
	if *ready != nil {
		*ready = nil
		return cloned(child, nil), nil
	}
	return cloned(child, mountNamespace(child)), nil
}

// tellCaps tells the log of capabilities that a process will not have. spec is nil
// where it is not known if that is in a user namespace.
func (s *server) tellCaps(id string, p *specs.Process, spec *specs.Spec) {
	userns := spec == nil || slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if names := launch.Ungrantable(p.Capabilities, userns); len(names) > 0 {
		s.log.Warn("capabilities that are not known or cannot be given are left out", "container", id, "capabilities", names)
	}
}

func ownsPIDs(spec *specs.Spec) bool {
	for _, n := range spec.Linux.Namespaces {
		if n.Type == specs.PIDNamespace && n.Path == "" {
			return true
		}
	}
	return false
}

// reserve takes the id and the hub that clients may have attached to already.
func (s *server) reserve(c *container, io runtime.IO) (*hub, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[c.id] != nil {
		return nil, errs.Newf(errs.Conflict, "the shim has a container %s already", c.id)
	}
	s.containers[c.id] = c
	h := s.waiting[c.id]
	delete(s.waiting, c.id)
	if h == nil {
		h = newHub(s.log, io)
	}
	h.mu.Lock()
	h.used, h.io = true, io
	h.mu.Unlock()
	return h, nil
}

func (s *server) release(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, c.id)
}

func (s *server) warn(id string, err error) {
	if err != nil {
		s.log.Warn("cleaning up after a container failed", "container", id, "err", err)
	}
}

// run makes the streams of p, clones it, records it and lets it become the
// command. On failure nothing of it is left.
func (s *server) run(ctx context.Context, c *container, p *process, passed [3]*os.File, clone func(launch.Streams) (*newborn, error)) error {
	defer s.orphans.hold()()
	var undo cleanup.Stack
	defer undo.Run()
	var out LogWriter
	if p.rec.ExecID == "" && !p.rec.IO.Passed && s.newLog != nil {
		w, err := s.newLog(p.rec.Log)
		if err != nil {
			return err
		}
		if out = w; out != nil {
			undo.Push(func() { _ = out.Close() })
		}
	}
	e, err := openStreams(c.dir, p.rec.ExecID, p.rec.IO, passed)
	if err != nil {
		return err
	}
	undo.Push(func() { e.close(); removeFifos(c.dir, p.rec.ExecID) })

	child, err := clone(e.child)
	if err != nil {
		return err
	}
	p.pidfd = os.NewFile(uintptr(child.pidfd), "pidfd")
	if p.rec.After != nil {
		p.rec.After.RDT = child.rdt
	}
	// After its end: a shim that is killed in the middle of this leaves none unknown.
	undo.Push(func() { _ = os.Remove(p.rec.path(c.dir)); _ = os.Remove(p.rec.draft(c.dir)) })
	undo.Push(func() { s.discard(c, p, child) })
	e.closeChild(p.rec.IO)
	if p.rec.Ticks, err = proc.StartTicks(child.pid); err != nil {
		return err
	}
	p.rec.PID, p.rec.StartedAt = child.pid, time.Now()
	if p.rec.ExecID == "" {
		c.mounts, c.cleared = child.mounts, make(chan struct{})
		undo.Push(func() { s.clear(c) })
	}
	// On disk first: if the shim dies from here on, the next one knows of it, and
	// until it has become the command, ends it.
	save := p.rec.write
	if c.ext != nil { // what another runtime began it may have finished
		save = p.rec.save
	}
	if err := save(c.dir); err != nil {
		return err
	}
	console, err := child.finish(ctx)
	if err != nil {
		return err
	}
	if console != nil {
		undo.Push(func() { _ = console.Close() })
	}
	// Its streams are safe from a kill before the record is: a shim that finds that
	// has them.
	switch {
	case console != nil && p.rec.IO.Passed:
	case console != nil:
		s.keep(p, &ends{stdin: console})
	default:
		s.keep(p, e)
	}
	undo.Push(func() { s.vault.dropProcess(p) })
	if c.ext == nil {
		if err := p.rec.begun(c.dir); err != nil {
			return err
		}
	}
	undo.Release()
	if child.late != nil && child.late.Mounts != nil {
		c.mounts = child.late.Mounts
	}
	switch {
	case console != nil && p.rec.IO.Passed:
		p.hub.startRelay(console, passed)
	case console != nil:
		p.hub.start(&s.pool, out, console, console)
	default:
		p.hub.journals = journals(c.dir, &p.rec, out)
		p.hub.start(&s.pool, out, e.stdin, e.out[0], e.out[1])
	}
	return nil
}

// newborn is a process that has still to become what was asked for.
type newborn struct {
	pid, pidfd int
	mounts     *os.File      // keeps the mounts of a container alive
	late       *launch.Child // has them once it is finished
	finish     func(context.Context) (console *os.File, err error)
	abort      func()
	rdt        []string
}

func cloned(child *launch.Child, mounts *os.File) *newborn {
	n := &newborn{pid: child.PID, pidfd: child.PidFD, mounts: mounts, finish: child.Go, abort: child.Abort, rdt: child.RDT}
	if mounts == nil {
		n.late = child
	}
	return n
}

// keep makes a process's streams and pidfd outlive the shim.
func (s *server) keep(p *process, e *ends) {
	s.vault.put(p.parts(e))
	p.hub.noStdin = func() { s.vault.drop(key{p.rec.ID, p.rec.ExecID}.String() + keptStdin) }
}

// discard ends a child that has not become the command, and reaps it.
func (s *server) discard(c *container, p *process, child *newborn) {
	child.abort()
	_ = p.control(func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
	if _, err := s.await(p, func() bool { return true }); err != nil {
		s.warn(c.id, err)
	}
	p.reap()
	_ = p.pidfd.Close()
}

// mountNamespace keeps a container's mounts alive beyond its last process, so
// that nobody waits for them to be synced and unmounted who waits for its exit.
func mountNamespace(child *launch.Child) *os.File {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(child.PidFD), unix.PIDFD_GET_MNT_NAMESPACE, 0)
	if errno == 0 {
		return os.NewFile(fd, "mounts")
	}
	f, err := os.Open("/proc/" + itoa(child.PID) + "/ns/mnt")
	if err != nil {
		return nil
	}
	return f
}

// clear lets go of the container's mounts.
func (s *server) clear(c *container) {
	if c.ext != nil {
		s.deleteExternal(c)
	}
	if c.mounts != nil {
		_ = c.mounts.Close()
	}
	close(c.cleared)
}
