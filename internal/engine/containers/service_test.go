package containers

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
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

func TestNames(t *testing.T) {
	w := newWorld(t)
	id := w.create("web")
	_, err := w.Create(ctx, request("/web"))
	want := `Conflict. The container name "/web" is already in use by container "` + id + `". You have to remove (or rename) that container to be able to reuse that name.`
	if err == nil || err.Error() != want || !errs.Is(err, errs.Conflict) {
		t.Errorf("got %v", err)
	}
	_, err = w.Create(ctx, request("-x"))
	if err == nil || err.Error() != "Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" {
		t.Errorf("got %v", err)
	}
	other := w.create("")
	if n := w.index.exact(other).name(); !regexp.MustCompile(`^[a-z]+_[a-z]+$`).MatchString(n) {
		t.Errorf("random name %q", n)
	}
	if err := w.Rename(ctx, other, "web"); !errs.Is(err, errs.Conflict) {
		t.Errorf("rename to a taken name: %v", err)
	}
	if err := w.Rename(ctx, "web", "site"); err != nil {
		t.Fatal(err)
	}
	if got := w.bus.last(id, apievents.ActionRename)["oldName"]; got != "/web" {
		t.Errorf("oldName %q", got)
	}
	if w.recs.rows[id].Name != "site" {
		t.Error("the new name is not recorded")
	}
	w.create("web")
	if _, err := w.index.get(""); !errs.Is(err, errs.Invalid) {
		t.Errorf("no name: %v", err)
	}
}

func TestPrefixes(t *testing.T) {
	x := newIndex()
	for _, id := range []string{"aa11", "aa22", "bb"} {
		x.add(&ctr{id: id})
	}
	if c, err := x.get("b"); err != nil || c.id != "bb" {
		t.Errorf("b: %v", err)
	}
	if _, err := x.get("aa"); err == nil || err.Error() != "multiple IDs found with provided prefix: aa" {
		t.Errorf("aa: %v", err)
	}
	if c, err := x.get("aa1"); err != nil || c.id != "aa11" {
		t.Errorf("aa1: %v", err)
	}
	if _, err := x.get("cc"); err == nil || err.Error() != "No such container: cc" {
		t.Errorf("cc: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct {
		o    CreateOptions
		want string
	}{
		"no config":     {CreateOptions{Request: &container.CreateRequest{}}, "config cannot be empty in order to create a container"},
		"no image":      {request("", withConfig(func(c *container.Config) { c.Image = "missing" })), "No such image: missing"},
		"no command":    {request("", withConfig(func(c *container.Config) { c.Cmd = nil })), "no command specified"},
		"rm and policy": {request("", withRm, withPolicy("always", 0)), "can't create 'AutoRemove' container with restart policy"},
		"bad policy":    {request("", withPolicy("sometimes", 0)), "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"},
		"bind source": {request("", withHost(func(h *container.HostConfig) {
			h.Mounts = []mount.Mount{{Type: "bind", Source: "/no/such/thing", Target: "/x"}}
		})), `invalid mount config for type "bind": bind source path does not exist: /no/such/thing`},
		"two mounts": {request("", withHost(func(h *container.HostConfig) {
			h.Binds = []string{"/a:/x", "/b:/x"}
		})), "Duplicate mount point: /x"},
		"log driver": {request("", withHost(func(h *container.HostConfig) { h.LogConfig.Type = "bad" })), "logger: no log driver named 'bad' is registered"},
		"hostname of another": {request("", withConfig(func(c *container.Config) { c.Hostname = "h" }), withHost(func(h *container.HostConfig) {
			h.NetworkMode = "container:x"
		})), "conflicting options: hostname and the network mode"},
		"volumes from": {request("", withHost(func(h *container.HostConfig) { h.VolumesFrom = []string{"nobody"} })), "No such container: nobody"},
		"aliases on bridge": {func() CreateOptions {
			o := request("")
			o.Request.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"bridge": {Aliases: []string{"a"}}}}
			return o
		}(), "invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.Create(ctx, tc.o)
			if err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
			if k := errs.KindOf(err); k != errs.Invalid && k != errs.NotFound {
				t.Errorf("kind %s", k)
			}
		})
	}
	w.nothingLeft()
}

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

