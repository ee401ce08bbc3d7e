//go:build linux

package ociruntime

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/atomicfile"
	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/runtime/shim"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// wiring is what create, run, exec and restore have in common: how a process is
// tied to whoever called.
type wiring struct {
	consoleSocket string
	pidFile       string
	pidfdSocket   string
	preserve      int
	detach        bool // nobody here waits for it
}

func (w *wiring) register(fs *flag.FlagSet) {
	fs.StringVar(&w.consoleSocket, "console-socket", "", "unix socket that gets the terminal's master end")
	fs.StringVar(&w.pidFile, "pid-file", "", "file to write the process id to")
	fs.StringVar(&w.pidfdSocket, "pidfd-socket", "", "unix socket that gets a descriptor of the process")
	fs.IntVar(&w.preserve, "preserve-fds", 0, "hand on so many descriptors beyond the standard streams and $LISTEN_FDS")
}

func (w *wiring) check(terminal bool) error {
	switch {
	case w.detach && terminal && w.consoleSocket == "":
		return errs.New(errs.Invalid, "cannot allocate tty if the runtime will detach without setting console socket")
	case (!w.detach || !terminal) && w.consoleSocket != "":
		return errs.New(errs.Invalid, "cannot use console socket if the runtime will not detach or allocate tty")
	case w.preserve < 0:
		return errs.Newf(errs.Invalid, "--preserve-fds: %d is negative", w.preserve)
	}
	return nil
}

type createFlags struct {
	wiring
	bundle             string
	noPivot, noKeyring bool
}

func (f *createFlags) register(fs *flag.FlagSet) {
	f.bundle = "."
	stringFlag(fs, &f.bundle, "bundle", "b", "the bundle's directory")
	f.wiring.register(fs)
	fs.BoolVar(&f.noPivot, "no-pivot", false, "refused: the root is always changed by pivot_root")
	fs.BoolVar(&f.noKeyring, "no-new-keyring", false, "keep the session keyring of the caller")
}

func (a *app) create(fs *flag.FlagSet) func(context.Context, []string) error {
	var f createFlags
	f.register(fs)
	return func(ctx context.Context, args []string) error {
		f.detach = true
		c, ch, err := a.make(ctx, args[0], &f, true)
		if err != nil {
			return fmt.Errorf("%s create failed: %w", Name, err)
		}
		defer c.unlock()
		return ch.close()
	}
}

// newHost makes the launcher. What enters a container runs from a copy of this
// program that nobody can write (CVE-2019-5736).
func newHost() (*launch.Host, error) {
	unix.Umask(0) // the child makes devices and directories with modes that are given
	sys, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	sys.Hold = launch.Hold
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer func() { _ = program.Close() }()
	sealed, err := shim.SealFile(program)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sealed.Close() }()
	fd, err := outOfTheWay(sealed)
	if err != nil {
		return nil, err
	}
	return &launch.Host{Cgroups: sys, Exe: "/proc/self/fd/" + strconv.Itoa(fd)}, nil
}

// outOfTheWay is a descriptor for as long as this program lives, which is not
// long: one that a child does not lose to those that it gets, from 0 on, before
// it executes what is behind it.
func outOfTheWay(f *os.File) (fd int, err error) {
	for _, from := range []int{5000, 900, 200} { // as the limit of open files allows
		if fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, from); err == nil {
			return fd, nil
		}
	}
	return -1, fmt.Errorf("duplicate a descriptor: %w", err)
}

// make makes a container: with gate one whose command waits for start.
func (a *app) make(ctx context.Context, id string, f *createFlags, gate bool) (_ *container, _ *child, err error) {
	if f.noPivot {
		return nil, nil, errs.New(errs.Unsupported, "--no-pivot is not supported")
	}
	bundle, spec, err := loadBundle(f.bundle)
	if err != nil {
		return nil, nil, err
	}
	if err := f.check(spec.Process.Terminal); err != nil {
		return nil, nil, err
	}
	files, err := f.files(spec.Process)
	if err != nil {
		return nil, nil, err
	}
	host, err := newHost()
	if err != nil {
		return nil, nil, err
	}
	if spec.Linux.CgroupsPath, err = a.placeGroup(spec, id, host.Cgroups); err != nil {
		return nil, nil, err
	}
	c, err := a.reserve(id)
	if err != nil {
		return nil, nil, err
	}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { _ = os.RemoveAll(c.dir); c.unlock() })
	c.record = record{
		ID: id, Bundle: bundle, Rootfs: spec.Root.Path, Created: time.Now().UTC(), Cgroup: spec.Linux.CgroupsPath, Spec: spec,
		NoNewKeyring: f.noKeyring,
	}
	if err := a.notifyMount(c); err != nil {
		return nil, nil, err
	}
	if err := c.save(); err != nil {
		return nil, nil, err
	}
	ch, err := a.launch(ctx, c, host, f, files, gate, &undo)
	if err != nil {
		return nil, nil, err
	}
	undo.Release()
	return c, ch, nil
}

