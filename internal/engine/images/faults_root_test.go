//go:build root

package images_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/registryd"
	"github.com/skiff-containers/skiff/internal/registryd/registrytest"
)

// behind puts a registry behind a handler that may spoil its answers.
func behind(t *testing.T, reg string, spoil func(w http.ResponseWriter, r *http.Request, next http.Handler)) string {
	t.Helper()
	u := &url.URL{Scheme: "http", Host: reg}
	proxy := httputil.NewSingleHostReverseProxy(u)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { spoil(w, r, proxy) }))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// pushed puts an image with one layer of some size into a registry.
func pushed(t *testing.T, reg string) {
	t.Helper()
	e := start(t, "")
	var b strings.Builder
	for i := range 200_000 {
		b.WriteByte(byte(i*i>>3) ^ byte(i>>7))
	}
	e.importImage(reg+"/app", map[string]string{"f": b.String()})
	e.push(reg + "/app")
}

// blobWriter changes what a blob's answer holds.
type blobWriter struct {
	http.ResponseWriter
	n       int
	corrupt bool // flip a byte
	stop    int  // break off after so many bytes; 0 never
}

func (w *blobWriter) Write(p []byte) (int, error) {
	if !isBig(w.Header()) {
		return w.ResponseWriter.Write(p)
	}
	if w.corrupt && w.n == 0 && len(p) > 100 {
		p = append([]byte(nil), p...)
		p[len(p)-1] ^= 0xff
	}
	if w.stop > 0 && w.n+len(p) > w.stop {
		_, _ = w.ResponseWriter.Write(p[:w.stop-w.n])
		panic(http.ErrAbortHandler)
	}
	w.n += len(p)
	return w.ResponseWriter.Write(p)
}

func isBig(h http.Header) bool { return len(h.Get("Content-Length")) >= 5 }

func TestCorruptLayer(t *testing.T) {
	reg := registrytest.Start(t)
	pushed(t, reg)
	bad := behind(t, reg, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&blobWriter{ResponseWriter: w, corrupt: true}, r)
	})
	e := start(t, "")
	_, err := e.pull(bad + "/app")
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "filesystem layer verification failed for digest sha256:") {
		t.Errorf("got %v", err)
	}
	e.empty()
}

func TestRegistryThatStopsHalfWay(t *testing.T) {
	reg := registrytest.Start(t)
	pushed(t, reg)
	var tries atomic.Int32
	bad := behind(t, reg, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		bw := &blobWriter{ResponseWriter: w}
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
			bw.stop = 20_000
			if r.Header.Get("Range") != "" && tries.Add(1) > 0 {
				bw.stop = 1 // no progress any more
			}
		}
		next.ServeHTTP(bw, r)
	})
	e := start(t, "")
	if _, err := e.pull(bad + "/app"); err == nil {
		t.Error("pulled from a registry that stops half way")
	} else if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "broke off in the middle") {
		t.Errorf("got %v", err)
	}
	e.empty()

	// One that stops once is asked for the rest.
	tries.Store(0)
	flaky := behind(t, reg, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		bw := &blobWriter{ResponseWriter: w}
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet && r.Header.Get("Range") == "" {
			bw.stop = 20_000
		}
		next.ServeHTTP(bw, r)
	})
	if _, err := e.pull(flaky + "/app"); err != nil {
		t.Errorf("a connection that broke once: %v", err)
	}
}

func TestPlatforms(t *testing.T) {
	reg := registrytest.Start(t)
	e := start(t, "")
	arm := &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	if _, err := e.Import(e.ctx, rootfs(t, map[string]string{"f": "arm"}), images.ImportOptions{Ref: reg + "/arm", Platform: arm}, progress.Discard); err != nil {
		t.Fatal(err)
	}
	e.push(reg + "/arm")
	e.remove(reg + "/arm")
	err := e.Pull(e.ctx, images.PullOptions{Ref: reg + "/arm", Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, progress.Discard)
	if !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "does not match the specified platform: wanted linux/s390x, actual: linux/arm64") {
		t.Errorf("got %v", err)
	}
	e.empty()
	if err := e.Pull(e.ctx, images.PullOptions{Ref: reg + "/arm", Platform: arm}, progress.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Resolve(e.ctx, reg+"/arm", &ocispec.Platform{OS: "linux", Architecture: "amd64"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestRegistryAuthentication(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte("me:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reg := registrytest.Start(t, func(o *registryd.Options) { o.Htpasswd = file })
	e := start(t, "")
	good := &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: reg}
	bad := &registry.AuthConfig{Username: "me", Password: "wrong", ServerAddress: reg}
	if r, err := e.Login(e.ctx, good); err != nil || r.Status != "Login Succeeded" {
		t.Errorf("login: %v %v", r, err)
	}
	if _, err := e.Login(e.ctx, bad); !errs.Is(err, errs.Unauthorized) {
		t.Errorf("bad login: %v", err)
	}
	e.importImage(reg+"/app", map[string]string{"f": "a"})
	for _, tc := range []struct {
		a          *registry.AuthConfig
		push, pull string
	}{
		{nil, "no basic auth credentials", `Head "https://` + reg + `/v2/app/manifests/latest": no basic auth credentials`},
		{bad, "unauthorized: authentication required", "pull access denied for " + reg + "/app, repository does not exist or may require 'docker login': unauthorized: authentication required"},
	} {
		if err := e.Push(e.ctx, images.PushOptions{Ref: reg + "/app", Auth: tc.a}, progress.Discard); err == nil || err.Error() != tc.push || !errs.Is(err, errs.Unauthorized) {
			t.Errorf("push: got  %v\nwant %s", err, tc.push)
		}
		if err := e.Pull(e.ctx, images.PullOptions{Ref: reg + "/app", Auth: tc.a}, progress.Discard); err == nil || err.Error() != tc.pull {
			t.Errorf("pull: got  %v\nwant %s", err, tc.pull)
		}
	}
	if err := e.Push(e.ctx, images.PushOptions{Ref: reg + "/app", Auth: good}, progress.Discard); err != nil {
		t.Error(err)
	}
	if err := e.Pull(e.ctx, images.PullOptions{Ref: reg + "/app", Auth: good, All: true}, progress.Discard); err != nil {
		t.Error(err)
	}
}

func TestUnknownAtTheRegistry(t *testing.T) {
	reg := registrytest.Start(t)
	pushed(t, reg)
	e := start(t, "")
	_, err := e.pull(reg + "/app:nope")
	if want := "manifest for " + reg + "/app:nope not found: manifest unknown: manifest unknown"; err == nil || err.Error() != want || !errs.Is(err, errs.NotFound) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	d, err := e.Distribution(e.ctx, reg+"/app", nil)
	if err != nil || len(d.Platforms) != 1 || d.Platforms[0].OS != "linux" {
		t.Errorf("%+v %v", d, err)
	}
	found, err := e.Search(e.ctx, reg+"/ap", 10, nil, nil)
	if err != nil || len(found) != 1 || found[0].Name != reg+"/app" {
		t.Errorf("%+v %v", found, err)
	}
	e.empty()
}

func TestDiskFull(t *testing.T) {
	reg := registrytest.Start(t)
	pushed(t, reg)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=400k"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	e := start(t, root)
	_, err := e.pull(reg + "/app")
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v", err)
	}
	e.empty()
}
