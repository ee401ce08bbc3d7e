//go:build root

package build_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/client"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tonistiigi/fsutil"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/build/buildtest"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

const (
	baseName = "docker.io/library/base:latest"
	nextName = "docker.io/library/next:latest"
)

func (e *env) base() { e.build(buildtest.Base, baseName, nil, buildtest.Busybox(e.t)) }

// body is what a layer of an image holds in a file.
func (e *env) body(image, name string) string {
	e.t.Helper()
	c, _ := e.image(image)
	chain := snapshot.ChainID("", c.RootFS.DiffIDs[0])
	for _, d := range c.RootFS.DiffIDs[1:] {
		chain = snapshot.ChainID(chain, d)
	}
	dirs, err := e.store.LayerDirs(e.t.Context(), chain)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, d := range dirs {
		if b, err := os.ReadFile(filepath.Join(d, name)); err == nil {
			return string(b)
		}
	}
	e.t.Errorf("%s has no %s", image, name)
	return ""
}

func TestFromALocalImageSharesItsLayers(t *testing.T) {
	e := newEnv(t)
	e.base()
	used := diskUsage(t, e.root)
	r := e.build("FROM base\nRUN echo more > /more\n", nextName, nil)
	if grown := diskUsage(t, e.root) - used; grown > 512<<10 {
		t.Errorf("the disk holds %d bytes more; the base's layers were copied", grown)
	}
	b, _ := e.image(baseName)
	n, m := e.image(nextName)
	if len(n.RootFS.DiffIDs) != 3 || !slices.Equal(n.RootFS.DiffIDs[:2], b.RootFS.DiffIDs) {
		t.Errorf("layers %v on base %v", n.RootFS.DiffIDs, b.RootFS.DiffIDs)
	}
	if got := e.body(nextName, "more"); got != "more\n" {
		t.Errorf("/more holds %q", got)
	}
	if len(n.History) < 5 || n.Config.Env == nil || n.Config.Env[0] != "PATH=/bin" {
		t.Errorf("history %v, env %v: the base's were not kept", n.History, n.Config.Env)
	}
	// The archive of a layer can be made although it is not stored.
	info, err := e.store.Content.Info(e.store.Context(t.Context()), m.Layers[0].Digest)
	if err != nil || info.Size != m.Layers[0].Size {
		t.Errorf("layer blob: %+v, %v; manifest says %d bytes", info, err, m.Layers[0].Size)
	}
	// Without the cache, the images still have all of theirs.
	if _, err := e.b.Prune(t.Context(), build.PruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if err := e.store.GarbageCollect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.body(nextName, "more"); got != "more\n" {
		t.Errorf("after pruning, /more holds %q", got)
	}
	again := e.build("FROM base\nRUN echo more > /more\n", nextName, nil)
	if again.runs != 1 {
		t.Errorf("after pruning, %d steps run; want 1", again.runs)
	}
	if again.err == nil && r.id == "" {
		t.Error("no id")
	}
}

func TestStages(t *testing.T) {
	e := newEnv(t)
	e.base()
	e.build(`ARG WHO=nobody
FROM base AS one
ARG WHO
ENV GREETING="hello $WHO"
RUN echo "$GREETING" > /one && mkdir -p /d/e && echo x > /d/e/f
FROM base AS unused
RUN exit 9
FROM base
WORKDIR /w
COPY --from=one /one /d ./
COPY --link --from=one /one /linked
COPY . /ctx
LABEL made=here
USER 12:34
RUN id > /tmp/../w/id 2>/dev/null || true
`, nextName, map[string]string{"build-arg:WHO": "you", "label:extra": "yes"},
		buildtest.File{Name: "keep", Body: "k"}, buildtest.File{Name: "drop.o", Body: "d"},
		buildtest.File{Name: ".dockerignore", Body: "*.o\nDockerfile\n.dockerignore\n"})
	for name, want := range map[string]string{"w/one": "hello you\n", "w/e/f": "x\n", "linked": "hello you\n", "ctx/keep": "k"} {
		if got := e.body(nextName, name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	for _, l := range e.layers(nextName) {
		if slices.Contains(l, "/ctx/drop.o") || slices.Contains(l, "/ctx/Dockerfile") || slices.Contains(l, "/etc/hosts") {
			t.Errorf("layer holds what it should not: %v", l)
		}
	}
	c, _ := e.image(nextName)
	if c.Config.Labels["made"] != "here" || c.Config.Labels["extra"] != "yes" || c.Config.User != "12:34" || c.Config.WorkingDir != "/w" {
		t.Errorf("configuration %+v", c.Config)
	}
	nonEmpty := 0
	for _, h := range c.History {
		if !h.EmptyLayer {
			nonEmpty++
		}
		if h.Created == nil {
			t.Errorf("history %q has no time", h.CreatedBy)
		}
	}
	if nonEmpty != len(c.RootFS.DiffIDs) {
		t.Errorf("%d history entries with a layer, %d layers", nonEmpty, len(c.RootFS.DiffIDs))
	}
}

func TestStubsAreNoPartOfTheLayer(t *testing.T) {
	e := newEnv(t)
	e.base()
	e.build("FROM base\nRUN --mount=type=cache,target=/cache/dir --mount=type=tmpfs,target=/t echo a > /a\n", nextName, nil)
	l := e.layers(nextName)
	top := l[len(l)-1]
	for _, bad := range []string{"/etc/hosts", "/etc/resolv.conf", "/cache/dir", "/t"} {
		if slices.Contains(top, bad) {
			t.Errorf("the layer holds the mount point %s: %v", bad, top)
		}
	}
	if !slices.Contains(top, "/a") {
		t.Errorf("the layer holds %v", top)
	}
}

func TestWhiteouts(t *testing.T) {
	e := newEnv(t)
	e.base()
	e.build("FROM base\nRUN mkdir /d && echo 1 > /d/1 && echo f > /f\nRUN rm -r /d /f && mkdir /d && echo 2 > /d/2\n", nextName, nil)
	e.build("FROM next\nRUN test ! -e /f && test ! -e /d/1 && cat /d/2\n", "docker.io/library/third:latest", nil)
}

func TestCacheMountAndNoCache(t *testing.T) {
	e := newEnv(t)
	e.base()
	d := "FROM base\nRUN --mount=type=cache,target=/c echo x >> /c/n && wc -l < /c/n > /count\n"
	e.build(d, nextName, nil)
	if r := e.build(d, nextName, nil); r.runs != 0 {
		t.Errorf("a cached build ran %d steps", r.runs)
	}
	e.build(strings.Replace(d, "wc", "true && wc", 1), nextName, nil)
	if got := strings.TrimSpace(e.body(nextName, "count")); got != "2" {
		t.Errorf("the cache mount was seen by %s runs, want 2", got)
	}
	if r := e.build(d, nextName, map[string]string{"no-cache": ""}); r.runs != 1 {
		t.Errorf("no-cache ran %d steps", r.runs)
	}
}

func TestConfinement(t *testing.T) {
	e := newEnv(t)
	e.base()
	e.build("FROM base\nRUN true\n", nextName, nil)
	s := e.launcher.Last()
	if s.Linux.Seccomp == nil || len(s.Linux.MaskedPaths) == 0 || len(s.Linux.ReadonlyPaths) == 0 {
		t.Error("no seccomp profile, masked or read-only paths")
	}
	if slices.Contains(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN") || len(s.Process.Capabilities.Inheritable) != 0 {
		t.Errorf("capabilities %+v", s.Process.Capabilities)
	}
	e.build("FROM base\nRUN --network=none true\n", nextName, nil)
	if !slices.ContainsFunc(e.launcher.Last().Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.NetworkNamespace && n.Path == ""
	}) {
		t.Error("network none has no network namespace of its own")
	}
	for _, bad := range []string{"RUN --network=host true", "RUN --security=insecure true"} {
		if r := e.try("# syntax=docker/dockerfile:1\nFROM base\n"+bad+"\n", nextName, nil); r.err == nil {
			t.Errorf("%s was not refused", bad)
		}
	}
	_ = e.try("FROM base\nRUN true\n", nextName, map[string]string{"memory": "33554432", "shm-size": "1048576", "ulimit": "nofile=10:20", "add-hosts": "x=192.0.2.7"})
	s = e.launcher.Last()
	if s.Linux.Resources.Memory == nil || *s.Linux.Resources.Memory.Limit != 32<<20 {
		t.Errorf("memory limit is missing: %+v", s.Linux.Resources)
	}
	if len(s.Process.Rlimits) != 1 || s.Process.Rlimits[0].Soft != 10 || s.Process.Rlimits[0].Hard != 20 {
		t.Errorf("rlimits %+v", s.Process.Rlimits)
	}
	if !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
		return m.Destination == "/dev/shm" && slices.Contains(m.Options, "size=1048576")
	}) {
		t.Errorf("/dev/shm has not the size asked for: %+v", s.Mounts)
	}
}