// launch makes the control group and the process, and brings it to its gate.
func (a *app) launch(ctx context.Context, c *container, host *launch.Host, f *createFlags, files []*os.File, gate bool, undo *cleanup.Stack) (*child, error) {
	linux := c.Spec.Linux
	prog, err := compile(linux.Seccomp)
	if err != nil {
		return nil, err
	}
	group, err := host.Cgroups.Open(c.Cgroup)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if err := group.Create(); err != nil {
		return nil, err
	}
	undo.Push(func() { _ = group.Delete() })
	if err := a.limit(group, linux.Resources, true); err != nil {
		return nil, err
	}
	o := launch.Options{
		MountPoint: filepath.Join(c.dir, "root"), Bundle: c.Bundle, ProcessOptions: launch.ProcessOptions{Files: files, NoNewKeyring: c.NoNewKeyring},
	}
	if err := os.Mkdir(o.MountPoint, 0o711); err != nil {
		return nil, err
	}
	if gate {
		if o.Gate, err = launch.NewGate(c.gate()); err != nil {
			return nil, err
		}
		defer func() { _ = o.Gate.Close() }()
	}
	a.tellCaps(c.Spec.Process, c.Spec.Linux)
	for _, text := range launch.Unheeded(c.Spec) {
		a.log.Warn(text)
	}
	l := &runtime.Launch{ID: c.ID, Spec: c.Spec, IO: runtime.IO{TTY: c.Spec.Process.Terminal}}
	started, err := host.Start(l, prog, group, ownStreams(c.Spec.Process.Terminal), o)
	if err != nil {
		return nil, err
	}
	ch := &child{pid: started.PID, pidfd: started.PidFD}
	undo.Push(func() { started.Abort(); ch.kill() })
	if c.Ticks, err = proc.StartTicks(started.PID); err != nil {
		return nil, err
	}
	c.PID, c.RDT = started.PID, started.RDT
	if err := c.save(); err != nil { // from here on delete finds the process
		return nil, err
	}
	if ch.console, err = started.Go(ctx); err != nil {
		return nil, plain(err)
	}
	if err := limitWaiting(group, linux.Resources); err != nil {
		return nil, err
	}
	return ch, f.tell(ch)
}

// limitWaiting limits the processes of a container that waits for its start, as
// engines expect it after create. The launcher's threads count too; where they
// hardly fit, the limit is left to the launcher, who sets it as its last act.
func limitWaiting(g *cgroup.Group, r *specs.LinuxResources) error {
	const threads = 64
	p := cgroup.PIDs(r)
	if p == nil || p.Limit == nil || *p.Limit >= 0 && *p.Limit < threads {
		return nil
	}
	return g.LimitPIDs(p)
}

func ownStreams(terminal bool) launch.Streams {
	if terminal {
		return launch.Streams{}
	}
	return launch.Streams{os.Stdin, os.Stdout, os.Stderr}
}

func compile(p *specs.LinuxSeccomp) (*seccomp.Program, error) {
	if p == nil {
		return nil, nil
	}
	prog, err := seccomp.Compile(p, seccomp.Native())
	return prog, errs.With(errs.Invalid, err)
}

// tell hands out what the caller asked for of a new process.
func (w *wiring) tell(ch *child) error {
	if w.consoleSocket != "" {
		if ch.console == nil {
			return errs.New(errs.Internal, "the process came without a terminal")
		}
		if err := sendFile(w.consoleSocket, ch.console.Name(), int(ch.console.Fd())); err != nil {
			return fmt.Errorf("console socket: %w", err)
		}
		_ = ch.console.Close()
		ch.console = nil
	}
	if w.pidfdSocket != "" {
		if err := sendFile(w.pidfdSocket, "pidfd", ch.pidfd); err != nil {
			return fmt.Errorf("pidfd socket: %w", err)
		}
	}
	if w.pidFile != "" {
		return atomicfile.Write(w.pidFile, []byte(strconv.Itoa(ch.pid)), 0o644, false)
	}
	return nil
}

// files are the descriptors that the process gets beyond its standard streams.
// Sockets that systemd passed along are announced in the process's environment.
func (w *wiring) files(p *specs.Process) ([]*os.File, error) {
	n := 0
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		var err error
		if n, err = strconv.Atoi(os.Getenv("LISTEN_FDS")); err != nil || n < 0 {
			return nil, errs.Newf(errs.Invalid, "LISTEN_FDS=%s is not a number of descriptors", os.Getenv("LISTEN_FDS"))
		}
	}
	if n > 0 {
		p.Env = append(p.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	}
	var out []*os.File
	for fd := 3; fd < 3+n+w.preserve; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 { // not open, or one of this program's own
			return nil, errs.Newf(errs.Invalid, "unable to stat preserved-fd %d (of %d): it is not open", fd-3-n, w.preserve)
		}
		unix.CloseOnExec(fd)
		out = append(out, os.NewFile(uintptr(fd), "preserved"))
	}
	return out, nil
}
