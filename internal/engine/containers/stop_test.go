package containers

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func TestStop(t *testing.T) {
	zero := 0
	t.Run("asks first", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box")
		if err := w.Stop(ctx, id, StopOptions{}); err != nil {
			t.Fatal(err)
		}
		in, _ := w.Inspect(ctx, id, false)
		if in.State.ExitCode != 143 || in.State.Status != "exited" {
			t.Errorf("state %+v", in.State)
		}
		if diff := cmp.Diff([]string{"create", "start", "kill", "die", "stop"}, w.bus.of(id)); diff != "" {
			t.Error(diff)
		}
		if err := w.Stop(ctx, id, StopOptions{}); !errs.Is(err, errs.Unchanged) {
			t.Errorf("stop of a stopped one: %v", err)
		}
		if err := w.Kill(ctx, id, ""); !errs.Is(err, errs.Conflict) || err.Error() != "cannot kill container: "+id+": container "+id+" is not running" {
			t.Errorf("kill: %v", err)
		}
	})
	t.Run("then kills", func(t *testing.T) {
		w := newWorld(t)
		w.rt.onStart = func(_ *runtime.Launch, p *fakeProc) error { p.ignoreTerm = true; return nil }
		id := w.run("box")
		if err := w.Stop(ctx, id, StopOptions{Timeout: &zero}); err != nil {
			t.Fatal(err)
		}
		if in, _ := w.Inspect(ctx, id, false); in.State.ExitCode != 137 {
			t.Errorf("state %+v", in.State)
		}
	})
	t.Run("a paused one", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box")
		if err := w.Pause(ctx, id); err != nil {
			t.Fatal(err)
		}
		if err := w.Pause(ctx, id); !errs.Is(err, errs.Conflict) {
			t.Errorf("second pause: %v", err)
		}
		if err := w.Remove(ctx, id, RemoveOptions{}); err == nil || err.Error() != `cannot remove container "/box": container is paused and must be unpaused first` {
			t.Errorf("remove: %v", err)
		}
		if err := w.Kill(ctx, id, "KILL"); err != nil {
			t.Fatal(err)
		}
		if p := w.phase(id); p != Exited {
			t.Errorf("phase %s", p)
		}
	})
	t.Run("a paused one that ends before it is thawed", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box")
		if err := w.Pause(ctx, id); err != nil {
			t.Fatal(err)
		}
		w.failures.set("runtime.Resume", errs.New(errs.Conflict, "it is not running"))
		if err := w.Kill(ctx, id, "KILL"); err != nil || w.phase(id) != Exited {
			t.Errorf("phase %s, %v", w.phase(id), err)
		}
	})
	t.Run("waits for an exit that is under way", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box")
		w.rt.mu.Lock()
		events := w.rt.events
		w.rt.events = nil // the exit is told of below
		w.rt.endLocked(w.rt.ctrs[id], 0)
		exit := *w.rt.ctrs[id].exit
		w.rt.mu.Unlock()
		stopped := make(chan error, 1)
		go func() { stopped <- w.Stop(ctx, id, StopOptions{Timeout: &zero}) }()
		select {
		case err := <-stopped:
			t.Errorf("stopped before the exit was told of: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		events <- exit
		if err := <-stopped; err != nil || w.phase(id) != Exited {
			t.Errorf("phase %s, %v", w.phase(id), err)
		}
	})
	t.Run("bad signals", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box")
		for _, sig := range []string{"NOPE", "0", "99"} {
			if err := w.Kill(ctx, id, sig); !errs.Is(err, errs.Invalid) {
				t.Errorf("%s: %v", sig, err)
			}
		}
	})
}

