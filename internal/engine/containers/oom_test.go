package containers

import (
	"slices"
	"testing"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
)

// ooms counts what was told of a container's memory.
func (w *world) ooms(id string) (n int) {
	for _, a := range w.bus.of(id) {
		if a == string(apievents.ActionOOM) {
			n++
		}
	}
	return n
}

func (w *world) runOut(id string) {
	w.t.Helper()
	w.until("the memory is watched", func() bool { return w.groups.watched(id) != nil })
	n := w.ooms(id)
	w.groups.watched(id)()
	w.until("it is told", func() bool { return w.ooms(id) > n })
}

func TestOutOfMemory(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	w.runOut(id)
	if in, _ := w.Inspect(ctx, id, false); !in.State.OOMKilled || !in.State.Running {
		t.Errorf("%+v", in.State)
	}
	w.runOut(id)
	w.until("it is saved", func() bool { r, _ := loadRun(w.runDir(id)); return r != nil && r.Status.OOM })

	w.restarted()
	w.until("the next daemon watches", func() bool { return w.groups.watched(id) != nil })
	if !slices.Equal(w.groups.knew, []bool{false, true}) || w.ooms(id) != 2 {
		t.Errorf("told again: %v, %d", w.groups.knew, w.ooms(id))
	}
	if in, _ := w.Inspect(ctx, id, false); !in.State.OOMKilled {
		t.Errorf("the next daemon: %+v", in.State)
	}
	late := w.groups.watched(id)
	ended := w.waitFor(id, container.WaitConditionNotRunning)
	w.rt.endOOM(id, 137)
	<-ended
	late()
	if in, _ := w.Inspect(ctx, id, false); !in.State.OOMKilled || w.ooms(id) != 2 {
		t.Errorf("ended: %+v, told %d times", in.State, w.ooms(id))
	}
	w.until("nobody watches", func() bool { return w.groups.watched(id) == nil })

	w.start(id)
	w.rt.mu.Lock()
	w.rt.oom = ""
	w.rt.mu.Unlock()
	if in, _ := w.Inspect(ctx, id, false); in.State.OOMKilled {
		t.Errorf("started again: %+v", in.State)
	}
	again := w.waitFor(id, container.WaitConditionNotRunning)
	w.rt.endOOM(id, 137) // at once: only its exit tells
	<-again
	if in, _ := w.Inspect(ctx, id, false); !in.State.OOMKilled || w.ooms(id) != 3 {
		t.Errorf("ended again: %+v, told %d times", in.State, w.ooms(id))
	}
}
