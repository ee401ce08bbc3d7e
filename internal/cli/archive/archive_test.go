package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// makeTree makes "name" = text files, "name/" directories and "name -> target"
// links.
func makeTree(t *testing.T, dir string, entries ...string) {
	t.Helper()
	for _, e := range entries {
		var err error
		if name, target, ok := strings.Cut(e, " -> "); ok {
			err = os.Symlink(target, filepath.Join(dir, name))
		} else if strings.HasSuffix(e, "/") {
			err = os.MkdirAll(filepath.Join(dir, e), 0o755)
		} else {
			p := filepath.Join(dir, e)
			if err = os.MkdirAll(filepath.Dir(p), 0o755); err == nil {
				err = os.WriteFile(p, []byte(e), 0o640)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func names(t *testing.T, r io.Reader) []string {
	t.Helper()
	var out []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		s := h.Name
		switch h.Typeflag {
		case tar.TypeSymlink:
			s += " -> " + h.Linkname
		case tar.TypeLink:
			s += " = " + h.Linkname
		}
		out = append(out, s)
	}
}

func TestPackUnpack(t *testing.T) {
	src := t.TempDir()
	makeTree(t, src, "a", "d/b", "d/e/", "l -> d", "out -> /etc")
	if err := os.Link(filepath.Join(src, "a"), filepath.Join(src, "d", "hard")); err != nil {
		t.Fatal(err)
	}
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(src, "d"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(src, "d"), 0o711); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	p := NewPacker(&b)
	if err := p.AddTree(src, "top"); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"top/", "top/a", "top/d/", "top/d/b", "top/d/e/", "top/d/hard = top/a", "top/l -> d", "top/out -> /etc"}
	if diff := cmp.Diff(want, names(t, bytes.NewReader(b.Bytes()))); diff != "" {
		t.Error(diff)
	}
	dst := t.TempDir()
	if err := Unpack(&b, dst, Renamer("top", "new")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dst, "new", "d", "hard"))
	if err != nil || string(text) != "a" {
		t.Errorf("%q %v", text, err)
	}
	st, err := os.Stat(filepath.Join(dst, "new", "d"))
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o711 || !st.ModTime().Equal(old) {
		t.Errorf("directory has %v %v", st.Mode(), st.ModTime())
	}
}

// TestUnpackStaysInside feeds archives that try to leave the directory.
func TestUnpackStaysInside(t *testing.T) {
	file := func(name string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 1, Mode: 0o644}
	}
	link := func(name, target string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
	}
	outside := t.TempDir()
	for name, entries := range map[string][]*tar.Header{
		"dots":            {file("../evil")},
		"dots within":     {file("a/../../evil")},
		"absolute link":   {link("l", outside), file("l/evil")},
		"relative link":   {link("l", "../../../../../../../../"+outside), file("l/evil")},
		"link to a link":  {link("a", ".."), link("b", "a"), file("b/evil")},
		"hard link":       {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../etc/passwd"}},
		"hard by symlink": {link("l", "/etc"), {Name: "h", Typeflag: tar.TypeLink, Linkname: "l/passwd"}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range entries {
				if err := w.WriteHeader(h); err != nil {
					t.Fatal(err)
				}
				if h.Size > 0 {
					_, _ = w.Write([]byte("x"))
				}
			}
			_ = w.Close()
			dir := t.TempDir()
			inner := filepath.Join(dir, "inner")
			if err := os.Mkdir(inner, 0o755); err != nil {
				t.Fatal(err)
			}
			err := Unpack(&b, inner, nil)
			if err == nil {
				t.Error("no error")
			}
			for _, p := range []string{filepath.Join(dir, "evil"), filepath.Join(outside, "evil")} {
				if _, err := os.Lstat(p); err == nil {
					t.Errorf("%s was written", p)
				}
			}
			_ = filepath.WalkDir(inner, func(p string, d fs.DirEntry, _ error) error {
				if d.Type().IsRegular() && d.Name() == "h" {
					t.Errorf("%s is linked", p)
				}
				return nil
			})
		})
	}
}

func TestUnpackReplaces(t *testing.T) {
	for _, c := range []struct {
		have, kind string
		fails      string
	}{
		{"x", "file", ""},
		{"x -> /etc/passwd", "file", ""},
		{"x/", "file", "cannot overwrite directory with non-directory"},
		{"x", "dir", "cannot overwrite non-directory with directory"},
		{"x/", "dir", ""},
		{"x -> /tmp", "dir", "cannot overwrite non-directory"},
	} {
		dir := t.TempDir()
		makeTree(t, dir, c.have)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h := &tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o600}
		if c.kind == "dir" {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		err := Unpack(&b, dir, nil)
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s over %s: %v", c.kind, c.have, err)
		}
	}
}

func TestRebase(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "old/", Typeflag: tar.TypeDir}, {Name: "old/f", Typeflag: tar.TypeReg}, {Name: "old/h", Typeflag: tar.TypeLink, Linkname: "old/f"}, {Name: "older", Typeflag: tar.TypeReg},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	got := names(t, Rebase(&b, Renamer("old", "new")))
	if diff := cmp.Diff([]string{"new/", "new/f", "new/h = new/f", "older"}, got); diff != "" {
		t.Error(diff)
	}
	if got := Renamer(".", "n")("a/b"); got != "n/a/b" {
		t.Error(got)
	}
}
