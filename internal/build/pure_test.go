package build

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/google/go-cmp/cmp"
	bkexec "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

func TestImageConfig(t *testing.T) {
	layers := []builtLayer{
		{Layer: snapshot.Layer{DiffID: digest.FromString("1")}, Created: time.Unix(10, 0).UnixNano()},
		{Layer: snapshot.Layer{DiffID: digest.FromString("2")}, Created: time.Unix(20, 0).UnixNano(), Description: "RUN x"},
	}
	base := `{"os":"linux","architecture":"amd64","unknown":{"kept":true},"config":{"Env":["A=b"],"OnBuild":["RUN y"]},
		"history":[{"created_by":"ADD"},{"created_by":"ENV","empty_layer":true}]}`
	b, err := imageConfig([]byte(base), layers, time.Unix(99, 0))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ocispec.Image
		Unknown json.RawMessage                 `json:"unknown"`
		Config  struct{ Env, OnBuild []string } `json:"config"`
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if string(got.Unknown) != `{"kept":true}` || len(got.Config.OnBuild) != 1 {
		t.Errorf("members were lost: %s", b)
	}
	if d := cmp.Diff([]digest.Digest{layers[0].DiffID, layers[1].DiffID}, got.RootFS.DiffIDs); d != "" {
		t.Error(d)
	}
	ten, twenty := time.Unix(10, 0).UTC(), time.Unix(20, 0).UTC()
	want := []ocispec.History{
		{Created: &ten, CreatedBy: "ADD"},
		{Created: &twenty, CreatedBy: "ENV", EmptyLayer: true},
		{Created: &twenty, CreatedBy: "RUN x", Comment: "buildkit.exporter.image.v0"},
	}
	if d := cmp.Diff(want, got.History); d != "" {
		t.Error(d)
	}
	if !got.Created.Equal(twenty) {
		t.Errorf("created %v", got.Created)
	}
	if _, err := imageConfig([]byte(`{"os":"linux"}`), nil, time.Now()); !errs.Is(err, errs.Invalid) {
		t.Errorf("no architecture: %v", err)
	}
	if _, err := imageConfig([]byte(`null`), nil, time.Now()); !errs.Is(err, errs.Invalid) {
		t.Errorf("null: %v", err)
	}
	if b, err := imageConfig(nil, nil, time.Unix(7, 0).UTC()); err != nil || !json.Valid(b) {
		t.Errorf("empty: %s %v", b, err)
	}
}

func TestCompleteHistoryWithFewerLayers(t *testing.T) {
	h := completeHistory([]ocispec.History{{CreatedBy: "a"}, {CreatedBy: "b"}}, []builtLayer{{Created: 1}})
	if h[0].EmptyLayer || !h[1].EmptyLayer || h[1].Created == nil {
		t.Errorf("%+v", h)
	}
}

func TestRootfsOf(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []mount.Mount
		want Rootfs
		ok   bool
	}{
		"bind": {[]mount.Mount{{Type: "bind", Source: "/s", Options: []string{"rw", "rbind"}}}, Rootfs{Bind: "/s"}, true},
		"overlay": {
			[]mount.Mount{{Type: "overlay", Options: []string{"workdir=/w", "upperdir=/u", "lowerdir=/a:/b", "index=off", "redirect_dir=off"}}},
			Rootfs{Lower: []string{"/a", "/b"}, Upper: "/u", Work: "/w"},
			true,
		},
		"unknown option": {[]mount.Mount{{Type: "overlay", Options: []string{"lowerdir=/a", "userxattr"}}}, Rootfs{}, false},
		"two":            {make([]mount.Mount, 2), Rootfs{}, false},
		"other type":     {[]mount.Mount{{Type: "tmpfs"}}, Rootfs{}, false},
		"none":           {nil, Rootfs{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := rootfsOf(tc.in)
			if d := cmp.Diff(tc.want, got); d != "" || ok != tc.ok {
				t.Errorf("%v %s", ok, d)
			}
		})
	}
}