func TestExec(t *testing.T) {
	w := newWorld(t)
	id := w.create("box")
	if _, err := w.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"ls"}}); !errs.Is(err, errs.Conflict) || err.Error() != "container "+id+" is not running" {
		t.Errorf("exec in a created container: %v", err)
	}
	w.start(id)
	if _, err := w.ExecCreate(ctx, id, &container.ExecCreateRequest{}); err == nil || err.Error() != "No exec command specified" {
		t.Errorf("no command: %v", err)
	}
	req := &container.ExecCreateRequest{Cmd: []string{"ls", "-l"}, AttachStdout: true, AttachStderr: true, Env: []string{"A=b"}}
	exec, err := w.ExecCreate(ctx, id, req)
	if err != nil {
		t.Fatal(err)
	}
	var got *runtime.Exec
	w.rt.onExec = func(e *runtime.Exec, _ *fakeProc) error {
		got = e
		go w.rt.endExec(e.ExecID, 4, "hello")
		return nil
	}
	s, err := w.ExecAttach(ctx, exec, ExecStartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(s)
	if err != nil || string(out) != string(frame(1, "hello")) {
		t.Errorf("output %q %v", out, err)
	}
	_ = s.Close()
	w.until("it ended", func() bool { in, _ := w.ExecInspect(ctx, exec); return in.ExitCode != nil })
	in, _ := w.ExecInspect(ctx, exec)
	if *in.ExitCode != 4 || in.Running || in.Pid == 0 || in.ContainerID != id {
		t.Errorf("inspect %+v", in)
	}
	if diff := cmp.Diff([]string{"ls", "-l"}, got.Process.Args); diff != "" || !slices.Contains(got.Process.Env, "A=b") || got.Seccomp == nil {
		t.Errorf("process %+v %s", got.Process, diff)
	}
	if err := w.ExecStart(ctx, exec, ExecStartOptions{}); !errs.Is(err, errs.Conflict) {
		t.Errorf("second start: %v", err)
	}
	w.until("exec_die", func() bool { return w.bus.last(id, "exec_die") != nil })
	if diff := cmp.Diff([]string{"create", "start", "exec_create: ls -l", "exec_start: ls -l", "exec_die"}, w.bus.of(id)); diff != "" {
		t.Error(diff)
	}
}

func TestExecOfNothing(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	w.rt.onExec = func(*runtime.Exec, *fakeProc) error {
		return &runtime.StartError{Code: 127, Text: `OCI runtime exec failed: "nope": executable file not found in $PATH`}
	}
	exec, _ := w.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"nope"}, AttachStdout: true})
	s, err := w.ExecAttach(ctx, exec, ExecStartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(s)
	if !strings.Contains(string(out), "executable file not found") || out[0] != 1 {
		t.Errorf("output %q", out)
	}
	if in, _ := w.ExecInspect(ctx, exec); in.ExitCode == nil || *in.ExitCode != 127 || in.Running {
		t.Errorf("inspect %+v", in)
	}
	exec, _ = w.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"nope"}})
	if err := w.ExecStart(ctx, exec, ExecStartOptions{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("detached: %v", err)
	}
	if _, err := w.ExecInspect(ctx, "zz"); !errs.Is(err, errs.NotFound) || err.Error() != "No such exec instance: zz" {
		t.Errorf("inspect: %v", err)
	}
}

func TestAttachAndDetach(t *testing.T) {
	w := newWorld(t)
	id := w.run("box", withConfig(func(c *container.Config) { c.Tty, c.OpenStdin = true, true }))
	s, err := w.Attach(ctx, id, AttachOptions{Stdin: true, Stdout: true, Stream: true, Logs: true, DetachKeys: "ctrl-a,d"})
	if err != nil {
		t.Fatal(err)
	}
	stream := w.rt.stream(id, "")
	go func() { _, _ = stream.pw.Write([]byte("live")) }()
	buf := make([]byte, 64)
	for _, want := range []string{"logged\n", "live"} {
		n, err := s.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("read %q %v, want %q", buf[:n], err, want)
		}
	}
	if _, err := s.Write([]byte("ls\n\x01x\x01")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("d")); err != nil {
		t.Fatal(err)
	}
	if got := stream.typed(); got != "ls\n\x01x" {
		t.Errorf("typed %q", got)
	}
	if _, err := s.Read(buf); !errors.Is(err, ErrDetached) {
		t.Errorf("read after the keys: %v", err)
	}
	_ = s.Close()
	if diff := cmp.Diff([]string{"create", "start", "attach", "detach"}, w.bus.of(id)); diff != "" {
		t.Error(diff)
	}
	if _, err := w.Attach(ctx, id, AttachOptions{DetachKeys: "hello,world"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("bad keys: %v", err)
	}
}

