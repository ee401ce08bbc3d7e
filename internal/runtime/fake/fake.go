// Package fake is a runtime without processes, for tests of what uses one. It
// plays the few commands of the conformance suite (true, false, echo, cat,
// sleep, sh -c "exit N") and passes it; everything else runs until killed.
package fake

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Runtime implements runtime.Runtime in memory.
type Runtime struct {
	mu         sync.Mutex // guards all below
	containers map[string]*container
	waiting    map[key]*pipes
	watchers   []*runtime.ExitQueue
	pid        int

	// Updates are the limits set with Update, by container.
	Updates map[string]*specs.LinuxResources
}

type key struct{ id, execID string }

type container struct {
	launch *runtime.Launch
	paused bool
	procs  map[string]*process // "" is the first
}

type process struct {
	pid   int
	at    time.Time
	pipes *pipes
	exit  *runtime.Exit
	kill  chan int // the signal, once
}

var _ runtime.Runtime = (*Runtime)(nil)

// New returns a runtime without containers.
func New() *Runtime {
	return &Runtime{
		containers: make(map[string]*container), waiting: make(map[key]*pipes), pid: 1000,
		Updates: make(map[string]*specs.LinuxResources),
	}
}

// Launched returns what a container was started with, or nil.
func (r *Runtime) Launched(id string) *runtime.Launch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		return c.launch
	}
	return nil
}

// Start implements runtime.Runtime.
func (r *Runtime) Start(_ context.Context, l *runtime.Launch) (runtime.Started, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.containers[l.ID] != nil {
		return runtime.Started{}, errs.Newf(errs.Conflict, "container %s is there already", l.ID)
	}
	c := &container{launch: l, procs: make(map[string]*process)}
	p, err := r.begin(c, "", l.Spec.Process.Args, l.IO)
	if err != nil {
		return runtime.Started{}, err
	}
	r.containers[l.ID] = c
	return runtime.Started{PID: p.pid, At: p.at}, nil
}

// Exec implements runtime.Runtime.
func (r *Runtime) Exec(_ context.Context, e *runtime.Exec) (runtime.Started, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find(e.ContainerID)
	switch {
	case err != nil:
		return runtime.Started{}, err
	case c.procs[""].exit != nil:
		return runtime.Started{}, errs.Newf(errs.Conflict, "container %s is not running", e.ContainerID)
	case c.paused:
		return runtime.Started{}, errs.Newf(errs.Conflict, "Container %s is paused, unpause the container before exec", e.ContainerID)
	case c.procs[e.ExecID] != nil:
		return runtime.Started{}, errs.Newf(errs.Conflict, "container %s has a process %s already", e.ContainerID, e.ExecID)
	}
	p, err := r.begin(c, e.ExecID, e.Process.Args, e.IO)
	if err != nil {
		return runtime.Started{}, err
	}
	return runtime.Started{PID: p.pid, At: p.at}, nil
}

// begin plays a command; the lock is held.
func (r *Runtime) begin(c *container, execID string, args []string, wire runtime.IO) (*process, error) {
	k := key{c.launch.ID, execID}
	s := r.waiting[k]
	delete(r.waiting, k)
	if s == nil {
		s = newPipes(wire)
	}
	if strings.HasPrefix(args[0], "no-such") {
		s.end()
		return nil, &runtime.StartError{Code: 127, Text: fmt.Sprintf("failed to create task for container: exec: %q: executable file not found in $PATH", args[0])}
	}
	r.pid++
	p := &process{pid: r.pid, at: time.Now(), pipes: s, kill: make(chan int, 1)}
	c.procs[execID] = p
	go func() {
		code := play(args, s, p.kill)
		s.end()
		r.finish(c, execID, p, code)
	}()
	return p, nil
}

func play(args []string, s *pipes, kill <-chan int) int {
	switch args[0] {
	case "true":
		return 0
	case "false":
		return 1
	case "echo":
		s.print(1, []byte(strings.Join(args[1:], " ")+"\n"))
		return 0
	case "sh":
		if text, ok := strings.CutPrefix(args[len(args)-1], "exit "); ok {
			code, _ := strconv.Atoi(text)
			return code
		}
	case "cat":
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 4096)
			for {
				n, err := s.in.Read(buf)
				s.print(1, buf[:n])
				if err != nil {
					return
				}
			}
		}()
		select {
		case <-done:
			return 0
		case sig := <-kill:
			_ = s.in.Close()
			return 128 + sig
		}
	}
	return 128 + <-kill
}

func (r *Runtime) finish(c *container, execID string, p *process, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.exit = &runtime.Exit{ID: c.launch.ID, ExecID: execID, PID: p.pid, Code: code, At: time.Now()}
	for _, w := range r.watchers {
		w.Put(*p.exit)
	}
	if execID != "" {
		return
	}
	for _, o := range c.procs {
		o.signal(9)
	}
}

func (p *process) signal(sig int) {
	select {
	case p.kill <- sig:
	default:
	}
}

