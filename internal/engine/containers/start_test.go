package containers

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

var ctx = context.Background()

func TestLifeOfAContainer(t *testing.T) {
	w := newWorld(t)
	id := w.create("web", withConfig(func(c *container.Config) { c.Labels = map[string]string{"a": "b"} }))
	if got := recv(t, w.waitFor(id, "")); got.StatusCode != 0 {
		t.Errorf("waiting for a created container not to run: %+v", got)
	}
	next := w.waitFor("web", container.WaitConditionNextExit)
	gone := w.waitFor(id, container.WaitConditionRemoved)
	w.start("/web")
	if err := w.Start(ctx, id[:12]); !errs.Is(err, errs.Unchanged) {
		t.Errorf("a second start: %v", err)
	}
	in, err := w.Inspect(ctx, id, true)
	if err != nil {
		t.Fatal(err)
	}
	if !in.State.Running || in.State.Pid == 0 || in.Name != "/web" || in.Config.Hostname != id[:12] || *in.SizeRootFs != 1010 {
		t.Errorf("inspect: %+v %+v", in, in.State)
	}
	if hosts, err := os.ReadFile(in.HostsPath); err != nil || len(hosts) == 0 {
		t.Errorf("hosts: %q %v", hosts, err)
	}
	w.rt.end(id, 3)
	if got := recv(t, next); got.StatusCode != 3 || got.Error != nil {
		t.Errorf("next exit: %+v", got)
	}
	if p := w.phase(id); p != Exited {
		t.Errorf("phase %s after the exit", p)
	}
	if err := w.Remove(ctx, "web", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := recv(t, gone); got.StatusCode != 3 {
		t.Errorf("removed: %+v", got)
	}
	if diff := cmp.Diff([]string{"create", "start", "die", "destroy"}, w.bus.of(id)); diff != "" {
		t.Error(diff)
	}
	want := map[string]string{"image": "busybox", "name": "web", "a": "b", "exitCode": "3", "execDuration": "0"}
	if diff := cmp.Diff(want, w.bus.last(id, apievents.ActionDie)); diff != "" {
		t.Error(diff)
	}
	w.nothingLeft()
}

func TestUnknownExit(t *testing.T) {
	w := newWorld(t)
	id := w.create("web")
	w.start(id)
	next := w.waitFor(id, container.WaitConditionNextExit)
	w.rt.end(id, 255) // a code that the fake does not know
	if got := recv(t, next); got.StatusCode != 255 || got.Error == nil || got.Error.Message != exitNotTold {
		t.Errorf("%+v", got)
	}
	if in, err := w.Inspect(ctx, id, false); err != nil || in.State.ExitCode != 255 || in.State.Error != exitNotTold {
		t.Errorf("%+v %v", in.State, err)
	}
	w.start(id)
	w.rt.end(id, 3)
	if got := recv(t, w.waitFor(id, "")); got.StatusCode != 3 || got.Error != nil {
		t.Errorf("the next end: %+v", got)
	}
	if err := w.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft()
}

func TestRunRmLeavesNothing(t *testing.T) {
	w := newWorld(t)
	id := w.create("", withRm, withHost(func(h *container.HostConfig) { h.Binds = []string{"/data", "keep:/keep"} }))
	if len(w.recs.keys()) != 0 {
		t.Error("a --rm container is in the database")
	}
	gone := w.waitFor(id, container.WaitConditionRemoved)
	w.start(id)
	w.rt.end(id, 0)
	if got := recv(t, gone); got.StatusCode != 0 || got.Error != nil {
		t.Errorf("removed: %+v", got)
	}
	if _, err := w.Inspect(ctx, id, false); !errs.Is(err, errs.NotFound) || err.Error() != "No such container: "+id {
		t.Errorf("inspect: %v", err)
	}
	if w.volumes.exists("anon1") || !w.volumes.exists("keep") {
		t.Error("the anonymous volume stays, or the named one does not")
	}
	w.nothingLeft()
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	for _, step := range []string{"Resolve", "Acquire", "Acquire two", "Confirm", "Put"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.failures.set(step, errBoom)
			_, err := w.Create(ctx, request("box", withHost(func(h *container.HostConfig) {
				h.Binds = []string{"one:/one", "two:/two", "/three"}
			})))
			if !errors.Is(err, errBoom) {
				t.Fatalf("create: %v", err)
			}
			w.nothingLeft()
		})
	}
}

