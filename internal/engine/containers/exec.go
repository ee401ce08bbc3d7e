package containers

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// execKept is how long an exec that has ended can be inspected.
const execKept = 10 * time.Minute

// execProc is one more process of a container, from its declaration on.
type execProc struct {
	id   string // constant, as the next three
	c    *ctr
	req  container.ExecCreateRequest
	keys []byte

	mu      sync.Mutex // guards all below
	begun   bool
	pid     int
	code    *int
	endedAt time.Time

	ready chan struct{} // closed once it runs or has failed to
	done  chan struct{} // closed once code is set
}

func newExec(c *ctr, req container.ExecCreateRequest, keys []byte) *execProc {
	return &execProc{
		id: ids.New(), c: c, req: req, keys: keys,
		ready: make(chan struct{}), done: make(chan struct{}),
	}
}

// over reports whether it has ended.
func (e *execProc) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.code != nil
}

// finish records the end, once.
func (e *execProc) finish(code int, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.code != nil {
		return false
	}
	e.code, e.endedAt = &code, now
	close(e.done)
	return true
}

func (e *execProc) io() runtime.IO {
	return runtime.IO{TTY: e.req.Tty, Stdin: e.req.AttachStdin, StdinOnce: true}
}

// execTable finds execs by id.
type execTable struct {
	mu   sync.Mutex // guards byID
	byID map[string]*execProc
}

func newExecTable() *execTable { return &execTable{byID: map[string]*execProc{}} }

func (t *execTable) add(e *execProc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[e.id] = e
}

