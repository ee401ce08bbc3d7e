package buildctx

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// list returns the files of a context's archive, without directories.
func list(t *testing.T, c *Context) map[string]string {
	t.Helper()
	out := map[string]string{}
	tr := tar.NewReader(c.Tar)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s belongs to %d %d %q", h.Name, h.Uid, h.Gid, h.Uname)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(h.Name, "./")] = string(b)
	}
}

func keys(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func TestIgnore(t *testing.T) {
	files := map[string]string{
		"Dockerfile": "FROM x", "a.txt": "", "b.log": "", "d/c.log": "", "d/keep.log": "", "d/x": "", "node_modules/m/i.js": "",
		"node_modules/keep/me": "", ".git/config": "", "deep/a/b/c": "", "deep/a/b/keep": "",
	}
	for _, c := range []struct {
		name, ignore string
		want         []string
	}{
		{"nothing", "", []string{".git/config", "Dockerfile", "a.txt", "b.log", "d/c.log", "d/keep.log", "d/x", "deep/a/b/c", "deep/a/b/keep", "node_modules/keep/me", "node_modules/m/i.js"}},
		{"patterns", "**/*.log\n!d/keep.log\nnode_modules\n.git\n# comment\ndeep", []string{".dockerignore", "Dockerfile", "a.txt", "d/keep.log", "d/x"}},
		{"everything but", "*\n!a.txt\n!deep/a/b/keep", []string{".dockerignore", "Dockerfile", "a.txt", "deep/a/b/keep"}},
		{"wildcard exception", "node_modules\n!**/me\nd\ndeep\n.git", []string{".dockerignore", "Dockerfile", "a.txt", "b.log", "node_modules/keep/me"}},
		{"the Dockerfile itself", "Dockerfile\n.dockerignore\nd\ndeep\nnode_modules\n.git\n*.log", []string{".dockerignore", "Dockerfile", "a.txt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, files)
			if c.ignore != "" {
				write(t, dir, map[string]string{".dockerignore": c.ignore})
			}
			ctx, err := Open(dir, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, keys(list(t, ctx))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDockerfilePlaces(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	write(t, dir, map[string]string{"Dockerfile": "FROM a", "sub/My.Dockerfile": "FROM b", "sub/My.Dockerfile.dockerignore": "x", "x": "", "y": "", ".dockerignore": "y\nsub"})
	write(t, other, map[string]string{"D": "FROM c"})
	open := func(file string, stdin string) (*Context, map[string]string) {
		t.Helper()
		c, err := Open(dir, file, strings.NewReader(stdin))
		if err != nil {
			t.Fatal(err)
		}
		return c, list(t, c)
	}
	c, m := open("", "")
	if c.Dockerfile != "Dockerfile" || m["Dockerfile"] != "FROM a" {
		t.Error(c.Dockerfile, m)
	}
	c, m = open(filepath.Join(dir, "sub", "My.Dockerfile"), "")
	if _, has := m["x"]; c.Dockerfile != "sub/My.Dockerfile" || m[c.Dockerfile] != "FROM b" || has {
		t.Error("its own .dockerignore should count", c.Dockerfile, keys(m))
	}
	for _, f := range []string{filepath.Join(other, "D"), "-"} {
		c, m = open(f, "FROM c")
		if !strings.HasPrefix(c.Dockerfile, ".dockerfile.") || m[c.Dockerfile] != "FROM c" {
			t.Error(f, c.Dockerfile, keys(m))
		}
		if !strings.Contains(m[".dockerignore"], "y\nsub\n"+c.Dockerfile) {
			t.Errorf("%q", m[".dockerignore"])
		}
	}
	// A Dockerfile in a directory that is left out.
	write(t, dir, map[string]string{"sub/D2": "FROM d"})
	c, m = open(filepath.Join(dir, "sub", "D2"), "")
	if m["sub/D2"] != "FROM d" {
		t.Error(c.Dockerfile, keys(m))
	}
	for _, bad := range []struct{ spec, file, want string }{
		{dir, filepath.Join(dir, "nope"), "failed to read dockerfile"},
		{dir, dir, "is a directory"},
		{filepath.Join(dir, "nope"), "", "not found"},
		{filepath.Join(dir, "x"), "", "context must be a directory"},
		{"-", "-", "can't use stdin for both"},
		{"https://example.com/x.git", "-", "needs a local build context"},
	} {
		if _, err := Open(bad.spec, bad.file, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestStreams(t *testing.T) {
	c, err := Open("-", "", strings.NewReader("FROM scratch\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"Dockerfile": "FROM scratch\n"}, list(t, c)); diff != "" {
		t.Error(diff)
	}
	if _, err := Open("-", "f", strings.NewReader("FROM scratch\n")); err == nil {
		t.Error("two Dockerfiles and no error")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "D", Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	whole := b.String()
	c, err = Open("-", "D", strings.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c.Tar)
	if err != nil || string(got) != whole || c.Dockerfile != "D" {
		t.Errorf("%v %d %s", err, len(got), c.Dockerfile)
	}
	if !IsArchive([]byte("\x1f\x8b\x08")) || IsArchive([]byte("FROM x")) {
		t.Error("isArchive")
	}
}

func TestRemote(t *testing.T) {
	for _, s := range []string{"https://x/y.git#main:sub", "git@github.com:a/b.git", "git://x/y", "github.com/a/b", "http://x/Dockerfile"} {
		c, err := Open(s, "", nil)
		if err != nil || c.Remote != s || c.Tar != nil {
			t.Errorf("%s: %+v %v", s, c, err)
		}
	}
}
