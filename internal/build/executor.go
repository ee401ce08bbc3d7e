package build

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	bkexec "github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
)

// executor runs the processes of builds with the engine's launcher.
type executor struct {
	opt   Options
	log   *slog.Logger
	state string // a directory for what a step needs while it runs

	mu      sync.Mutex
	running map[string]*step // guarded by mu
}

var _ bkexec.Executor = (*executor)(nil)

// step is a container of a build while it runs.
type step struct {
	spec    *specs.Spec
	user    string
	started chan struct{} // closed once it runs
	done    chan struct{} // closed once it has ended, or failed to start
}

func newExecutor(opt Options) (*executor, error) {
	state := filepath.Join(opt.StateDir, "steps")
	// What a killed daemon left is of no use.
	if err := os.RemoveAll(state); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	return &executor{opt: opt, log: opt.Log, state: state, running: map[string]*step{}}, nil
}

func (e *executor) close() error { return os.RemoveAll(e.state) }

// Run implements BuildKit's Executor.
func (e *executor) Run(ctx context.Context, id string, root bkexec.Mount, mounts []bkexec.Mount, p bkexec.ProcessInfo, started chan<- struct{}) (_ resourcestypes.Recorder, err error) {
	if id == "" {
		id = identity.NewID()
	}
	if err := bkexec.ValidContainerID(id); err != nil {
		return nil, err
	}
	st := &step{user: userOf(p.Meta), started: make(chan struct{}), done: make(chan struct{})}
	e.mu.Lock()
	e.running[id] = st
	e.mu.Unlock()
	var once sync.Once
	defer once.Do(func() {
		if started != nil {
			close(started)
		}
	})
	defer func() {
		e.mu.Lock()
		delete(e.running, id)
		e.mu.Unlock()
		close(st.done)
	}()

	var undo cleanup.Stack
	defer undo.Run()
	run, err := e.prepare(ctx, id, root, mounts, p.Meta, &undo)
	if err != nil {
		return nil, err
	}
	st.spec = run.Spec
	streams, err := newStreams(p)
	if err != nil {
		return nil, err
	}
	defer streams.close()
	run.Stdio = streams.child
	exit, err := e.opt.Launcher.Run(ctx, run)
	if err != nil {
		return nil, startError(err, p)
	}
	undo.Push(func() {
		if err := e.opt.Launcher.Delete(context.WithoutCancel(ctx), id); err != nil {
			e.log.WarnContext(ctx, "cannot delete the container of a build step", "id", id, "error", err)
		}
	})
	close(st.started)
	if started != nil {
		once.Do(func() { close(started) })
	}
	return nil, e.wait(ctx, id, "", p, streams, exit)
}

// Exec implements BuildKit's Executor.
func (e *executor) Exec(ctx context.Context, id string, p bkexec.ProcessInfo) error {
	e.mu.Lock()
	st, ok := e.running[id]
	e.mu.Unlock()
	if !ok {
		return fmt.Errorf("container %s not found", id)
	}
	select {
	case <-st.started:
	case <-st.done:
		return fmt.Errorf("container %s has stopped", id)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	proc := *st.spec.Process
	proc.Args, proc.Terminal = p.Meta.Args, p.Meta.Tty
	if p.Meta.Cwd != "" {
		proc.Cwd = p.Meta.Cwd
	}
	if len(p.Meta.Env) > 0 {
		proc.Env = p.Meta.Env
	}
	user := st.user
	if p.Meta.User != "" {
		user = p.Meta.User
	}
	streams, err := newStreams(p)
	if err != nil {
		return err
	}
	defer streams.close()
	x := &Exec{
		ID: id, ExecID: identity.NewID(), Process: &proc, User: user,
		Seccomp: st.spec.Linux.Seccomp, TTY: p.Meta.Tty, Stdio: streams.child,
	}
	exit, err := e.opt.Launcher.Exec(ctx, x)
	if err != nil {
		return startError(err, p)
	}
	return e.wait(ctx, id, x.ExecID, p, streams, exit)
}

// wait passes on signals and sizes until the process has ended.
func (e *executor) wait(ctx context.Context, id, execID string, p bkexec.ProcessInfo, s *streams, exit <-chan Exit) error {
	s.start()
	kill := func(sig syscall.Signal) {
		if err := e.opt.Launcher.Kill(context.WithoutCancel(ctx), id, execID, int(sig)); err != nil {
			e.log.DebugContext(ctx, "cannot signal a build step", "id", id, "signal", sig, "error", err)
		}
	}
	var tooLate <-chan time.Time
	cancelled, signals, sizes := ctx.Done(), p.Signal, p.Resize
	for {
		select {
		case <-cancelled:
			cancelled = nil
			kill(syscall.SIGKILL)
			t := time.NewTimer(stopGrace)
			defer t.Stop()
			tooLate = t.C
		case <-tooLate:
			return fmt.Errorf("build step %s does not die of SIGKILL: %w", id, context.Cause(ctx))
		case sig, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			kill(sig)
		case size, ok := <-sizes:
			if !ok {
				sizes = nil
				continue
			}
			if err := e.opt.Launcher.Resize(ctx, id, execID, uint(size.Rows), uint(size.Cols)); err != nil {
				e.log.DebugContext(ctx, "cannot resize the terminal of a build step", "id", id, "error", err)
			}
		case x := <-exit:
			s.drain()
			return exitError(ctx, x, p.Meta.ValidExitCodes)
		}
	}
}

// exitError is what BuildKit expects of a process that ended: nil if its code is fine.
func exitError(ctx context.Context, x Exit, valid []int) error {
	if x.Err == nil && ctx.Err() == nil {
		if valid == nil && x.Code == 0 || slices.Contains(valid, x.Code) {
			return nil
		}
	}
	out := &gatewayapi.ExitError{ExitCode: uint32(x.Code), Err: x.Err}
	switch {
	case ctx.Err() != nil:
		out.Err = fmt.Errorf("%w: %w", context.Cause(ctx), &gatewayapi.ExitError{ExitCode: uint32(x.Code)})
	case x.Err != nil:
		out.ExitCode = gatewayapi.UnknownExitStatus
	case x.OOM:
		out.Err = errors.New("process was killed by the kernel: out of memory")
	}
	return out
}

// exitCoder is implemented by errors that carry docker's code for a command
// that could not be started (126, 127).
type exitCoder interface{ ExitCode() int }

// startError gives a command that cannot be started the exit code a shell
// would have given, and says why where the command would have.
func startError(err error, p bkexec.ProcessInfo) error {
	var c exitCoder
	if !errors.As(err, &c) || c.ExitCode() != 126 && c.ExitCode() != 127 {
		return err
	}
	if p.Stderr != nil {
		_, _ = fmt.Fprintln(p.Stderr, err) // for people only
	}
	return &gatewayapi.ExitError{ExitCode: uint32(c.ExitCode()), Err: err}
}
