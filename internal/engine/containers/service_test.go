package containers

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

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
