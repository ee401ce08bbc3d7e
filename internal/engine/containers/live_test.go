package containers

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// The layers of a container that runs are not mounted a second time.
func TestExportOfLive(t *testing.T) {
	w := newWorld(t)
	id := w.create("box")
	export := func() {
		t.Helper()
		if err := w.Export(ctx, id, io.Discard); err != nil {
			t.Error(err)
		}
	}
	export()
	w.start(id)
	export()
	w.layers.welded = true
	export()
	pid := "mount " + itoa(w.index.exact(id).status().PID)
	if d := cmp.Diff([]string{"root 0", pid, pid, "root 0"}, w.layers.opened); d != "" {
		t.Error(d)
	}
}

func TestExecOfUnknownUser(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	for user, want := range map[string]string{
		"": "", "0": "", "7:8": "", "root": "", "nosuch:1": "unable to find user nosuch:1: no matching entries in passwd file",
	} {
		_, err := w.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"id"}, User: user})
		if want == "" && err != nil || want != "" && (!errs.Is(err, errs.Invalid) || err.Error() != want) {
			t.Errorf("%s: %v", user, err)
		}
	}
	if n := slices.Index(w.layers.opened, "pid "+itoa(w.index.exact(id).status().PID)); n != 0 || len(w.layers.opened) != 2 {
		t.Errorf("opened %q: numbers need no look-up", w.layers.opened)
	}
}

// Before API 1.44 what was mounted below a read-only -v stayed writable.
func TestFlatReadOnly(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	for _, flat := range []bool{true, false} {
		id := w.create("", withHost(func(h *container.HostConfig) {
			h.Binds = []string{dir + ":/ro:ro", dir + ":/rw"}
			h.Mounts = []mount.Mount{{Type: "bind", Source: dir, Target: "/mount", ReadOnly: true}}
		}), func(o *CreateOptions) { o.FlatReadOnly = flat })
		for _, m := range w.index.exact(id).record().Mounts {
			if want := flat && m.Destination == "/ro"; m.ReadOnlyNonRecursive != want {
				t.Errorf("flat %v: %s is %v", flat, m.Destination, m.ReadOnlyNonRecursive)
			}
		}
	}
}

func TestBindOfDaemonRoot(t *testing.T) {
	w := newWorld(t)
	root := w.o.DataRoot
	for _, tc := range []struct{ source, mode, want string }{
		{root, "", "rslave"},
		{root + "/containers", "", "rslave"},
		{"/", "", "rslave"},
		{root + "x", "", "rprivate"},
		{root, ":rslave", "rslave"},
		{root, ":rshared", "rshared"},
		{root + "/a", ":rprivate", ""},
		{root, ":shared", ""},
	} {
		res, err := w.Create(ctx, request("", withHost(func(h *container.HostConfig) { h.Binds = []string{tc.source + ":/x" + tc.mode} })))
		if tc.want == "" {
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), `must use either propagation mode "rslave" or "rshared"`) {
				t.Errorf("%s%s: %v", tc.source, tc.mode, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s%s: %v", tc.source, tc.mode, err)
			continue
		}
		if m := w.index.exact(res.ID).record().Mounts[0]; string(m.Propagation) != tc.want {
			t.Errorf("%s%s: %s, want %s", tc.source, tc.mode, m.Propagation, tc.want)
		}
	}
}

// An exec that fails since the container ends meanwhile says so.
func TestExecOfEnding(t *testing.T) {
	w := newWorld(t)
	for _, ends := range []bool{true, false} {
		id := w.run("")
		w.rt.onExec = func(*runtime.Exec, *fakeProc) error {
			if ends {
				w.rt.end(id, 0)
				w.until("it has ended", func() bool { return w.phase(id) == Exited })
			}
			return errBoom
		}
		exec, err := w.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"id"}})
		if err != nil {
			t.Fatal(err)
		}
		err = w.ExecStart(ctx, exec, ExecStartOptions{})
		if got := errs.Is(err, errs.Conflict) && strings.HasSuffix(err.Error(), " is not running"); got != ends {
			t.Errorf("%v: %v", ends, err)
		}
	}
}

// What the engine wrote for a container is there to copy when it has ended.
func TestFilesOfStopped(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	id := w.run("box", withHost(func(h *container.HostConfig) { h.Binds = []string{dir + ":/etc/hosts"} }))
	w.rt.end(id, 0)
	w.until("it has ended", func() bool { return w.phase(id) == Exited })
	if _, err := w.StatPath(ctx, id, "/etc/hostname"); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"root 3"}, w.layers.opened); d != "" { // the bind, hostname, resolv.conf
		t.Error(d)
	}
}