func TestFailures(t *testing.T) {
	e := newEnv(t)
	e.base()
	r := e.try("FROM base\nRUN exit 42\n", nextName, nil)
	var exit *gatewayapi.ExitError
	if !errors.As(r.err, &exit) || exit.ExitCode != 42 {
		t.Errorf("error %v has no exit code 42", r.err)
	}
	r = e.try("FROM base\n\nFOO bar\n", nextName, nil)
	if r.err == nil || !strings.Contains(r.err.Error(), "dockerfile parse error on line 3: unknown instruction: FOO") {
		t.Errorf("parse error: %v", r.err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tar, err := build.OpenTar(ctx, buildtest.Tar(t, buildtest.File{Name: "Dockerfile", Body: "FROM base\nRUN touch /started && sleep 100\n"}), e.store.Tmp())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tar.Close() }()
	runs := e.launcher.Runs()
	done := make(chan error, 1)
	go func() {
		_, err := e.b.Solve(ctx, build.Request{Context: tar, Outputs: []build.Output{build.ImageOutput("")}}, nil)
		done <- err
	}()
	e.wait(func() bool { return e.launcher.Runs() > runs })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled build returned %v", err)
	}
}

// grpcClient talks BuildKit's API as buildx does.
func (e *env) grpcClient() *client.Client {
	e.t.Helper()
	c, err := client.New(e.t.Context(), "passthrough:///x", client.WithContextDialer(func(context.Context, string) (net.Conn, error) {
		mine, theirs := net.Pipe()
		go func() { _ = e.b.ServeConn(e.t.Context(), theirs) }()
		return mine, nil
	}))
	if err != nil {
		e.t.Fatal(err)
	}
	return c
}

