//go:build root

// Package attack tries, on the real binaries, what broke other container
// engines. A test bears the number of the advisory whose attack it makes;
// docs/security.md says which rule each one holds the engine to.
package attack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/skiff-containers/skiff/test/harness"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(programEnv); name != "" {
		os.Exit(runProgram(name, os.Args[1:]))
	}
	harness.Main(m)
}

// daemon starts a daemon with the busybox image in it.
func daemon(t *testing.T, args ...string) *harness.Daemon {
	t.Helper()
	d := harness.Start(t, args...)
	d.Busybox()
	return d
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// waitLong bounds waits that usually take no time.
const waitLong = 20 * time.Second

// hostDir is a directory of the host's with one file in it, which no container
// may see or change: intact fails when one did.
func hostDir(t *testing.T, d *harness.Daemon) (dir string, intact func()) {
	t.Helper()
	dir = filepath.Join(d.Dir, "hostdir")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(hostSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		t.Helper()
		ents, err := os.ReadDir(dir)
		if err != nil || len(ents) != 1 {
			t.Errorf("the host's directory has %v, %v", ents, err)
		}
		st, err := os.Stat(dir)
		if err != nil || st.Mode().Perm() != 0o711 {
			t.Errorf("the host's directory is %v, %v", st.Mode(), err)
		}
		body, err := os.ReadFile(secret)
		if err != nil || string(body) != hostSecret {
			t.Errorf("the host's file has %q, %v", body, err)
		}
		if st, err = os.Stat(secret); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the host's file is %v, %v", st.Mode(), err)
		}
	}
}

const hostSecret = "the host's secret"

// An entry is one more thing in an image: a directory when its name ends in a
// slash, a link if it has one, else a file; or of type kind.
type entry struct {
	name, link, body string
	kind             byte
	mode             int64
	major, minor     int64
}

// image imports the busybox image with entries added, or put in the place of
// what it has, and instructions for its configuration.
func image(t *testing.T, d *harness.Daemon, name string, entries []entry, changes ...string) {
	t.Helper()
	args := []string{"import", "-c", "ENV PATH=/bin", "-c", `CMD ["sh"]`}
	for _, c := range changes {
		args = append(args, "-c", c)
	}
	d.RunIn(rootfs(t, entries), "docker", append(args, "-", name)...)
}

func rootfs(t *testing.T, entries []entry) string {
	t.Helper()
	return string(tarOf(t, tar.NewReader(strings.NewReader(harness.BusyboxTar(t))), entries))
}

// tarOf is an archive of what is in r, if that is not nil, and the entries,
// which take the place of r's.
func tarOf(t *testing.T, r *tar.Reader, entries []entry) []byte {
	t.Helper()
	replaced := map[string]bool{}
	for _, e := range entries {
		replaced[strings.TrimSuffix(e.name, "/")] = true
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for r != nil {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if replaced[strings.TrimSuffix(h.Name, "/")] {
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Size: int64(len(e.body)), Mode: e.mode, Typeflag: e.kind, Devmajor: e.major, Devminor: e.minor}
		switch {
		case e.kind != 0:
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.link != "":
			h.Typeflag = tar.TypeSymlink
		default:
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// call asks the API itself, as a client that keeps to no rules would.
func call(t testing.TB, d *harness.Daemon, method, path string, body io.Reader, header ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.Sock)
	}}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	out, _ := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return resp.StatusCode, string(out)
}

// compressed is data in the forms that archives come in.
func compressed(t testing.TB, data string) map[string]string {
	t.Helper()
	out := map[string]string{"plain": data}
	for name, open := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	} {
		var b bytes.Buffer
		w, err := open(&b)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, data)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out[name] = b.String()
	}
	for _, tool := range []string{"xz", "bzip2"} {
		cmd := exec.Command(tool, "-c")
		cmd.Stdin = strings.NewReader(data)
		if b, err := cmd.Output(); err == nil {
			out[tool] = string(b)
		}
	}
	return out
}

// dynamic tells whether a program asks for a loader.
func dynamic(t testing.TB, program string) bool {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}