func (t *execTable) get(id string) *execProc {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// drop forgets the execs of a container.
func (t *execTable) drop(containerID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, e := range t.byID {
		if e.c.id == containerID {
			delete(t.byID, id)
		}
	}
}

// sweep forgets those that ended long ago.
func (t *execTable) sweep(before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, e := range t.byID {
		e.mu.Lock()
		old := e.code != nil && e.endedAt.Before(before)
		e.mu.Unlock()
		if old {
			delete(t.byID, id)
		}
	}
}

// execReady refuses an exec in a container that cannot take one; ref is what
// docker calls it in only one of its sentences.
func execReady(st *Status, id, ref string) error {
	switch {
	case st.Phase == Paused:
		return errs.Newf(errs.Conflict, "Container %s is paused, unpause the container before exec", ref)
	case st.Phase == Restarting:
		return errs.Newf(errs.Conflict, "Container %s is restarting, wait until the container is running", id)
	case st.Phase != Running:
		return errNotRunning(id)
	}
	return nil
}

// ExecCreate declares one more process for a running container.
func (s *Service) ExecCreate(ctx context.Context, id string, r *container.ExecCreateRequest) (string, error) {
	c, err := s.index.get(id)
	if err != nil {
		return "", err
	}
	v := c.look()
	if err := execReady(&v.st, c.id, id); err != nil {
		return "", err
	}
	if r == nil || len(r.Cmd) == 0 {
		return "", errs.New(errs.Invalid, "No exec command specified")
	}
	keys, err := parseDetachKeys(r.DetachKeys, s.o.DetachKeys)
	if err != nil {
		return "", err
	}
	if err := s.checkExecUser(ctx, c, v.st.PID, r.User); err != nil {
		return "", err
	}
	e := newExec(c, *r, keys)
	s.execs.sweep(s.now().Add(-execKept))
	s.addExec(c, e)
	s.execEvent(&v.rec, apievents.ActionExecCreate, e)
	return e.id, nil
}

// checkExecUser refuses a user that is not in the container now; numbers need
// not be looked up. Whoever is there at the start is who it runs as.
func (s *Service) checkExecUser(ctx context.Context, c *ctr, pid int, user string) error {
	if !strings.ContainsFunc(user, func(r rune) bool { return r != ':' && (r < '0' || r > '9') }) {
		return nil
	}
	root, err := s.openLive(ctx, c, pid, s.o.Layers.OpenPID)
	if err != nil {
		return err
	}
	if root == nil {
		return errNotRunning(c.id)
	}
	defer func() { _ = root.Close() }()
	return root.CheckUser(user)
}

func (s *Service) addExec(c *ctr, e *execProc) {
	s.execs.add(e)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs == nil {
		c.execs = map[string]*execProc{}
	}
	c.execs[e.id] = e
}

func (s *Service) execEvent(rec *Record, a apievents.Action, e *execProc) {
	detail := e.req.Cmd[0] + " " + strings.Join(e.req.Cmd[1:], " ")
	s.event(rec, apievents.Action(string(a)+": "+detail), map[string]string{"execID": e.id})
}

func (s *Service) exec(id string) (*execProc, error) {
	e := s.execs.get(id)
	if e == nil {
		return nil, errs.Newf(errs.NotFound, "No such exec instance: %s", id)
	}
	return e, nil
}

// ExecStart runs a declared exec without a client.
func (s *Service) ExecStart(ctx context.Context, execID string, o ExecStartOptions) error {
	e, err := s.exec(execID)
	if err != nil {
		return err
	}
	rec, err := s.beginExec(e)
	if err != nil {
		return err
	}
	return s.runExec(context.WithoutCancel(ctx), rec, e, o)
}

// ExecAttach runs a declared exec for a client. As with docker, a command that
// cannot be started is told of in the stream; the exec has its exit code.
func (s *Service) ExecAttach(ctx context.Context, execID string, o ExecStartOptions) (Session, error) {
	e, err := s.exec(execID)
	if err != nil {
		return nil, err
	}
	rec, err := s.beginExec(e)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	want := runtime.Attach{Stdin: e.req.AttachStdin, Stdout: e.req.AttachStdout, Stderr: e.req.AttachStderr}
	stream, err := s.o.Runtime.Attach(ctx, e.c.id, e.id, want, e.io(), runtime.Log{})
	if err != nil {
		s.execFailed(e, err)
		close(e.ready)
		return nil, err
	}
	if err := s.runExec(ctx, rec, e, o); err != nil {
		_ = stream.Close()
		return &session{tty: o.TTY, replay: errorStream(err, o.TTY)}, nil
	}
	out := &session{stream: stream, tty: e.req.Tty, ended: e.done}
	if e.req.Tty {
		out.keys.keys = e.keys
	}
	out.onDetach = func() { s.event(rec, apievents.ActionExecDetach, map[string]string{"execID": e.id}) }
	return reframed(out, o.TTY), nil
}

// errorStream gives an error to a client the way docker does: as output.
func errorStream(err error, tty bool) io.ReadCloser {
	text := err.Error() + "\r\n"
	if !tty {
		n := len(text)
		text = string([]byte{1, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + text
	}
	return io.NopCloser(strings.NewReader(text))
}

// beginExec makes sure that an exec is run once, in a container that can.
func (s *Service) beginExec(e *execProc) (*Record, error) {
	v := e.c.look()
	if err := execReady(&v.st, e.c.id, e.c.id); err != nil {
		return nil, err
	}
	e.mu.Lock()
	ended, begun := e.code != nil, e.begun
	e.begun = true
	e.mu.Unlock()
	switch {
	case ended:
		return nil, errs.Newf(errs.Conflict, "exec command %s has already run", e.id)
	case begun:
		return nil, errs.Newf(errs.Conflict, "exec command %s is already running", e.id)
	}
	s.execEvent(&v.rec, apievents.ActionExecStart, e)
	return &v.rec, nil
}

// runExec has the runtime start it.
func (s *Service) runExec(ctx context.Context, rec *Record, e *execProc, o ExecStartOptions) (err error) {
	defer func() {
		if err != nil {
			s.execFailed(e, err)
		}
		close(e.ready)
	}()
	req, pid := e.req, e.c.status().PID
	if o.ConsoleSize != nil {
		req.ConsoleSize = o.ConsoleSize
	}
	in := s.specInput(rec, s.liveLinks(rec)) // whom it was started with may have ended
	if in.ShmPath == "" && rec.HostConfig.IpcMode.IsContainer() {
		in.ShmPath = "/dev/shm" // the donor is gone; an exec mounts nothing
	}
	of, _, err := spec.Build(in)
	if err != nil {
		return err
	}
	p, err := spec.BuildExec(of, rec.Config, rec.HostConfig, &req, s.spec().Host)
	if err != nil {
		return err
	}
	rio := e.io()
	if req.ConsoleSize != nil {
		rio.Console = *req.ConsoleSize
	}
	started, err := s.o.Runtime.Exec(ctx, &runtime.Exec{
		ContainerID: e.c.id, ExecID: e.id, Process: p, IO: rio,
		User: spec.ExecUser(rec.Config, rec.HostConfig, &req), Seccomp: of.Linux.Seccomp,
	})
	if err != nil {
		if s.gone(ctx, e.c, pid) { // that is why, whatever it looked like
			return errNotRunning(e.c.id)
		}
		return commandErr(err)
	}
	e.mu.Lock()
	e.pid = started.PID
	e.mu.Unlock()
	return nil
}

// gone reports whether the container's process is not the one of that number
// any more, told or not.
func (s *Service) gone(ctx context.Context, c *ctr, pid int) bool {
	if st := c.status(); st.PID != pid || !st.Phase.live() {
		return true
	}
	pids, err := s.o.Runtime.PIDs(ctx, c.id)
	return errs.Is(err, errs.NotFound) || err == nil && !slices.Contains(pids, pid)
}

// execFailed gives an exec that could not be started docker's exit code.
func (s *Service) execFailed(e *execProc, err error) {
	code := exitNotExecutable
	var se *runtime.StartError
	if errors.As(err, &se) && se.Code == exitNotFound {
		code = exitNotFound
	}
	e.finish(code, s.now())
	e.c.mu.Lock()
	delete(e.c.execs, e.id)
	e.c.mu.Unlock()
}

// execEnded handles the exit of an exec.
func (s *Service) execEnded(x runtime.Exit) {
	e := s.execs.get(x.ExecID)
	if e == nil || !e.finish(x.Code, s.now()) {
		return
	}
	e.c.mu.Lock()
	delete(e.c.execs, e.id)
	rec := e.c.rec
	e.c.mu.Unlock()
	s.event(&rec, apievents.ActionExecDie, map[string]string{"execID": e.id, "exitCode": strconv.Itoa(x.Code)})
}

// execsEnded ends the execs of a container that has ended: they died with it.
func (s *Service) execsEnded(c *ctr) {
	c.mu.Lock()
	list := make([]*execProc, 0, len(c.execs))
	for _, e := range c.execs {
		list = append(list, e)
	}
	c.execs = nil
	c.mu.Unlock()
	for _, e := range list {
		e.finish(128+9, s.now())
	}
}

// ExecInspect tells of an exec.
func (s *Service) ExecInspect(_ context.Context, execID string) (*container.ExecInspectResponse, error) {
	e, err := s.exec(execID)
	if err != nil {
		return nil, err
	}
	user := e.req.User
	if user == "" {
		user = e.c.record().Config.User
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	privileged, ownKeys := e.req.Privileged, []byte{}
	if e.req.DetachKeys != "" { // the default ones are not told
		ownKeys = slices.Clone(e.keys)
	}
	return &container.ExecInspectResponse{
		ID: e.id, Running: e.begun && e.code == nil, ExitCode: e.code, ContainerID: e.c.id, Pid: e.pid,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: e.req.Tty, Entrypoint: e.req.Cmd[0], Arguments: append([]string{}, e.req.Cmd[1:]...),
			Privileged: &privileged, User: user,
		},
		OpenStdin: e.req.AttachStdin, OpenStdout: e.req.AttachStdout, OpenStderr: e.req.AttachStderr,
		DetachKeys: ownKeys,
	}, nil
}

// execResizeWait is how long a resize waits for the start it follows: clients
// send both at once.
const execResizeWait = 10 * time.Second

// ExecResize sets the size of an exec's terminal.
func (s *Service) ExecResize(ctx context.Context, execID string, height, width uint) error {
	e, err := s.exec(execID)
	if err != nil {
		return err
	}
	t := time.NewTimer(execResizeWait)
	defer t.Stop()
	select {
	case <-e.ready:
	case <-t.C:
		return errs.New(errs.Unavailable, "timeout waiting for exec session ready")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	e.mu.Lock()
	pid := e.pid
	e.mu.Unlock()
	if pid == 0 {
		return errs.New(errs.Invalid, "exec process is not started")
	}
	return s.o.Runtime.Resize(ctx, e.c.id, e.id, height, width)
}