// TestStubsOpenNothing has a step that puts a pipe, which blocks who opens it,
// in place of the directory that a mount point was made in.
func TestStubsOpenNothing(t *testing.T) {
	top, lower := t.TempDir(), t.TempDir()
	s, err := newStubs(Rootfs{Upper: top, Lower: []string{lower}}, []bkexec.Mount{{Dest: "/a/b"}, {Dest: "/c/d/e"}}, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(top, "a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(top, "c/d/e"), 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { s.remove(t.Context(), slog.New(slog.DiscardHandler)); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
	if _, err := os.Lstat(filepath.Join(top, "c")); !os.IsNotExist(err) {
		t.Errorf("a stub stays: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(top, "a")); err != nil {
		t.Errorf("the step's own is gone: %v", err)
	}
}

func TestBuiltinSyntax(t *testing.T) {
	for ref, want := range map[string]bool{
		"docker/dockerfile:1": true, "docker/dockerfile": true, "docker.io/docker/dockerfile:1.7": true, "docker/dockerfile:1.7.1": true,
		"docker/dockerfile:1-labs": false, "docker/dockerfile:1@sha256:00": false, "me/dockerfile:1": false, "docker/dockerfile:2": false,
		"example.com/docker/dockerfile:1": false,
	} {
		if builtinSyntax.MatchString(ref) != want {
			t.Errorf("%s: want %v", ref, want)
		}
	}
}

func TestParseNames(t *testing.T) {
	got, err := parseNames("a, b:2,,example.com/c")
	if d := cmp.Diff([]string{"docker.io/library/a:latest", "docker.io/library/b:2", "example.com/c:latest"}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := parseNames("A"); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func TestPermit(t *testing.T) {
	no := &executor{}
	yes := &executor{opt: Options{Insecure: true, HostNetwork: true}}
	for name, m := range map[string]bkexec.Meta{
		"insecure": {SecurityMode: pb.SecurityMode_INSECURE}, "host network": {NetMode: pb.NetMode_HOST},
	} {
		if err := no.permit(m); !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %v", name, err)
		}
		if err := yes.permit(m); err != nil {
			t.Errorf("%s allowed: %v", name, err)
		}
	}
	if err := yes.permit(bkexec.Meta{CDIDevices: []*pb.CDIDevice{{}}}); !errs.Is(err, errs.Unsupported) {
		t.Error(err)
	}
}

func TestHostsFile(t *testing.T) {
	meta := bkexec.Meta{Hostname: "h", ExtraHosts: []bkexec.HostIP{{Host: "x", IP: net.ParseIP("192.0.2.1")}}}
	if got, want := string(hostsFile(nil, meta)), "127.0.0.1\tlocalhost h\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.1\tx\n"; got != want {
		t.Errorf("got %q", got)
	}
	if got, want := string(hostsFile([]byte("a"), meta)), "a\n192.0.2.1\tx\n"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestViewResolvesInsideTheRoot(t *testing.T) {
	low, up := t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(low, "etc/real"), 0o755))
	must(os.WriteFile(filepath.Join(low, "etc/hosts"), nil, 0o600))
	must(os.Symlink("/etc/real", filepath.Join(low, "abs")))
	must(os.Symlink("../../../../etc", filepath.Join(low, "up")))
	must(os.Symlink("loop", filepath.Join(low, "loop")))
	must(os.MkdirAll(filepath.Join(low, "was/dir"), 0o755))
	must(os.WriteFile(filepath.Join(up, "was"), nil, 0o600))
	v, err := openView([]string{up, low})
	must(err)
	defer v.close()
	for name, want := range map[string]struct {
		real   string
		exists bool
	}{
		"/etc/hosts": {"/etc/hosts", true}, "/etc/none/x": {"/etc/none/x", false}, "/abs/x": {"/etc/real/x", false},
		"/up/hosts": {"/etc/hosts", true}, "/../..": {"/", true}, "/was/dir": {"/was/dir", false}, "/was": {"/was", true},
	} {
		real, exists, err := v.resolve(name)
		if err != nil || real != want.real || exists != want.exists {
			t.Errorf("%s: %s %v %v", name, real, exists, err)
		}
	}
	if _, _, err := v.resolve("/loop"); err == nil {
		t.Error("a loop was followed to its end")
	}
}

func TestStubsAreRemoved(t *testing.T) {
	top := t.TempDir()
	outside := filepath.Join(t.TempDir(), "victim")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(outside, nil, 0o600))
	must(os.MkdirAll(filepath.Join(top, "etc"), 0o755))
	s, err := newStubs(Rootfs{Bind: top}, []bkexec.Mount{{Dest: "/m/n"}, {Dest: "/full"}, {Dest: "/link"}}, true)
	must(err)
	old := time.Unix(1000, 0)
	must(os.WriteFile(filepath.Join(top, "etc/hosts"), nil, 0o600))
	must(os.Chtimes(filepath.Join(top, "etc"), old, old))
	must(os.MkdirAll(filepath.Join(top, "m/n"), 0o755))
	must(os.MkdirAll(filepath.Join(top, "full/x"), 0o755))
	must(os.Symlink(outside, filepath.Join(top, "link")))
	s.remove(t.Context(), newTestLog())
	for name, want := range map[string]bool{"etc": true, "etc/hosts": false, "m": false, "full/x": true, "link": true} {
		if _, err := os.Lstat(filepath.Join(top, name)); (err == nil) != want {
			t.Errorf("%s: %v, want existence %v", name, err, want)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error("a file outside of the root was removed")
	}
	if st, err := os.Stat(filepath.Join(top, "etc")); err != nil || !st.ModTime().Equal(old) {
		t.Errorf("the time of /etc has changed: %v %v", st.ModTime(), err)
	}
}

func TestGuard(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "building")
	g, lost, err := newGuard(dir, dir, newTestLog())
	if err != nil || lost {
		t.Fatal(lost, err)
	}
	flushed := 0
	g.flush = func() error { flushed++; return nil }
	exists := func() bool { _, err := os.Stat(file); return err == nil }
	done, err := g.enter()
	if err != nil || !exists() {
		t.Fatal("no marker while a build runs", err)
	}
	g.touch()
	if err := g.rest(); err != nil || !exists() || flushed != 0 {
		t.Error("rested while a build runs", err)
	}
	if err := done(); err != nil || !exists() {
		t.Error("the marker went before the records were synced", err)
	}
	if err := g.close(); err != nil || exists() || flushed != 1 {
		t.Errorf("after the end: marker %v, flushed %d, %v", exists(), flushed, err)
	}
	if err := os.WriteFile(file, []byte("another boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, lost, err = newGuard(dir, dir, newTestLog()); err != nil || !lost {
		t.Errorf("the marker of another boot: lost %v, %v", lost, err)
	}
	if err := os.WriteFile(file, g.boot, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, lost, err = newGuard(dir, dir, newTestLog()); err != nil || lost {
		t.Errorf("the marker of this boot: lost %v, %v", lost, err)
	}
}

func newTestLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