func TestFollowedLogsEndWithTheContainer(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	if _, err := w.Logs(ctx, id, LogsOptions{}); err == nil || err.Error() != "You must choose at least one stream" {
		t.Errorf("no stream: %v", err)
	}
	l, err := w.Logs(ctx, id, LogsOptions{Stdout: true, Follow: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	done := make(chan error, 1)
	go func() { _, err := l.WriteTo(&b); done <- err }()
	w.rt.end(id, 0)
	if err := recv(t, done); err != nil || b.String() != "logged\nended\n" {
		t.Errorf("%q %v", b.String(), err)
	}
	_ = l.Close()
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	codes := make(chan int, 10)
	w.rt.onExec = func(e *runtime.Exec, _ *fakeProc) error {
		go w.rt.endExec(e.ExecID, <-codes, "out")
		return nil
	}
	id := w.run("box", withConfig(func(c *container.Config) {
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "check"}, Interval: time.Millisecond, Retries: 2}
	}))
	health := func() *container.Health { in, _ := w.Inspect(ctx, id, false); return in.State.Health }
	if h := health(); h.Status != container.Starting {
		t.Errorf("first %+v", h)
	}
	codes <- 1
	codes <- 1
	w.until("unhealthy", func() bool { return health().Status == container.Unhealthy })
	if h := health(); h.FailingStreak != 2 || len(h.Log) != 2 || h.Log[0].Output != "out" || h.Log[0].ExitCode != 1 {
		t.Errorf("log %+v", h)
	}
	codes <- 0
	w.until("healthy", func() bool { return health().Status == container.Healthy })
	list, _ := w.List(ctx, ListOptions{Filters: filter.Set{"health": {"healthy"}}})
	if len(list) != 1 || !strings.HasSuffix(list[0].Status, "(healthy)") {
		t.Errorf("list %+v", list)
	}
	close(codes) // zeros from now on
	if err := w.Stop(ctx, id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if ev := w.bus.of(id); !slices.Contains(ev, "health_status: unhealthy") || !slices.Contains(ev, "health_status: healthy") {
		t.Errorf("events %v", ev)
	}
}

func TestHealthTimeout(t *testing.T) {
	w := newWorld(t)
	id := w.run("box", withConfig(func(c *container.Config) {
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "hang"}, Interval: time.Millisecond, Timeout: time.Millisecond, Retries: 1}
	}))
	w.until("unhealthy", func() bool {
		in, _ := w.Inspect(ctx, id, false)
		h := in.State.Health
		return h.Status == container.Unhealthy && h.Log[0].ExitCode == -1 && h.Log[0].Output == "Health check exceeded timeout (1ms)"
	})
}

