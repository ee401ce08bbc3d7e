//go:build root

package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/registryd/registrytest"
	"github.com/skiff-containers/skiff/internal/remote"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// engine is a service on a store of its own.
type engine struct {
	*images.Service
	t     *testing.T
	ctx   context.Context
	root  string
	store *snapshot.Store
	inUse func(string) []images.ContainerRef

	mu     sync.Mutex
	events []string
	told   []string // with everything in them
}

func start(t *testing.T, root string) *engine {
	t.Helper()
	if root == "" {
		root = t.TempDir()
	}
	log := slog.New(slog.DiscardHandler)
	st, err := snapshot.Open(t.Context(), snapshot.Options{Root: root, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	rc, err := remote.New(remote.Options{Pause: 5 * time.Millisecond, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, ctx: t.Context(), root: root, store: st}
	e.Service, err = images.New(t.Context(), images.Options{
		Store: st, Remote: rc, Log: log,
		InUse: func(id string) []images.ContainerRef {
			if e.inUse == nil {
				return nil
			}
			return e.inUse(id)
		},
		Publish: func(_ events.Type, a events.Action, id string, attrs map[string]string) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.events = append(e.events, string(a)+" "+attrs["name"])
			line := string(a) + " " + id + " " + attrs["name"]
			for _, k := range slices.Sorted(maps.Keys(attrs)) {
				if k != "name" {
					line += " " + k + "=" + attrs[k]
				}
			}
			e.told = append(e.told, line)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); _ = st.Close() })
	return e
}

// sink collects progress as lines.
type sink struct {
	mu    sync.Mutex
	lines []string
	aux   []any
}

func (s *sink) Emit(e progress.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.Aux != nil:
		s.aux = append(s.aux, e.Aux)
	case e.Current > 0: // how often depends on time
	case e.Stream != "":
		s.lines = append(s.lines, strings.TrimSpace(e.Stream))
	case e.ID != "":
		s.lines = append(s.lines, e.ID+": "+e.Status)
	default:
		s.lines = append(s.lines, e.Status)
	}
}

func (s *sink) has(t *testing.T, part string) {
	t.Helper()
	if !slices.ContainsFunc(s.lines, func(l string) bool { return strings.Contains(l, part) }) {
		t.Errorf("no %q in:\n%s", part, strings.Join(s.lines, "\n"))
	}
}

func rootfs(t testing.TB, files map[string]string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, text)
	}
	_ = w.Close()
	return &b
}

func (e *engine) importImage(ref string, files map[string]string, changes ...string) string {
	e.t.Helper()
	id, err := e.Import(e.ctx, rootfs(e.t, files), images.ImportOptions{Ref: ref, Changes: changes}, progress.Discard)
	if err != nil {
		e.t.Fatal(err)
	}
	return id
}

func (e *engine) push(ref string) *sink {
	e.t.Helper()
	s := &sink{}
	if err := e.Push(e.ctx, images.PushOptions{Ref: ref}, s); err != nil {
		e.t.Fatalf("push %s: %v", ref, err)
	}
	return s
}

func (e *engine) pull(ref string) (*sink, error) {
	s := &sink{}
	err := e.Pull(e.ctx, images.PullOptions{Ref: ref}, s)
	return s, err
}

func (e *engine) remove(ref string) []image.DeleteResponse {
	e.t.Helper()
	out, err := e.Remove(e.ctx, ref, images.RemoveOptions{})
	if err != nil {
		e.t.Fatalf("remove %s: %v", ref, err)
	}
	return out
}

// read reads a file of an image from its topmost layer down.
func (e *engine) read(ref, name string) string {
	e.t.Helper()
	img, err := e.Resolve(e.ctx, ref, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	dirs, err := e.Lowers(e.ctx, img)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, d := range dirs {
		if b, err := os.ReadFile(filepath.Join(d, name)); err == nil {
			return string(b)
		}
	}
	return ""
}

// empty checks that nothing at all is left in the store.
func (e *engine) empty() {
	e.t.Helper()
	ctx := e.store.Context(e.ctx)
	if err := e.Collect(ctx); err != nil {
		e.t.Fatal(err)
	}
	if ls, _ := e.store.Leases.List(ctx); len(ls) != 0 {
		e.t.Errorf("leases left: %v", ls)
	}
	if st, _ := e.store.RawContent().ListStatuses(ctx); len(st) != 0 {
		e.t.Errorf("ingests left: %v", st)
	}
	_ = e.store.RawContent().Walk(ctx, func(i ctdcontent.Info) error { e.t.Errorf("blob left: %s %v", i.Digest, i.Labels); return nil })
	_ = e.store.Snapshotter.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		e.t.Errorf("snapshot left: %s", i.Name)
		return nil
	})
	for _, d := range []string{"layers/dirs", "tmp", "content/ingest"} {
		if ents, _ := os.ReadDir(filepath.Join(e.root, d)); len(ents) != 0 {
			e.t.Errorf("left in %s: %v", d, ents)
		}
	}
}

func TestPushAndPull(t *testing.T) {
	reg := registrytest.Start(t)
	e := start(t, "")
	ref := reg + "/demo/app:v1"
	id := e.importImage(ref, map[string]string{"etc/hello": "hello", "big": strings.Repeat("data ", 1<<18)}, `CMD ["/bin/true"]`, "ENV A=b", "LABEL x=y")
	s := e.push(ref)
	s.has(t, "The push refers to repository ["+reg+"/demo/app]")
	s.has(t, ": Pushed")
	s.has(t, "v1: digest: sha256:")
	if len(s.aux) != 1 {
		t.Errorf("aux %v", s.aux)
	}
	e.push(ref).has(t, "Layer already exists")
	if err := e.Tag(e.ctx, ref, reg+"/other/copy"); err != nil {
		t.Fatal(err)
	}
	e.push(reg+"/other/copy").has(t, "Mounted from demo/app")

	got, err := e.Inspect(e.ctx, ref, nil, false)
	if err != nil || got.ID != id || len(got.RepoTags) != 2 || len(got.RepoDigests) != 2 {
		t.Fatalf("%+v %v", got, err)
	}
	e.remove(ref)
	e.remove(reg + "/other/copy")
	e.empty()

	s, err = e.pull(ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"v1: Pulling from demo/app", "Pulling fs layer", "Download complete", "Pull complete", "Digest: sha256:", "Status: Downloaded newer image for " + ref} {
		s.has(t, want)
	}
	got, err = e.Inspect(e.ctx, id, nil, false)
	if err != nil || got.ID != id {
		t.Fatalf("another image: %v, %v", got, err)
	}
	if e.read(ref, "etc/hello") != "hello" {
		t.Error("content differs")
	}
	if s, err = e.pull(ref); err != nil {
		t.Fatal(err)
	}
	s.has(t, "Status: Image is up to date for "+ref)
	// What was pulled goes out again as it came.
	if err := e.Tag(e.ctx, ref, reg+"/third/copy"); err != nil {
		t.Fatal(err)
	}
	e.push(reg+"/third/copy").has(t, "Mounted from ")
	want := []string{"tag " + ref, "import " + id, "push " + reg + "/demo/app"}
	if diff := cmp.Diff(want, e.events[:3]); diff != "" {
		t.Error(diff)
	}
}
