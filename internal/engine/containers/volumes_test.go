package containers

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func withBinds(binds ...string) option {
	return withHost(func(h *container.HostConfig) { h.Binds = binds })
}

func (w *world) wantMounted(when, want string) {
	w.t.Helper()
	w.until(when+": mounted is "+want, func() bool { return w.volumes.mounts() == want })
}

// A volume is mounted while a live container has it, whatever becomes of daemons.
func TestVolumesAreMountedForTheLive(t *testing.T) {
	w := newWorld(t)
	a := w.run("one", withBinds("v:/v", "v:/again", "other:/o"))
	b := w.run("two", withBinds("v:/v"), withRm)
	ends := w.run("ends", withBinds("v:/v", "third:/t"))
	idle := w.create("idle", withBinds("v:/v", "fourth:/f"))
	w.wantMounted("at first", "other×1 third×1 v×3")
	w.down()
	w.rt.end(ends, 0)
	w.restarted()
	w.wantMounted("after a restart", "other×1 v×2")
	w.rt.end(a, 1)
	w.wantMounted("after one's end", "v×1")
	w.rt.end(b, 0)
	w.wantMounted("at the end", "")
	for _, id := range []string{a, ends, idle} {
		if err := w.Remove(ctx, id, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.nothingLeft()
}

// Who looks into a stopped container has its volumes mounted as long.
func TestVolumesAreMountedForACopy(t *testing.T) {
	w := newWorld(t)
	id := w.create("box", withBinds("v:/v"))
	seen := ""
	w.layers.onOpen = func() { seen = w.volumes.mounts() }
	r, _, err := w.GetArchive(ctx, id, "/v")
	if err != nil {
		t.Fatal(err)
	}
	if got := w.volumes.mounts(); seen != "v×1" || got != "v×1" {
		t.Errorf("mounted are %q, and %q when it was opened", got, seen)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	w.wantMounted("after the copy", "")
	w.failures.set("OpenRoot", errBoom)
	if _, err := w.StatPath(ctx, id, "/v"); !errors.Is(err, errBoom) {
		t.Error(err)
	}
	w.wantMounted("after a failure", "")
	w.failures.set("Mount v", errBoom)
	if _, err := w.StatPath(ctx, id, "/v"); !errors.Is(err, errBoom) {
		t.Error(err)
	}
}

// A container that was never started shows its volumes as its start would.
func TestVolumesAreFilledForACopy(t *testing.T) {
	w := newWorld(t)
	id := w.create("box", withBinds("v:/v"))
	if _, err := w.StatPath(ctx, id, "/v"); err != nil || len(w.layers.copied) != 1 {
		t.Errorf("filled: %v %v", w.layers.copied, err)
	}
	w.layers.copied = nil
	w.start(id)
	w.rt.end(id, 0)
	w.until("it has ended", func() bool { return w.phase(id) == Exited })
	w.layers.copied = nil
	if _, err := w.StatPath(ctx, id, "/v"); err != nil || len(w.layers.copied) != 0 {
		t.Errorf("filled again: %v %v", w.layers.copied, err)
	}
}

// Owners of what is the host's are not mapped: what is copied there gets them.
func TestForeignVolumes(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		w := newWorld(t)
		users := specs.LinuxIDMapping{HostID: 100000, Size: 65536}
		h := &w.spec().Host
		h.UIDMap, h.GIDMap = []specs.LinuxIDMapping{users}, []specs.LinuxIDMapping{users}
		w.volumes.foreign = foreign
		w.run("box", withBinds("v:/v"))
		if got := w.layers.owners != nil; got != foreign {
			t.Errorf("foreign %v: copied as %v", foreign, w.layers.owners)
		}
		for _, m := range w.rt.launches[0].Spec.Mounts {
			if m.Destination == "/v" && slices.Contains(m.Options, "idmap") == foreign {
				t.Errorf("foreign %v: %v", foreign, m.Options)
			}
		}
	}
}

// A file system in memory is filled only where others keep what is in it.
func TestFleetingVolumesAreNotFilled(t *testing.T) {
	w := newWorld(t)
	w.volumes.memory = true
	w.run("first", withBinds("v:/v"))
	if len(w.layers.copied) != 0 {
		t.Errorf("filled: %v", w.layers.copied)
	}
	w.run("second", withBinds("v:/v"))
	if len(w.layers.copied) != 1 {
		t.Errorf("filled: %v", w.layers.copied)
	}
}