func TestMountsOfAStart(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	donor := w.create("donor", withHost(func(h *container.HostConfig) { h.Binds = []string{"shared:/shared", dir + ":/host:ro"} }))
	if err := os.MkdirAll(filepath.Join(w.volumes.dir, "sub", "_data", "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	id := w.create("box", withConfig(func(c *container.Config) { c.Volumes = map[string]struct{}{"/shared": {}, "/fresh": {}} }),
		withHost(func(h *container.HostConfig) {
			h.VolumesFrom = []string{"donor:ro"}
			h.Binds = []string{filepath.Join(dir, "new") + ":/made", "mine:/mine:nocopy"}
			h.Tmpfs = map[string]string{"/tmp": "size=1m"}
			h.Mounts = []mount.Mount{{Type: "volume", Source: "sub", Target: "/sub", VolumeOptions: &mount.VolumeOptions{Subpath: "inner"}}}
		}))
	w.start(id)
	got := map[string]string{}
	var sub []string
	for _, m := range w.rt.launches[0].Spec.Mounts {
		got[m.Destination] = m.Source
		if m.Destination == "/sub" {
			sub = m.Options
		}
	}
	run := w.runDir(id)
	for dest, want := range map[string]string{
		"/shared": filepath.Join(w.volumes.dir, "shared/_data"), "/host": dir, "/made": filepath.Join(dir, "new"),
		"/mine": filepath.Join(w.volumes.dir, "mine/_data"), "/sub": filepath.Join(w.volumes.dir, "sub/_data"), "/tmp": "tmpfs", "/fresh": filepath.Join(w.volumes.dir, "anon1/_data"),
		"/etc/hosts": filepath.Join(run, "hosts"), "/etc/resolv.conf": filepath.Join(run, "resolv.conf"), "/etc/hostname": filepath.Join(run, "hostname"),
	} {
		if got[dest] != want {
			t.Errorf("%s from %q, want %q", dest, got[dest], want)
		}
	}
	if !slices.Contains(sub, "x-skiff.subpath=inner") {
		t.Errorf("/sub with %q", sub)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
	filled := map[string]string{"/fresh": filepath.Join(w.volumes.dir, "anon1/_data"), "/sub": filepath.Join(w.volumes.dir, "sub/_data/inner")}
	if diff := cmp.Diff(filled, w.layers.copied); diff != "" {
		t.Errorf("copied up: %s", diff)
	}
	in, _ := w.Inspect(ctx, id, false)
	for _, m := range in.Mounts {
		if m.Destination == "/tmp" {
			t.Error("--tmpfs is listed")
		}
		if (m.Destination == "/shared" || m.Destination == "/host") && m.RW {
			t.Errorf("%s is writable", m.Destination)
		}
	}
	if err := w.Remove(ctx, donor, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(ctx, id, RemoveOptions{Force: true, Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if w.volumes.exists("anon1") || !w.volumes.exists("shared") {
		t.Error("volumes after removal")
	}
	w.nothingLeft()
}

func TestSharedNamespaces(t *testing.T) {
	w := newWorld(t)
	a := w.create("aa", withHost(func(h *container.HostConfig) { h.IpcMode = "shareable" }))
	b := w.create("bb", withHost(func(h *container.HostConfig) {
		h.NetworkMode, h.PidMode, h.IpcMode = "container:aa", "container:aa", "container:aa"
	}))
	if err := w.Start(ctx, b); err == nil || !strings.Contains(err.Error(), "namespace of a non running container: container aa is created") {
		t.Errorf("start without the other: %v", err)
	}
	w.rt.pid = os.Getpid() - 1 // so that the other's namespaces can be opened
	w.start(a)
	w.rt.onStart = func(l *runtime.Launch, _ *fakeProc) error {
		for _, n := range l.Spec.Linux.Namespaces { // whoever has the process's number by now
			if n.Type != specs.PIDNamespace && n.Type != specs.IPCNamespace {
				continue
			}
			got, err := os.Stat(n.Path)
			want, _ := os.Stat("/proc/self/ns/" + string(n.Type))
			if err != nil || !os.SameFile(got, want) || strings.Contains(n.Path, "/ns/") {
				t.Errorf("%s namespace is %q, %v", n.Type, n.Path, err)
			}
		}
		return nil
	}
	w.start(b)
	l := w.rt.launches[1]
	if l.NetNS == nil {
		t.Error("no network namespace to join")
	}
	for _, m := range l.Spec.Mounts {
		if m.Destination == "/etc/hosts" && m.Source != filepath.Join(w.runDir(a), "hosts") {
			t.Errorf("hosts from %s", m.Source)
		}
	}
	if got := string(w.index.exact(b).record().HostConfig.NetworkMode); got != "container:"+a {
		t.Errorf("mode %s", got)
	}
	if len(w.nets.made) != 1 {
		t.Errorf("%d sandboxes made", len(w.nets.made))
	}
	for i, l := range w.rt.launches {
		if !slices.ContainsFunc(l.Spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" && m.Source == w.shmDir(a) }) {
			t.Errorf("launch %d does not share /dev/shm", i)
		}
	}
	for _, id := range []string{b, a} {
		if err := w.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	w.nothingLeft()
}

func TestNetworks(t *testing.T) {
	w := newWorld(t)
	id := w.create("box", withHost(func(h *container.HostConfig) {
		h.NetworkMode = "blue"
		h.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8080-8090"}}}
		h.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "1"}
	}))
	if err := w.ConnectNetwork(ctx, id, "id-red", &network.EndpointSettings{Aliases: []string{"r"}}); err != nil {
		t.Fatal(err)
	}
	w.start(id)
	sp := w.nets.made[0]
	if len(sp.Endpoints) != 2 || sp.Endpoints[0].Network != "id-blue" || sp.Ports[0].HostPort != 8080 || sp.Ports[0].HostEnd != 8090 || len(sp.Sysctls) != 1 {
		t.Errorf("sandbox %+v", sp)
	}
	if err := w.ConnectNetwork(ctx, id, "green", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.ConnectNetwork(ctx, id, "green", nil); !errs.Is(err, errs.Denied) {
		t.Errorf("twice: %v", err)
	}
	if u := w.NetworkUsers("id-green"); u[id].Name != "box" {
		t.Errorf("users %v", u)
	}
	in, _ := w.Inspect(ctx, id, false)
	if len(in.NetworkSettings.Networks) != 3 || len(in.NetworkSettings.Ports) != 1 {
		t.Errorf("settings %+v", in.NetworkSettings)
	}
	if err := w.DisconnectNetwork(ctx, id, "id-green", false); err != nil {
		t.Fatal(err)
	}
	if err := w.DisconnectNetwork(ctx, id, "green", false); !errs.Is(err, errs.Denied) {
		t.Errorf("twice: %v", err)
	}
	w.failures.set("Put", errBoom)
	if err := w.ConnectNetwork(ctx, id, "green", nil); !errors.Is(err, errBoom) {
		t.Errorf("got %v", err)
	}
	w.failures.set("Put", nil)
	if u := w.NetworkUsers("id-green"); len(u) != 0 {
		t.Errorf("a failed connect stays: %v", u)
	}
	if err := w.ConnectNetwork(ctx, id, "host", nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("host: %v", err)
	}
	list, err := w.List(ctx, ListOptions{Filters: filter.Set{"publish": {"8080"}, "network": {"red"}}})
	if err != nil || len(list) != 1 || list[0].Ports[0].PublicPort != 8080 {
		t.Errorf("list %+v %v", list, err)
	}
}

func TestUpdateAndPrune(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	if _, err := w.Update(ctx, id, container.UpdateConfig{Resources: container.Resources{Memory: 64 << 20, MemorySwap: 128 << 20}, RestartPolicy: container.RestartPolicy{Name: "always"}}); err != nil {
		t.Fatal(err)
	}
	if h := w.recs.rows[id].HostConfig; h.Memory != 64<<20 || !h.RestartPolicy.IsAlways() || len(w.rt.updates) != 1 {
		t.Errorf("%+v", h)
	}
	w.failures.set("runtime.Update", errBoom)
	if _, err := w.Update(ctx, id, container.UpdateConfig{Resources: container.Resources{Memory: 32 << 20, MemorySwap: 128 << 20}}); !errors.Is(err, errBoom) {
		t.Errorf("got %v", err)
	}
	if w.recs.rows[id].HostConfig.Memory != 64<<20 {
		t.Error("a refused update is recorded")
	}
	old := w.create("old")
	kept := w.create("kept", withConfig(func(c *container.Config) { c.Labels = map[string]string{"keep": "1"} }))
	r, err := w.Prune(ctx, filter.Set{"label!": {"keep"}})
	if err != nil || !slices.Equal(r.ContainersDeleted, []string{old}) || r.SpaceReclaimed != 10 {
		t.Errorf("%+v %v", r, err)
	}
	if w.phase(kept) != Created || w.phase(id) != Running {
		t.Error("too much was pruned")
	}
}

func TestFilesOfAContainer(t *testing.T) {
	w := newWorld(t)
	id := w.create("box", withHost(func(h *container.HostConfig) { h.Binds = []string{"v:/v:ro"} }))
	if _, err := w.StatPath(ctx, id, "/missing"); !errs.Is(err, errs.NotFound) || err.Error() != "Could not find the file /missing in container "+id {
		t.Errorf("stat: %v", err)
	}
	if err := w.PutArchive(ctx, id, "/v/deep", PutArchiveOptions{}, strings.NewReader("")); err == nil || err.Error() != "mounted volume is marked read-only" {
		t.Errorf("put: %v", err)
	}
	r, _, err := w.GetArchive(ctx, id, "/etc")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "tar" {
		t.Errorf("%q %v", b, err)
	}
	w.start(id)
	if _, err := w.StatPath(ctx, id, "/etc"); err != nil {
		t.Fatal(err)
	}
	if got := w.layers.opened[len(w.layers.opened)-1]; !strings.HasPrefix(got, "pid ") {
		t.Errorf("opened %s", got)
	}
	img, err := w.Commit(ctx, CommitOptions{Container: id, Pause: true, Changes: []string{`CMD ["a","b"]`, "ENV X=y", "EXPOSE 80"}})
	if err != nil || img != "sha256:new" {
		t.Fatal(img, err)
	}
	if c := w.images.last.Config; !slices.Equal(c.Cmd, []string{"a", "b"}) || !slices.Contains(c.Env, "X=y") || len(c.ExposedPorts) != 1 {
		t.Errorf("%+v", c)
	}
	if p := w.phase(id); p != Running {
		t.Errorf("phase %s", p)
	}
}

// What could not be forgotten when it ended is when it is started again.
func TestStartAfterAFailedDelete(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	w.failures.set("runtime.Delete", errBoom)
	w.rt.end(id, 1)
	w.until("it has ended", func() bool { return w.phase(id) == Exited })
	if err := w.Start(ctx, id); !errors.Is(err, errBoom) || !errs.Is(err, errs.Conflict) {
		t.Errorf("%v", err)
	}
	w.failures.set("runtime.Delete", nil)
	w.start(id)
	if err := w.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft()
}

// A client that leaves while its removal kills the container gets it removed, also
// where that one would have removed itself; and so does one that is refused while
// it ends.
func TestClientLeavesDuringRemoval(t *testing.T) {
	for _, force := range []bool{true, false} {
		w := newWorld(t)
		id := w.run("box", withRm)
		c := w.index.exact(id)
		client, leave := context.WithCancelCause(ctx)
		if force {
			w.rt.onKill = func(string) { leave(nil) }
		} else {
			removing := func(is bool) { c.mu.Lock(); c.removing = is; c.mu.Unlock() }
			removing(true) // as by a removal that finds it running
			w.rt.end(id, 0)
			w.until("it has ended", func() bool { return w.phase(id) == Exited && w.rt.count() == 0 })
			removing(false)
			leave(nil)
			c.busy <- struct{}{}
			time.AfterFunc(10*time.Millisecond, func() { <-c.busy })
		}
		if err := w.Remove(client, id, RemoveOptions{Force: force}); force != (err == nil) {
			t.Errorf("force %v: %v", force, err)
		}
		w.until("it is removed", func() bool { return w.index.exact(id) == nil })
		w.nothingLeft()
	}
}

// A process with the number of one that has ended is not joined, in whatever
// namespace.
func TestJoinOfAnotherProcess(t *testing.T) {
	for kind, set := range map[string]func(h *container.HostConfig, m string){
		"pid": func(h *container.HostConfig, m string) { h.PidMode = container.PidMode(m) },
		"ipc": func(h *container.HostConfig, m string) { h.IpcMode = container.IpcMode(m) },
		"net": func(h *container.HostConfig, m string) { h.NetworkMode = container.NetworkMode(m) },
	} {
		w := newWorld(t)
		w.rt.pid, w.rt.ticks = os.Getpid()-1, 1 // not since then
		w.run("aa", withHost(func(h *container.HostConfig) { h.IpcMode = "shareable" }))
		b := w.create("bb", withHost(func(h *container.HostConfig) { set(h, "container:aa") }))
		if err := w.Start(ctx, b); !errors.Is(err, unix.ESRCH) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestTopAndStats(t *testing.T) {
	w := newWorld(t)
	w.rt.pid = os.Getpid() - 1
	id := w.run("box")
	top, err := w.Top(ctx, id, nil)
	if err != nil || len(top.Processes) != 1 {
		t.Errorf("%+v %v", top, err)
	}
	n := 0
	if err := w.Stats(ctx, id, false, true, func(r *container.StatsResponse) error {
		n++
		if r.CPUStats.CPUUsage.TotalUsage != uint64(time.Second) || r.Name != "/box" || r.CPUStats.OnlineCPUs == 0 {
			t.Errorf("%+v", r)
		}
		return nil
	}); err != nil || n != 1 {
		t.Error(n, err)
	}
	enough := errors.New("enough")
	begin := time.Now()
	err = w.Stats(ctx, id, true, false, func(r *container.StatsResponse) error {
		if !r.PreRead.IsZero() {
			t.Errorf("a stream begins with a sample that has %v before it", r.PreRead)
		}
		return enough
	})
	if took := time.Since(begin); !errors.Is(err, enough) || took >= statsInterval {
		t.Errorf("the first sample of a stream: %v after %s", err, took)
	}
}