func (e *env) solve(c *client.Client, dockerfile string, o client.SolveOpt) (*client.SolveResponse, error) {
	e.t.Helper()
	dir := e.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		e.t.Fatal(err)
	}
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		e.t.Fatal(err)
	}
	o.Frontend = "dockerfile.v0"
	o.LocalMounts = map[string]fsutil.FS{"context": fs, "dockerfile": fs}
	return c.Solve(e.t.Context(), nil, o, nil)
}

func TestGRPCSecretsAndExporters(t *testing.T) {
	e := newEnv(t)
	e.base()
	c := e.grpcClient()
	defer func() { _ = c.Close() }()
	secret := secretsprovider.FromMap(map[string][]byte{"token": []byte("s3cret")})
	_, err := e.solve(c, "FROM base\nRUN --mount=type=secret,id=token cp /run/secrets/token /got && ls -la /run/secrets\n", client.SolveOpt{
		Session: []session.Attachable{secret},
		Exports: []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "next"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := e.body(nextName, "got"); got != "s3cret" {
		t.Errorf("the secret arrived as %q", got)
	}
	for _, l := range e.layers(nextName) {
		if slices.Contains(l, "/run/secrets/token") {
			t.Errorf("the secret's mount point is in the layer: %v", l)
		}
	}
	// The layers of next exist only as directories; an export makes archives.
	out := t.TempDir()
	if _, err := e.solve(c, "FROM next\nRUN echo z > /z\n", client.SolveOpt{
		Exports: []client.ExportEntry{{Type: "local", OutputDir: out}},
	}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(out, "z")); err != nil || string(b) != "z\n" {
		t.Errorf("local export: %q, %v", b, err)
	}
	for _, attrs := range []map[string]string{{"tar": "false"}, {"tar": "false", "compression": "zstd", "force-compression": "true"}} {
		dest := t.TempDir()
		if _, err := e.solve(c, "FROM next\nRUN echo z > /z\n", client.SolveOpt{
			Exports: []client.ExportEntry{{Type: "oci", Attrs: attrs, OutputDir: dest}},
		}); err != nil {
			t.Fatalf("oci export %v: %v", attrs, err)
		}
		if _, err := os.Stat(filepath.Join(dest, "index.json")); err != nil {
			t.Error(err)
		}
	}
	ws, err := c.ListWorkers(t.Context())
	if err != nil || len(ws) != 1 || ws[0].Labels["org.mobyproject.buildkit.worker.snapshotter"] == "" {
		t.Errorf("workers %+v, %v", ws, err)
	}
	du, err := c.DiskUsage(t.Context())
	if err != nil || len(du) == 0 {
		t.Errorf("disk usage: %d records, %v", len(du), err)
	}
}

func TestAttestationsTakeTheSlowWay(t *testing.T) {
	e := newEnv(t)
	e.base()
	c := e.grpcClient()
	defer func() { _ = c.Close() }()
	r, err := e.solve(c, "FROM base\nRUN echo p > /p\n", client.SolveOpt{
		FrontendAttrs: map[string]string{"attest:provenance": "mode=max"},
		Exports:       []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "next"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := e.body(nextName, "p"); got != "p\n" {
		t.Errorf("/p holds %q", got)
	}
	t.Log(r.ExporterResponse)
}

func TestKilledDaemonKeepsItsCache(t *testing.T) {
	if dir := os.Getenv("SKIFF_BUILD_TEST_KILL"); dir != "" {
		e := &env{t: t, root: dir}
		e.open()
		e.base()
		e.build("FROM base\nRUN echo more > /more\n"+strings.Repeat("RUN echo x >> /x\n", 8), nextName, nil)
		_, _ = os.Stdout.WriteString("built\n")
		select {}
	}
	dir := t.TempDir()
	c := exec.Command("/proc/self/exe", "-test.run=^TestKilledDaemonKeepsItsCache$")
	c.Env = append(os.Environ(), "SKIFF_BUILD_TEST_KILL="+dir)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if s.Text() == "built" {
			break
		}
		t.Log(s.Text())
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	e := &env{t: t, root: dir}
	e.open()
	t.Cleanup(func() { e.closeAll(); e.noMounts() })
	r := e.build("FROM base\nRUN echo more > /more\n"+strings.Repeat("RUN echo x >> /x\n", 8), nextName, nil)
	if r.runs != 0 {
		t.Errorf("%d steps ran again", r.runs)
	}
	if got := e.body(nextName, "more"); got != "more\n" {
		t.Errorf("/more holds %q", got)
	}
}

func TestMachineCrashDropsTheCache(t *testing.T) {
	e := newEnv(t)
	e.base()
	e.build("FROM base\nRUN echo more > /more\n", nextName, nil)
	e.closeAll()
	if err := os.WriteFile(filepath.Join(e.root, "build", "building"), []byte("another boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.open()
	if r := e.build("FROM base\nRUN echo more > /more\n", nextName, nil); r.runs != 1 {
		t.Errorf("%d steps ran, want 1: the cache was trusted", r.runs)
	}
	e.closeAll()
	if _, err := os.Stat(filepath.Join(e.root, "build", "building")); err == nil {
		t.Error("the marker is still there after an orderly end")
	}
}

// BenchmarkCached is the server's side of a build of ten steps that are all cached.
func BenchmarkCached(b *testing.B) {
	e := benchEnv(b)
	d := "FROM base\n" + strings.Repeat("RUN echo x >> /x\n", 10)
	e.build(d, nextName, nil)
	for b.Loop() {
		if r := e.build(d, nextName, nil); r.runs != 0 {
			b.Fatal("not cached")
		}
	}
}

// BenchmarkCold is the same with no cache.
func BenchmarkCold(b *testing.B) {
	e := benchEnv(b)
	d := "FROM base\n" + strings.Repeat("RUN echo x >> /x\n", 10)
	for b.Loop() {
		e.build(d, nextName, map[string]string{"no-cache": ""})
	}
}

func benchEnv(b *testing.B) *env {
	b.Helper()
	e := &env{t: b, root: b.TempDir()}
	e.open()
	b.Cleanup(e.closeAll)
	e.base()
	return e
}

func TestCloseEndsBuilds(t *testing.T) {
	e := newEnv(t)
	e.base()
	tar, err := build.OpenTar(t.Context(), buildtest.Tar(t, buildtest.File{Name: "Dockerfile", Body: "FROM base\nRUN sleep 100\n"}), e.store.Tmp())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tar.Close() }()
	runs := e.launcher.Runs()
	done := make(chan error, 1)
	go func() {
		_, err := e.b.Solve(t.Context(), build.Request{Context: tar}, nil)
		done <- err
	}()
	e.wait(func() bool { return e.launcher.Runs() > runs })
	e.closeAll()
	if err := <-done; !errs.Is(err, errs.Unavailable) {
		t.Errorf("got %v", err)
	}
	e.open()
}

func TestAskingForDiskUsageStartsNothing(t *testing.T) {
	e := newEnv(t)
	if du, err := e.b.DiskUsage(t.Context(), nil); err != nil || len(du) != 0 || e.b.Started() {
		t.Errorf("%v %v, started %v", du, err, e.b.Started())
	}
	e.base()
	e.closeAll()
	e.open()
	if du, err := e.b.DiskUsage(t.Context(), nil); err != nil || len(du) == 0 {
		t.Errorf("after a build and a restart: %v %v", du, err)
	}
}