func TestRemove(t *testing.T) {
	w := newWorld(t)
	id := w.run("box", withHost(func(h *container.HostConfig) { h.Binds = []string{"/anon"} }))
	want := `cannot remove container "/box": container is running: stop the container before removing or force remove`
	if err := w.Remove(ctx, id, RemoveOptions{}); err == nil || err.Error() != want || !errs.Is(err, errs.Conflict) {
		t.Errorf("got %v", err)
	}
	if err := w.Remove(ctx, id, RemoveOptions{Link: true}); !errs.Is(err, errs.Internal) {
		t.Errorf("link: %v", err)
	}
	if err := w.Remove(ctx, id, RemoveOptions{Force: true, Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if w.volumes.exists("anon1") {
		t.Error("rm -v left the anonymous volume")
	}
	w.nothingLeft()

	id = w.create("boy")
	w.failures.set("Delete", errBoom)
	if err := w.Remove(ctx, id, RemoveOptions{}); !errors.Is(err, errBoom) {
		t.Fatalf("got %v", err)
	}
	if p := w.phase(id); p != Dead {
		t.Errorf("phase %s", p)
	}
	w.failures.set("Delete", nil)
	if err := w.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft()
}

func TestRestartPolicies(t *testing.T) {
	t.Run("on-failure", func(t *testing.T) {
		w := newWorld(t)
		w.rt.onStart = func(l *runtime.Launch, p *fakeProc) error { go w.rt.end(l.ID, 7); return nil }
		id := w.run("box", withPolicy("on-failure", 2))
		w.until("it gave up", func() bool {
			in, _ := w.Inspect(ctx, id, false)
			return in.RestartCount == 2 && in.State.Status == "exited"
		})
		if n := len(w.rt.launches); n != 3 {
			t.Errorf("%d starts", n)
		}
	})
	t.Run("stop while it waits", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box", withPolicy("always", 0))
		w.rt.end(id, 0)
		w.until("restarting", func() bool { return w.phase(id) == Restarting })
		w.index.exact(id).mu.Lock()
		w.index.exact(id).mu.Unlock() //nolint:staticcheck // waits until who had it let go
		if err := w.Stop(ctx, id, StopOptions{}); err != nil && !errs.Is(err, errs.Unchanged) {
			t.Fatal(err)
		}
		w.until("ended", func() bool { return w.phase(id) == Exited })
	})
	t.Run("a stop by hand is kept", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box", withPolicy("unless-stopped", 0))
		if err := w.Stop(ctx, id, StopOptions{}); err != nil {
			t.Fatal(err)
		}
		if p := w.phase(id); p != Exited {
			t.Errorf("phase %s", p)
		}
		w.until("recorded", func() bool { w.recs.mu.Lock(); defer w.recs.mu.Unlock(); return w.recs.rows[id].Last.Stopped })
	})
	t.Run("a shim that was killed over a restart", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box", withPolicy("always", 0))
		var starts atomic.Int32
		w.rt.onStart = func(*runtime.Launch, *fakeProc) error {
			if starts.Add(1) < 3 {
				return errs.New(errs.Unavailable, "shim: start: connection reset by peer")
			}
			return nil
		}
		w.rt.end(id, 0)
		w.until("it runs again", func() bool { return w.phase(id) == Running && starts.Load() == 3 })
	})
	t.Run("HUP is no stop", func(t *testing.T) {
		w := newWorld(t)
		id := w.run("box", withPolicy("always", 0))
		if err := w.Kill(ctx, id, "HUP"); err != nil {
			t.Fatal(err)
		}
		w.rt.end(id, 1)
		w.until("it runs again", func() bool { return w.phase(id) == Running && len(w.rt.launches) == 2 })
	})
}

func TestRestartByHand(t *testing.T) {
	w := newWorld(t)
	id := w.run("box", withRm)
	if err := w.Restart(ctx, id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if p := w.phase(id); p != Running {
		t.Errorf("phase %s", p)
	}
	if diff := cmp.Diff([]string{"create", "start", "kill", "die", "stop", "start", "restart"}, w.bus.of(id)); diff != "" {
		t.Error(diff)
	}
	if err := w.Stop(ctx, id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("gone", func() bool { return w.phase(id) == "" })
	w.nothingLeft()
}

func TestStaleExitIsIgnored(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	w.exited(runtime.Exit{ID: id, PID: 1, Code: 9, At: time.Now()})
	if p := w.phase(id); p != Running {
		t.Errorf("phase %s", p)
	}
}
