//go:build root

package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

func withRegistry(t *testing.T, args ...string) (*harness.Daemon, string) {
	t.Helper()
	addr := "127.0.0.1:" + freePort(t)
	d := daemon(t, append([]string{"--registry", addr}, args...)...)
	return d, addr
}

func TestRegistryRoundTrip(t *testing.T) {
	d, reg := withRegistry(t)
	id := d.Run("docker", "inspect", "-f", "{{.Id}}", "busybox")
	ref := reg + "/team/app:1.2"
	d.Run("docker", "tag", "busybox", ref)
	out := d.Run("docker", "push", ref)
	if !strings.Contains(out, "1.2: digest: sha256:") {
		t.Errorf("push: %s", out)
	}
	d.Run("docker", "rmi", ref, "busybox")
	want(t, "images", d.Run("docker", "images", "-q"), "")
	out = d.Run("docker", "pull", ref)
	if !strings.Contains(out, "Status: Downloaded newer image for "+ref) {
		t.Errorf("pull: %s", out)
	}
	want(t, "same id", d.Run("docker", "inspect", "-f", "{{.Id}}", ref), id)
	want(t, "runs", d.Run("docker", "run", "--rm", ref, "echo", "hi"), "hi")
	digest := d.Run("docker", "inspect", "-f", "{{index .RepoDigests 0}}", ref)
	d.Run("docker", "pull", digest)
	if out := d.Run("docker", "pull", ref); !strings.Contains(out, "Image is up to date") {
		t.Errorf("second pull: %s", out)
	}
	if out := d.Run("docker", "push", ref); !strings.Contains(out, "Layer already exists") {
		t.Errorf("second push: %s", out)
	}
	r := d.Try("", "docker", "pull", reg+"/team/app:nope")
	if r.Code == 0 || !strings.Contains(r.Stderr, "manifest unknown") {
		t.Errorf("unknown tag: %s", r.Stderr)
	}
	r = d.Try("", "docker", "run", "--rm", reg+"/no/such", "true")
	if r.Code != 125 {
		t.Errorf("unknown image: %d %s", r.Code, r.Stderr)
	}
}

func TestTagsSaveLoad(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "inspect", "-f", "{{.Id}}", "busybox")
	d.Run("docker", "tag", "busybox", "other:1")
	want(t, "list", d.Run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "other"), "other:1")
	d.Run("docker", "save", "-o", "both.tar", "busybox", "other:1")
	if out := d.Run("docker", "rmi", "other:1"); out != "Untagged: other:1" {
		t.Errorf("rmi of one of two tags: %s", out)
	}
	if out := d.Run("docker", "rmi", "busybox"); !strings.Contains(out, "Deleted: "+id) {
		t.Errorf("rmi of the last: %s", out)
	}
	if out := d.Run("docker", "load", "-i", "both.tar"); !strings.Contains(out, "Loaded image: busybox:latest") || !strings.Contains(out, "Loaded image: other:1") {
		t.Errorf("load: %s", out)
	}
	want(t, "same id", d.Run("docker", "inspect", "-f", "{{.Id}}", "other:1"), id)
	want(t, "runs", d.Run("docker", "run", "--rm", "other:1", "echo", "hi"), "hi")
	c := d.Run("docker", "create", "busybox", "true")
	d.Run("docker", "rmi", "other:1")
	if r := d.Try("", "docker", "rmi", "busybox"); r.Code == 0 || !strings.Contains(r.Stderr, "conflict: unable to remove repository reference") {
		t.Errorf("rmi of a used image: %s", r.Stderr)
	}
	d.Run("docker", "rmi", "-f", "busybox")
	d.Run("docker", "start", c)
	want(t, "a container outlives its image", d.Run("docker", "wait", c), "0")
	d.Run("docker", "rm", c)
	harness.Eventually(t, 10*time.Second, func() string {
		if n := storedIn(d.DataRoot); n > 1<<20 {
			return fmt.Sprintf("%d bytes are left of a removed image", n)
		}
		return ""
	})
	for _, tc := range []struct{ args, want string }{
		{"tag nosuch x", "No such image: nosuch:latest"},
		{"rmi nosuch", "No such image: nosuch:latest"},
		{"tag nosuch BAD", "invalid reference format"},
		{"run --rm UPPER true", "invalid reference format"},
	} {
		r := d.Try("", "docker", strings.Fields(tc.args)...)
		if r.Code == 0 || !strings.Contains(strings.ToLower(r.Stderr), strings.ToLower(tc.want)) {
			t.Errorf("%s: %d %s", tc.args, r.Code, r.Stderr)
		}
	}
}

