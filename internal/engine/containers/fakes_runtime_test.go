package containers

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

type fakeProc struct {
	id, exec   string
	pid        int
	started    time.Time
	exit       *runtime.Exit
	ignoreTerm bool
}

type fakeRuntime struct {
	f  *failures
	mu sync.Mutex
	// onStart and onExec may end a process at once, or refuse it.
	onStart  func(l *runtime.Launch, p *fakeProc) error
	onExec   func(e *runtime.Exec, p *fakeProc) error
	onKill   func(id string)
	oom      string // whose end says so
	ticks    uint64 // when all processes started
	ctrs     map[string]*fakeProc
	execs    map[string]*fakeProc
	attached map[string][]*fakeStream
	pid      int
	deleted  map[string]int
	events   chan runtime.Exit
	launches []*runtime.Launch
	updates  []*specs.LinuxResources
}

var _ runtime.Runtime = (*fakeRuntime)(nil)

func (r *fakeRuntime) count() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.ctrs) }

func (r *fakeRuntime) Start(_ context.Context, l *runtime.Launch) (runtime.Started, error) {
	if err := r.f.at("runtime.Start"); err != nil {
		return runtime.Started{}, err
	}
	r.mu.Lock()
	if r.ctrs[l.ID] != nil {
		r.mu.Unlock()
		return runtime.Started{}, errs.Newf(errs.Conflict, "the shim has a container %s already", l.ID)
	}
	r.pid++
	p := &fakeProc{id: l.ID, pid: r.pid, started: time.Now()}
	r.ctrs[l.ID] = p
	r.launches = append(r.launches, l)
	hook := r.onStart
	r.mu.Unlock()
	if hook != nil {
		if err := hook(l, p); err != nil {
			r.mu.Lock()
			delete(r.ctrs, l.ID)
			r.mu.Unlock()
			return runtime.Started{}, err
		}
	}
	return runtime.Started{PID: p.pid, StartTicks: r.ticks, At: p.started}, nil
}

// end ends a container's process.
func (r *fakeRuntime) end(id string, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(r.ctrs[id], code)
}

// endOOM ends a container whose memory was used up.
func (r *fakeRuntime) endOOM(id string, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.oom = id
	r.endLocked(r.ctrs[id], code)
}

func (r *fakeRuntime) endLocked(p *fakeProc, code int) {
	if p == nil || p.exit != nil {
		return
	}
	p.exit = &runtime.Exit{ID: p.id, ExecID: p.exec, PID: p.pid, Code: code, Unknown: code == 255, OOM: r.oom == p.id, At: time.Now()}
	for _, s := range r.attached[p.id+"/"+p.exec] {
		_ = s.pw.Close()
	}
	if r.events != nil {
		r.events <- *p.exit
	}
}

func (r *fakeRuntime) Exec(_ context.Context, e *runtime.Exec) (runtime.Started, error) {
	if err := r.f.at("runtime.Exec"); err != nil {
		return runtime.Started{}, err
	}
	r.mu.Lock()
	r.pid++
	p := &fakeProc{id: e.ContainerID, exec: e.ExecID, pid: r.pid, started: time.Now()}
	r.execs[e.ExecID] = p
	hook := r.onExec
	r.mu.Unlock()
	if hook != nil {
		if err := hook(e, p); err != nil {
			return runtime.Started{}, err
		}
	}
	return runtime.Started{PID: p.pid, At: p.started}, nil
}

func (r *fakeRuntime) endExec(id string, code int, output string) {
	r.mu.Lock()
	p := r.execs[id]
	streams := r.attached[p.id+"/"+id]
	r.mu.Unlock()
	for _, s := range streams {
		if output != "" {
			_, _ = s.pw.Write(frame(1, output))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(p, code)
}

func frame(stream byte, text string) []byte {
	h := []byte{stream, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(h[4:], uint32(len(text)))
	return append(h, text...)
}

type fakeStream struct {
	*io.PipeReader
	pw *io.PipeWriter
	mu sync.Mutex
	in bytes.Buffer
}

func (s *fakeStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.Write(p)
}

func (s *fakeStream) typed() string { s.mu.Lock(); defer s.mu.Unlock(); return s.in.String() }

func (s *fakeStream) CloseWrite() error { return nil }
func (s *fakeStream) Close() error      { return s.PipeReader.Close() }

func (r *fakeRuntime) Attach(_ context.Context, id, exec string, _ runtime.Attach, _ runtime.IO, _ runtime.Log) (runtime.Stream, error) {
	if err := r.f.at("runtime.Attach"); err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	s := &fakeStream{PipeReader: pr, pw: pw}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attached == nil {
		r.attached = map[string][]*fakeStream{}
	}
	r.attached[id+"/"+exec] = append(r.attached[id+"/"+exec], s)
	return s, nil
}

func (r *fakeRuntime) stream(id, exec string) *fakeStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.attached[id+"/"+exec]
	return l[len(l)-1]
}

func (r *fakeRuntime) Kill(_ context.Context, id, exec string, sig int, _ bool) error {
	if err := r.f.at("runtime.Kill"); err != nil {
		return err
	}
	if r.onKill != nil {
		r.onKill(id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.ctrs[id]
	if exec != "" {
		p = r.execs[exec]
	}
	if p == nil {
		return errs.New(errs.NotFound, "no such process")
	}
	if p.exit != nil {
		return errs.New(errs.Conflict, "the process has ended")
	}
	if syscall.Signal(sig) == syscall.SIGKILL || syscall.Signal(sig) == syscall.SIGTERM && !p.ignoreTerm {
		r.endLocked(p, 128+sig)
	}
	return nil
}

func (r *fakeRuntime) Resize(context.Context, string, string, uint, uint) error { return nil }
func (r *fakeRuntime) Checkpoint(_ context.Context, id string, to runtime.Checkpoint) error {
	if err := r.f.at("runtime.Checkpoint"); err != nil {
		return err
	}
	if !to.LeaveRunning {
		r.end(id, 137)
	}
	return nil
}

func (r *fakeRuntime) Pause(context.Context, string) error { return r.f.at("runtime.Pause") }

func (r *fakeRuntime) Resume(context.Context, string) error { return r.f.at("runtime.Resume") }

func (r *fakeRuntime) Update(_ context.Context, _ string, res *specs.LinuxResources) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.updates = append(r.updates, res)
	return r.f.at("runtime.Update")
}

func (r *fakeRuntime) PIDs(_ context.Context, id string) ([]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return []int{r.ctrs[id].pid}, nil
}

func (r *fakeRuntime) List(context.Context) ([]runtime.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []runtime.State
	for _, p := range r.ctrs {
		out = append(out, runtime.State{ID: p.id, PID: p.pid, StartedAt: p.started, Exit: p.exit})
	}
	return out, nil
}

func (r *fakeRuntime) Events(ctx context.Context) (<-chan runtime.Exit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan runtime.Exit, 100000)
	for _, p := range r.ctrs {
		if p.exit != nil {
			ch <- *p.exit
		}
	}
	r.events = ch
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.events == ch {
			r.events = nil
		}
		close(ch)
	})
	return ch, nil
}

func (r *fakeRuntime) Delete(_ context.Context, id string) error {
	if err := r.f.at("runtime.Delete"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ctrs, id)
	r.deleted[id]++
	return nil
}
