//go:build root

package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/snapshot"
)

// testNetworks has only loopback to offer.
type testNetworks struct{}

type testNetwork struct{}

func (testNetworks) New(context.Context, string, string) (Network, error) { return testNetwork{}, nil }
func (testNetworks) HostResolvConf(context.Context) ([]byte, error)       { return nil, nil }
func (testNetwork) NetNS() *os.File                                       { return nil }
func (testNetwork) ResolvConf() []byte                                    { return []byte("nameserver 192.0.2.1\n") }
func (testNetwork) Hosts() []byte                                         { return nil }
func (testNetwork) Close() error                                          { return nil }

// env is a builder on a store of its own.
type env struct {
	t        *testing.T
	root     string
	store    *snapshot.Store
	b        *Builder
	launcher *testLauncher
	log      bytes.Buffer
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
	e.launcher = &testLauncher{}
	e.b, err = New(Options{
		Root: filepath.Join(e.root, "build"), StateDir: filepath.Join(e.root, "run"), Store: e.store,
		Launcher: e.launcher, Networks: testNetworks{}, Log: log,
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

type file struct {
	name, body string
	mode       int64
}

func tarOfFiles(t *testing.T, files ...file) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		mode := f.mode
		if mode == 0 {
			mode = 0o644
		}
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func busybox(t *testing.T) file {
	t.Helper()
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static busybox")
	}
	return file{"busybox", string(b), 0o755}
}

// baseFile is a Dockerfile that makes an image with a shell.
const baseFile = `FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
CMD ["sh"]
`

type buildResult struct {
	id   digest.Digest
	resp map[string]string
	logs string
	seen []string // vertexes
	runs int
	err  error
}

func (e *env) try(dockerfile, tag string, attrs map[string]string, files ...file) buildResult {
	e.t.Helper()
	ctx, err := OpenTar(e.t.Context(), tarOfFiles(e.t, append(files, file{name: "Dockerfile", body: dockerfile})...), e.store.Tmp())
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = ctx.Close() }()
	var r buildResult
	before := e.launcher.runs
	r.resp, r.err = e.b.Solve(e.t.Context(), Request{
		Attrs: attrs, Context: ctx, SharedKey: "test", Outputs: []Output{ImageOutput(tag)},
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
	r.runs = e.launcher.runs - before
	return r
}

func (e *env) build(dockerfile, tag string, attrs map[string]string, files ...file) buildResult {
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

// files lists what an image's layers hold, by directory.
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
	r := e.build(baseFile+"RUN echo hello > /greeting && echo visible\n", "docker.io/library/base:latest", nil, busybox(t))
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
	again := e.build(baseFile+"RUN echo hello > /greeting && echo visible\n", "docker.io/library/base:latest", nil, busybox(t))
	if again.id != r.id || again.runs != 0 {
		t.Errorf("second build: id %s after %s, %d steps run", again.id, r.id, again.runs)
	}
}