// A registry between the daemon and the real one that spoils what it is told to.
func TestBrokenRegistries(t *testing.T) {
	d, reg := withRegistry(t)
	d.Run("docker", "tag", "busybox", reg+"/app:1")
	d.Run("docker", "push", reg+"/app:1")
	d.Run("docker", "rmi", reg+"/app:1", "busybox")
	base := storedIn(d.DataRoot)

	var mode atomic.Value
	mode.Store("")
	target, _ := url.Parse("http://" + reg)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	proxy.ModifyResponse = func(r *http.Response) error {
		blob := strings.Contains(r.Request.URL.Path, "/blobs/") && r.Request.Method == http.MethodGet && r.ContentLength > 10000
		switch {
		case blob && mode.Load() == "corrupt":
			r.Body = &spoiled{r.Body}
		case blob && mode.Load() == "cut":
			mode.Store("dead")
			r.Body = &cut{r.Body, 5000}
		case mode.Load() == "dead":
			return errors.New("the registry has stopped")
		}
		return nil
	}
	srv := httptest.NewServer(proxy)
	defer srv.Close()
	bad := strings.TrimPrefix(srv.URL, "http://")
	for _, m := range []string{"cut", "corrupt"} {
		mode.Store(m)
		text := map[string]string{"corrupt": "digest", "cut": ""}[m]
		r := d.Try("", "docker", "pull", bad+"/app:1")
		if r.Code == 0 || !strings.Contains(r.Stderr, text) {
			t.Errorf("%s: %d %q %q", m, r.Code, r.Stdout, r.Stderr)
		}
		want(t, m+": images", d.Run("docker", "images", "-q"), "")
	}
	harness.Eventually(t, 10*time.Second, func() string {
		if now := storedIn(d.DataRoot); now > base+64<<10 {
			return fmt.Sprintf("%d bytes stored, %d before", now, base)
		}
		return ""
	})
	mode.Store("")
	d.Run("docker", "pull", bad+"/app:1")
	want(t, "runs at last", d.Run("docker", "run", "--rm", bad+"/app:1", "echo", "hi"), "hi")
	r := d.Try("", "docker", "pull", "127.0.0.1:1/x")
	if r.Code == 0 || !strings.Contains(r.Stderr, "connection refused") {
		t.Errorf("nobody there: %s", r.Stderr)
	}
}

type spoiled struct {
	rc interface {
		Read([]byte) (int, error)
		Close() error
	}
}

func (s *spoiled) Read(p []byte) (int, error) {
	n, err := s.rc.Read(p)
	if n > 100 {
		p[n/2] ^= 0xff
	}
	return n, err
}
func (s *spoiled) Close() error { return s.rc.Close() }

type cut struct {
	rc interface {
		Read([]byte) (int, error)
		Close() error
	}
	left int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("cut off")
	}
	if len(p) > c.left {
		p = p[:c.left]
	}
	n, err := c.rc.Read(p)
	c.left -= n
	return n, err
}
func (c *cut) Close() error { return c.rc.Close() }

// storedIn counts the bytes below a data root, without the registry's own and
// the databases.
func storedIn(root string) int64 {
	var n int64
	_ = filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files come and go meanwhile
		}
		if e.IsDir() && p == filepath.Join(root, "registry") {
			return filepath.SkipDir
		}
		if i, err := e.Info(); err == nil && i.Mode().IsRegular() && !strings.HasSuffix(p, ".db") {
			n += i.Size()
		}
		return nil
	})
	return n
}

func TestDiskFull(t *testing.T) {
	d, reg := withRegistry(t)
	big := filepath.Join(d.Dir, "ctx")
	if err := os.MkdirAll(big, 0o755); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 0, 40<<20)
	for sum := sha256.Sum256([]byte("seed")); len(noise) < 40<<20; sum = sha256.Sum256(sum[:]) {
		noise = append(noise, sum[:]...)
	}
	if err := os.WriteFile(filepath.Join(big, "noise"), noise, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Run("tar", "-C", "ctx", "-cf", "big.tar", ".")
	d.Run("docker", "import", "big.tar", reg+"/big:1")
	d.Run("docker", "push", reg+"/big:1")
	small := filepath.Join(d.Dir, "small")
	d.Run("mkdir", small)
	d.Run("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", small)
	defer func() { d.Run("umount", small) }()
	func() {
		s := harness.StartIn(t, small)
		defer s.Finish()
		r := s.Try("", "docker", "pull", reg+"/big:1")
		if r.Code == 0 || !strings.Contains(r.Stderr, "no space left on device") {
			t.Errorf("%d %s", r.Code, r.Stderr)
		}
		want(t, "images", s.Run("docker", "images", "-q"), "")
		harness.Eventually(t, 10*time.Second, func() string {
			if n := storedIn(s.DataRoot); n > 8<<20 {
				return fmt.Sprintf("%d bytes are left behind", n)
			}
			return ""
		})
	}()
}

func TestInspectIsTrue(t *testing.T) {
	d := daemon(t)
	var got []struct {
		Id       string //nolint:revive // the API's name
		RepoTags []string
		Os       string
		Size     int64
		RootFS   struct{ Layers []string }
		Config   struct{ Cmd []string }
	}
	if err := json.Unmarshal([]byte(d.Run("docker", "inspect", "busybox")), &got); err != nil {
		t.Fatal(err)
	}
	i := got[0]
	if i.Os != "linux" || len(i.RootFS.Layers) != 1 || i.Size < 1<<20 || fmt.Sprint(i.RepoTags, i.Config.Cmd) != "[busybox:latest] [sh]" {
		t.Errorf("%+v", i)
	}
	if h := d.Run("docker", "history", "--format", "{{.Size}}", "busybox"); h == "" || h == "0B" {
		t.Errorf("history: %q", h)
	}
}
