//go:build root

package builds_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/build/buildtest"
	"github.com/skiff-containers/skiff/internal/engine/builds"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

func TestMain(m *testing.M) { buildtest.Main(m) }

type env struct {
	t *testing.T
	s *builds.Service
	l *buildtest.Launcher
}

func newEnv(t *testing.T) *env {
	t.Helper()
	root := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	store, err := snapshot.Open(t.Context(), snapshot.Options{Root: filepath.Join(root, "store"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t: t, l: &buildtest.Launcher{}}
	b, err := build.New(build.Options{
		Root: filepath.Join(root, "build"), StateDir: filepath.Join(root, "run"), Store: store,
		Launcher: e.l, Networks: buildtest.Networks{}, HostNetwork: true, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(b.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	e.s = builds.New(b, builds.Config{Tmp: store.Tmp(), Log: log})
	return e
}

// build returns what a client would see.
func (e *env) build(o builds.Options, dockerfile string, files ...buildtest.File) (string, string, error) {
	e.t.Helper()
	if o.Version == "" {
		o.Version = "1"
	}
	var mu sync.Mutex
	var out strings.Builder
	id, err := e.s.Build(e.t.Context(), o, buildtest.Tar(e.t, append(files, buildtest.File{Name: "Dockerfile", Body: dockerfile})...), progress.Func(func(ev progress.Event) {
		mu.Lock()
		defer mu.Unlock()
		out.WriteString(ev.Stream)
		if ev.Aux != nil && o.Version == "1" {
			fmt.Fprintln(&out, ev.Aux)
		}
		if ev.ID != "" && o.Version == "2" {
			fmt.Fprintln(&out, ev.ID)
		}
	}))
	return id, out.String(), err
}

func TestClassicOutput(t *testing.T) {
	e := newEnv(t)
	o := builds.Options{Tags: []string{"base", "base:2"}}
	d := buildtest.Base + "RUN echo hello && echo oops\n"
	id, out, err := e.build(o, d, buildtest.Busybox(t))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	short := id[7:19]
	want := "Step 1/3 : COPY busybox /bin/busybox\n" +
		"Step 2/3 : RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n" +
		"Step 3/3 : RUN echo hello && echo oops\n" +
		"hello\noops\n" +
		"map[ID:" + id + "]\nSuccessfully built " + short + "\nSuccessfully tagged base:latest\nSuccessfully tagged base:2\n"
	if out != want {
		t.Errorf("printed\n%s\nwant\n%s", out, want)
	}
	again, out, err := e.build(o, d, buildtest.Busybox(t))
	if err != nil || again != id || strings.Count(out, " ---> Using cache\n") != 3 {
		t.Errorf("second build: %s %v\n%s", again, err, out)
	}
	_, out, err = e.build(builds.Options{Tags: []string{"next"}}, "FROM base:2\nENV a=b\nRUN echo one\nRUN echo two\n")
	want = "Step 1/3 : FROM base:2\nStep 2/3 : RUN echo one\none\nStep 3/3 : RUN echo two\ntwo\n"
	if err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("%v, printed\n%s\nwant\n%s", err, out, want)
	}
}

func TestFailuresInDockersWords(t *testing.T) {
	e := newEnv(t)
	if _, out, err := e.build(builds.Options{Tags: []string{"base"}}, buildtest.Base, buildtest.Busybox(t)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tc := range []struct {
		name, dockerfile, want string
		kind                   errs.Kind
		o                      builds.Options
	}{
		{"unknown instruction", "FROM base\n\nFOO x\n", "dockerfile parse error on line 3: unknown instruction: FOO", errs.Invalid, builds.Options{}},
		{"missing source", "FROM base\nCOPY nothing /x\n", "COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist", errs.Invalid, builds.Options{}},
		{"failing command", "FROM base\nRUN echo a && exit 7\n", "The command '/bin/sh -c echo a && exit 7' returned a non-zero code: 7", errs.Internal, builds.Options{}},
		{"missing Dockerfile", "FROM base\n", "Cannot locate specified Dockerfile: other/Dockerfile", errs.Invalid, builds.Options{Dockerfile: "other/Dockerfile"}},
		{"empty Dockerfile", "", "the Dockerfile (Dockerfile) cannot be empty", errs.Invalid, builds.Options{}},
		{"unknown target", "FROM base\n", "target stage \"nope\" could not be found", errs.Internal, builds.Options{Target: "nope"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, out, err := e.build(tc.o, tc.dockerfile)
			if err == nil || !strings.Contains(err.Error(), tc.want) || errs.KindOf(err) != tc.kind {
				t.Errorf("got %v (%v), want %q (%v)\n%s", err, errs.KindOf(err), tc.want, tc.kind, out)
			}
			var step *builds.StepError
			if strings.HasPrefix(tc.want, "The command") && (!errors.As(err, &step) || step.ExitCode() != 7) {
				t.Errorf("%#v carries no exit code 7", err)
			}
		})
	}
}

func TestVersion2(t *testing.T) {
	e := newEnv(t)
	id, out, err := e.build(builds.Options{Version: "2"}, buildtest.Base, buildtest.Busybox(t))
	if err != nil || id == "" {
		t.Fatalf("%q %v", id, err)
	}
	if !strings.HasPrefix(out, "moby.buildkit.trace\n") || !strings.HasSuffix(out, "moby.image.id\n") {
		t.Errorf("printed\n%s", out)
	}
}

func TestCancel(t *testing.T) {
	e := newEnv(t)
	if _, out, err := e.build(builds.Options{Tags: []string{"base"}}, buildtest.Base, buildtest.Busybox(t)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	go func() {
		for n := e.l.Runs(); e.l.Runs() == n; time.Sleep(5 * time.Millisecond) {
			if t.Context().Err() != nil {
				return
			}
		}
		_ = e.s.Cancel(context.Background(), "mine")
	}()
	_, _, err := e.build(builds.Options{BuildID: "mine"}, "FROM base\nRUN sleep 60\n")
	if errs.KindOf(err) != errs.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestPruneAndDiskUsage(t *testing.T) {
	e := newEnv(t)
	if _, out, err := e.build(builds.Options{Tags: []string{"base"}}, buildtest.Base, buildtest.Busybox(t)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	du, err := e.s.DiskUsage(t.Context())
	if err != nil || len(du) == 0 {
		t.Fatalf("disk usage %v, %v", du, err)
	}
	rep, err := e.s.Prune(t.Context(), builds.PruneOptions{Filters: map[string][]string{"until": {"1h"}}})
	if err != nil || len(rep.CachesDeleted) != 0 {
		t.Errorf("pruned what is new: %+v, %v", rep, err)
	}
	rep, err = e.s.Prune(t.Context(), builds.PruneOptions{All: true, Filters: map[string][]string{"id": {du[0].ID}}})
	if err != nil || len(rep.CachesDeleted) > 1 {
		t.Errorf("pruned more than one id: %+v, %v", rep, err)
	}
	rep, err = e.s.Prune(t.Context(), builds.PruneOptions{All: true})
	if err != nil || len(rep.CachesDeleted) == 0 {
		t.Errorf("pruned nothing: %+v, %v", rep, err)
	}
	if du, err = e.s.DiskUsage(t.Context()); err != nil || len(du) != 0 {
		t.Errorf("left: %v, %v", du, err)
	}
}

func TestCompressedContextInASubdirectory(t *testing.T) {
	e := newEnv(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := "FROM scratch\nCOPY a/b /b\n"
	for n, c := range map[string]string{"./sub/My.Dockerfile": body, "./a/b": "x"} {
		if err := w.WriteHeader(&tar.Header{Name: n, Size: int64(len(c)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(c)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	id, err := e.s.Build(t.Context(), builds.Options{Version: "1", Dockerfile: "./sub/My.Dockerfile"}, &b, progress.Discard)
	if err != nil || !strings.HasPrefix(id, "sha256:") {
		t.Errorf("%q, %v", id, err)
	}
}
