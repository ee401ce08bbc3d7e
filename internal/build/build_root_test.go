//go:build root

package build_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/build/buildtest"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

func TestMain(m *testing.M) { buildtest.Main(m) }

// env is a builder on a store of its own.
type env struct {
	t        testing.TB
	root     string
	store    *snapshot.Store
	b        *build.Builder
	launcher *buildtest.Launcher
}

// newEnv needs a mount namespace of the test process's own.
func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{t: t, root: t.TempDir()}
	e.open()
	t.Cleanup(func() { e.closeAll(); e.noMounts() })
	return e
}

func (e *env) open() {
	e.t.Helper()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var err error
	e.store, err = snapshot.Open(e.t.Context(), snapshot.Options{Root: filepath.Join(e.root, "store"), Log: log})
	if err != nil {
		e.t.Fatal(err)
	}
	e.launcher = &buildtest.Launcher{}
	e.b, err = build.New(build.Options{
		Root: filepath.Join(e.root, "build"), StateDir: filepath.Join(e.root, "run"), Store: e.store,
		Launcher: e.launcher, Networks: buildtest.Networks{}, Log: log,
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) closeAll() {
	if e.b == nil {
		return
	}
	if err := e.b.Close(); err != nil {
		e.t.Errorf("close the builder: %v", err)
	}
	if err := e.store.Close(); err != nil {
		e.t.Errorf("close the store: %v", err)
	}
	e.b = nil
}

func (e *env) noMounts() {
	e.t.Helper()
	ms, err := mountinfo.GetMounts(mountinfo.PrefixFilter(e.root))
	if err != nil {
		e.t.Fatal(err)
	}
	for _, m := range ms {
		e.t.Errorf("left mounted: %s", m.Mountpoint)
		_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
	}
}

type buildResult struct {
	id   digest.Digest
	resp map[string]string
	logs string
	seen []string // vertexes
	runs int
	err  error
}

func (e *env) try(dockerfile, tag string, attrs map[string]string, files ...buildtest.File) buildResult {
	e.t.Helper()
	ctx, err := build.OpenTar(e.t.Context(), buildtest.Tar(e.t, append(files, buildtest.File{Name: "Dockerfile", Body: dockerfile})...), e.store.Tmp())
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = ctx.Close() }()
	var r buildResult
	before := e.launcher.Runs()
	r.resp, r.err = e.b.Solve(e.t.Context(), build.Request{
		Attrs: attrs, Context: ctx, SharedKey: "test", Outputs: []build.Output{build.ImageOutput(tag)},
	}, func(s *controlapi.StatusResponse) {
		for _, v := range s.Vertexes {
			if v.Completed != nil {
				r.seen = append(r.seen, fmt.Sprintf("%s cached=%v %s", v.Name, v.Cached, v.Error))
			}
		}
		for _, l := range s.Logs {
			r.logs += string(l.Msg)
		}
	})
	r.id = digest.Digest(r.resp["containerimage.config.digest"])
	r.runs = e.launcher.Runs() - before
	return r
}

func (e *env) build(dockerfile, tag string, attrs map[string]string, files ...buildtest.File) buildResult {
	e.t.Helper()
	r := e.try(dockerfile, tag, attrs, files...)
	if r.err != nil {
		e.t.Fatalf("build: %v\nvertexes:\n%s\nlog:\n%s", r.err, strings.Join(r.seen, "\n"), r.logs)
	}
	return r
}

func (e *env) image(name string) (ocispec.Image, ocispec.Manifest) {
	e.t.Helper()
	ctx := e.store.Context(e.t.Context())
	img, err := e.store.Images.Get(ctx, name)
	if err != nil {
		e.t.Fatal(err)
	}
	m, err := images.Manifest(ctx, e.store.Content, img.Target, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	b, err := ctdcontent.ReadBlob(ctx, e.store.Content, m.Config)
	if err != nil {
		e.t.Fatal(err)
	}
	var c ocispec.Image
	if err := json.Unmarshal(b, &c); err != nil {
		e.t.Fatal(err)
	}
	return c, m
}

// layers lists what an image's layers hold, by directory.
func (e *env) layers(name string) [][]string {
	e.t.Helper()
	c, _ := e.image(name)
	var parent digest.Digest
	var out [][]string
	for _, d := range c.RootFS.DiffIDs {
		parent = snapshot.ChainID(parent, d)
		dirs, err := e.store.LayerDirs(e.t.Context(), parent)
		if err != nil {
			e.t.Fatal(err)
		}
		var names []string
		err = filepath.WalkDir(dirs[0], func(p string, _ fs.DirEntry, err error) error {
			if p != dirs[0] && !strings.HasPrefix(p, filepath.Join(dirs[0], "bin")+"/") {
				names = append(names, strings.TrimPrefix(p, dirs[0]))
			}
			return err
		})
		if err != nil {
			e.t.Fatal(err)
		}
		out = append(out, names)
	}
	return out
}

func diskUsage(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it went meanwhile
		}
		if st, err := d.Info(); err == nil && st.Mode().IsRegular() {
			n += st.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBuildRunCopy(t *testing.T) {
	e := newEnv(t)
	r := e.build(buildtest.Base+"RUN echo hello > /greeting && echo visible\n", "docker.io/library/base:latest", nil, buildtest.Busybox(t))
	if !strings.Contains(r.logs, "visible") {
		t.Errorf("output of the step is missing: %q", r.logs)
	}
	c, m := e.image("docker.io/library/base:latest")
	if m.Config.Digest != r.id || len(c.RootFS.DiffIDs) != 3 || len(m.Layers) != 3 {
		t.Errorf("config %s, id %s, %d diffIDs, %d layers", m.Config.Digest, r.id, len(c.RootFS.DiffIDs), len(m.Layers))
	}
	for _, l := range e.layers("docker.io/library/base:latest") {
		t.Log(l)
	}
	t.Log(r.seen)
	again := e.build(buildtest.Base+"RUN echo hello > /greeting && echo visible\n", "docker.io/library/base:latest", nil, buildtest.Busybox(t))
	if again.id != r.id || again.runs != 0 {
		t.Errorf("second build: id %s after %s, %d steps run", again.id, r.id, again.runs)
	}
}

// wait gives a condition time to become true.
func (e *env) wait(f func() bool) {
	e.t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			e.t.Fatal("waited in vain")
		}
	}
}
