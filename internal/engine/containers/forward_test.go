package containers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// sendingLogs have a driver whose remote can be away.
type sendingLogs struct {
	fakeLogs
	mu    sync.Mutex // guards all
	err   error      // of a start
	away  error      // of what goes on
	slow  bool       // what is sent has no end
	calls []string
}

func (l *sendingLogs) Parse(c container.LogConfig, dir string, rec *Record) (runtime.Log, error) {
	out, err := l.fakeLogs.Parse(c, dir, rec)
	out.Sent = out.Path + ".sent"
	return out, err
}

func (l *sendingLogs) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, what)
}

// took returns what was called since it was asked last.
func (l *sendingLogs) took() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := strings.Join(l.calls, " ")
	l.calls = nil
	return out
}

func (l *sendingLogs) Forward(_ context.Context, _ *Record, start bool) (LogForwarder, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if start && l.err != nil {
		l.calls = append(l.calls, "refused")
		return nil, l.err
	}
	what := "resumed"
	if !start && l.away != nil {
		l.calls = append(l.calls, "failed")
		return nil, l.away
	}
	if start {
		what = "started"
	}
	l.calls = append(l.calls, what)
	return &fakeForwarder{l: l, slow: l.slow, done: make(chan struct{})}, nil
}

type fakeForwarder struct {
	l    *sendingLogs
	slow bool
	once sync.Once
	done chan struct{}
}

func (f *fakeForwarder) Finish() {
	f.l.note("finished")
	if !f.slow {
		f.once.Do(func() { close(f.done) })
	}
}
func (f *fakeForwarder) Done() <-chan struct{} { return f.done }
func (f *fakeForwarder) Stop() {
	f.l.note("stopped")
	f.once.Do(func() { close(f.done) })
}

func sendingWorld(t *testing.T) (*world, *sendingLogs) {
	t.Helper()
	w, l := newWorld(t), &sendingLogs{}
	w.down()
	w.logs = l
	w.boot()
	return w, l
}

func TestLogIsSentOn(t *testing.T) {
	w, l := sendingWorld(t)
	check := func(when, want string) {
		t.Helper()
		if got := l.took(); got != want {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
	}
	id := w.create("box")
	check("create", "")
	w.start(id)
	check("start", "started")
	ended := w.waitFor(id, container.WaitConditionNotRunning)
	w.rt.end(id, 0)
	recv(t, ended)
	check("exit", "finished")
	w.start(id)
	check("second start", "stopped started")

	// A daemon that comes goes on, with one that runs and with one that has ended.
	w.down()
	check("the daemon's end", "stopped")
	w.boot()
	check("the next daemon", "resumed")
	ended = w.waitFor(id, container.WaitConditionNotRunning)
	w.rt.end(id, 0)
	recv(t, ended)
	check("second exit", "finished")
	w.down()
	_ = l.took()
	w.boot()
	check("the one after", "resumed finished")
	if err := w.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	check("removal", "finished stopped")
	w.nothingLeft()
}

func TestStartWithoutTheRemote(t *testing.T) {
	w, l := sendingWorld(t)
	id := w.run("box")
	ended := w.waitFor(id, container.WaitConditionNotRunning)
	w.rt.end(id, 0)
	recv(t, ended)
	_ = l.took()
	l.err = errBoom
	err := w.Start(ctx, id)
	if !errors.Is(err, errBoom) || !strings.HasPrefix(err.Error(), "failed to create task for container: failed to initialize logging driver: ") {
		t.Errorf("start: %v", err)
	}
	if got := l.took(); got != "stopped refused resumed finished" { // the first life's lines are still sent
		t.Errorf("got %q", got)
	}
	if n := w.nets.count(); n != 0 {
		t.Errorf("%d sandboxes left", n)
	}
	l.err = nil
	w.failures.set("runtime.Start", errBoom)
	if err := w.Start(ctx, id); !errors.Is(err, errBoom) {
		t.Errorf("start: %v", err)
	}
	if got := l.took(); got != "stopped started finished" {
		t.Errorf("got %q", got)
	}
}

// TestRemovalWaitsForTheLog: and the daemon's end ends that.
func TestRemovalWaitsForTheLog(t *testing.T) {
	w, l := sendingWorld(t)
	l.slow = true
	id := w.run("box")
	removed := make(chan error, 1)
	go func() { removed <- w.Remove(ctx, id, RemoveOptions{Force: true}) }()
	select {
	case err := <-removed:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	w.cancel(errClosed)
	if err := recv(t, removed); err != nil {
		t.Error(err)
	}
}

// What cannot be sent when a daemon starts is sent once it can: the container
// may be waiting for room in its log.
func TestLogIsSentOnLater(t *testing.T) {
	for _, ends := range []bool{false, true} {
		w, l := sendingWorld(t)
		id := w.run("box")
		w.down()
		l.mu.Lock()
		l.away, l.calls = errBoom, nil
		l.mu.Unlock()
		w.boot()
		want := "resumed"
		if ends {
			ended := w.waitFor(id, container.WaitConditionNotRunning)
			w.rt.end(id, 0)
			recv(t, ended)
			want = "resumed finished"
		}
		l.mu.Lock()
		if l.calls[0] != "failed" {
			t.Errorf("%q", l.calls)
		}
		l.away, l.calls = nil, nil
		l.mu.Unlock()
		var got string
		w.until("it is sent", func() bool { got += l.took(); return got != "" })
		time.Sleep(10 * time.Millisecond)
		if got += " " + l.took(); strings.TrimSpace(got) != want {
			t.Errorf("ended %v: %q", ends, got)
		}
	}
}