// find returns a container; the lock is held.
func (r *Runtime) find(id string) (*container, error) {
	if c := r.containers[id]; c != nil {
		return c, nil
	}
	return nil, errs.Newf(errs.NotFound, "no container %s", id)
}

// running returns a process that has not ended; the lock is held.
func (r *Runtime) running(id, execID string) (*process, error) {
	c, err := r.find(id)
	if err != nil {
		return nil, err
	}
	p := c.procs[execID]
	if p == nil {
		return nil, errs.Newf(errs.NotFound, "container %s has no process %s", id, execID)
	}
	if p.exit != nil {
		return nil, errs.Newf(errs.Conflict, "process %s of container %s has ended", execID, id)
	}
	return p, nil
}

// Kill implements runtime.Runtime: signals that end a process do.
func (r *Runtime) Kill(_ context.Context, id, execID string, signal int, _ bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.running(id, execID)
	if err == nil && slices.Contains([]int{1, 2, 3, 6, 9, 15}, signal) {
		p.signal(signal)
	}
	return err
}

// Resize implements runtime.Runtime.
func (r *Runtime) Resize(_ context.Context, id, execID string, _, _ uint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.running(id, execID)
	return err
}

func (r *Runtime) setPaused(id string, paused bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.running(id, ""); err != nil {
		return err
	}
	r.containers[id].paused = paused
	return nil
}

// Pause implements runtime.Runtime.
func (r *Runtime) Pause(_ context.Context, id string) error { return r.setPaused(id, true) }

// Resume implements runtime.Runtime.
func (r *Runtime) Resume(_ context.Context, id string) error { return r.setPaused(id, false) }

// Update implements runtime.Runtime.
func (r *Runtime) Update(_ context.Context, id string, res *specs.LinuxResources) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.find(id); err != nil {
		return err
	}
	r.Updates[id] = res
	return nil
}

// Checkpoint implements runtime.Runtime: what it saves is nothing.
func (r *Runtime) Checkpoint(ctx context.Context, id string, to runtime.Checkpoint) error {
	r.mu.Lock()
	_, err := r.find(id)
	r.mu.Unlock()
	if err != nil || to.LeaveRunning {
		return err
	}
	return r.Kill(ctx, id, "", 9, true)
}

// PIDs implements runtime.Runtime.
func (r *Runtime) PIDs(_ context.Context, id string) ([]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find(id)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, p := range c.procs {
		if p.exit == nil {
			out = append(out, p.pid)
		}
	}
	slices.Sort(out)
	return out, nil
}

// List implements runtime.Runtime.
func (r *Runtime) List(context.Context) ([]runtime.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]runtime.State, 0, len(r.containers))
	for id, c := range r.containers {
		p := c.procs[""]
		st := runtime.State{ID: id, PID: p.pid, StartedAt: p.at, Exit: p.exit}
		for eid, e := range c.procs {
			if eid != "" && e.exit == nil {
				st.Execs = append(st.Execs, eid)
			}
		}
		out = append(out, st)
	}
	return out, nil
}

// Delete implements runtime.Runtime.
func (r *Runtime) Delete(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		for k, s := range r.waiting {
			if k.id == id {
				s.end()
				delete(r.waiting, k)
			}
		}
		return nil
	}
	if c.procs[""].exit == nil {
		return errs.Newf(errs.Conflict, "container %s is running", id)
	}
	delete(r.containers, id)
	return nil
}

// Attach implements runtime.Runtime.
func (r *Runtime) Attach(_ context.Context, id, execID string, want runtime.Attach, wire runtime.IO, _ runtime.Log) (runtime.Stream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil && c.procs[execID] != nil {
		return c.procs[execID].pipes.attach(want), nil
	} else if c == nil && execID != "" {
		return nil, errs.Newf(errs.NotFound, "no container %s", id)
	}
	k := key{id, execID}
	if r.waiting[k] == nil {
		r.waiting[k] = newPipes(wire)
	}
	return r.waiting[k].attach(want), nil
}

// Events implements runtime.Runtime.
func (r *Runtime) Events(ctx context.Context) (<-chan runtime.Exit, error) {
	w := runtime.NewExitQueue()
	r.mu.Lock()
	for _, c := range r.containers {
		for _, p := range c.procs {
			if p.exit != nil {
				w.Put(*p.exit)
			}
		}
	}
	r.watchers = append(r.watchers, w)
	r.mu.Unlock()
	out := make(chan runtime.Exit)
	go func() {
		defer close(out)
		for {
			for _, e := range w.Take() {
				select {
				case out <- e:
				case <-ctx.Done():
				}
			}
			select {
			case <-ctx.Done():
				r.mu.Lock()
				r.watchers = slices.DeleteFunc(r.watchers, func(o *runtime.ExitQueue) bool { return o == w })
				r.mu.Unlock()
				return
			case <-w.Wake():
			}
		}
	}()
	return out, nil
}