// TestCreateClaimsItsImages: who removes an image must learn of a container that
// is being made from it, and a container whose image is gone is not made.
func TestCreateClaimsItsImages(t *testing.T) {
	w := newWorld(t)
	with := withHost(func(h *container.HostConfig) {
		h.Mounts = []mount.Mount{{Type: mount.TypeImage, Source: "other", Target: "/o"}}
	})
	var asked []string
	w.images.confirm = func(id string) error {
		asked = append(asked, id)
		users := w.UsersOfImage(id)
		if len(users) != 1 || users[0].Running || len(users[0].Images) != 1 {
			t.Errorf("users of %s while a container of it is made: %+v", id, users)
		}
		if n := len(w.index.all()); n != 0 {
			t.Errorf("%d containers are found before they are made", n)
		}
		return nil
	}
	id := w.create("box", with)
	if len(asked) != 2 || len(w.UsersOfImage(asked[0])) != 1 || len(w.UsersOfImage(asked[1])) != 1 {
		t.Errorf("images asked for: %v", asked)
	}
	w.images.confirm = func(id string) error {
		w.images.pins["pinned by a removal by force"] = 1
		return errs.Newf(errs.NotFound, "No such image: %s", id)
	}
	w.images.onUnpin = func(string) { delete(w.images.pins, "pinned by a removal by force") }
	if _, err := w.Create(ctx, request("two", with)); !errs.Is(err, errs.NotFound) {
		t.Errorf("create from an image that is gone: %v", err)
	}
	if n := len(w.UsersOfImage(asked[0])); n != 1 || w.images.pinned() != 0 {
		t.Errorf("%d users, %d pins", n, w.images.pinned())
	}
	if err := w.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft()
}

func TestFailedStartLeavesTheContainer(t *testing.T) {
	for _, step := range []string{"NewSandbox", "Lowers", "Stubs", "Shm", "Mount v", "CopyUp", "runtime.Start"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			id := w.create("box", withHost(func(h *container.HostConfig) { h.Binds, h.IpcMode = []string{"v:/v"}, "shareable" }))
			w.failures.set(step, errBoom)
			if err := w.Start(ctx, id); !errors.Is(err, errBoom) {
				t.Fatalf("start: %v", err)
			}
			if n := w.nets.count(); n != 0 {
				t.Errorf("%d sandboxes left", n)
			}
			if n := w.shm.count(); n != 0 {
				t.Errorf("%d mounts left", n)
			}
			if m := w.volumes.mounts(); m != "" {
				t.Errorf("volumes left mounted: %s", m)
			}
			in, _ := w.Inspect(ctx, id, false)
			if in.State.Status != "created" || in.State.ExitCode != 128 || !strings.Contains(in.State.Error, "boom") {
				t.Errorf("state: %+v", in.State)
			}
			w.failures.set(step, nil)
			w.start(id)
			if in, _ := w.Inspect(ctx, id, false); in.State.ExitCode != 0 || in.State.Error != "" {
				t.Errorf("state after a good start: %+v", in.State)
			}
			if err := w.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			w.nothingLeft()
		})
	}
}

func TestFailedStartOfRm(t *testing.T) {
	w := newWorld(t)
	w.rt.onStart = func(*runtime.Launch, *fakeProc) error {
		return &runtime.StartError{Code: 127, Text: `exec: "nope": executable file not found in $PATH`}
	}
	id := w.create("box", withRm)
	gone := w.waitFor(id, container.WaitConditionRemoved)
	if err := w.Start(ctx, id); !errs.Is(err, errs.Invalid) {
		t.Fatalf("start: %v", err)
	}
	// The client prints the error of the start; one here, it would print as well.
	if got := recv(t, gone); got.StatusCode != 127 || got.Error != nil {
		t.Errorf("waiter: %+v", got)
	}
	w.nothingLeft()
}

// A start that failed is not an exit: who waits for the next one is told of
// that, or of the removal.
func TestFailedStartIsNoExit(t *testing.T) {
	w := newWorld(t)
	fail := true
	w.rt.onStart = func(l *runtime.Launch, _ *fakeProc) error {
		if fail {
			return &runtime.StartError{Code: 127, Text: `exec: "nope": executable file not found in $PATH`}
		}
		time.AfterFunc(time.Millisecond, func() { w.rt.end(l.ID, 3) })
		return nil
	}
	id := w.create("box")
	next := w.waitFor(id, container.WaitConditionNextExit)
	if err := w.Start(ctx, id); !errs.Is(err, errs.Invalid) {
		t.Fatalf("start: %v", err)
	}
	if now := recv(t, w.waitFor(id, "")); now.StatusCode != 127 || now.Error == nil {
		t.Errorf("who asks how it stands: %+v", now)
	}
	select {
	case got := <-next:
		t.Errorf("told of a start that failed: %+v", got)
	default:
	}
	fail = false
	w.start(id)
	if got := recv(t, next); got.StatusCode != 3 || got.Error != nil {
		t.Errorf("at the exit: %+v", got)
	}

	fail = true
	next = w.waitFor(id, container.WaitConditionNextExit)
	if err := w.Start(ctx, id); !errs.Is(err, errs.Invalid) {
		t.Fatalf("start: %v", err)
	}
	if err := w.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := recv(t, next); got.StatusCode != 127 || got.Error != nil {
		t.Errorf("at the removal: %+v", got)
	}
	w.nothingLeft()
}
