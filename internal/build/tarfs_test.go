package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	gofs "io/fs"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/layer/layertest"
)

func pack(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		body := ""
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag, body = tar.TypeReg, "body of "+h.Name
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func list(t testing.TB, fs *TarFS) []string {
	t.Helper()
	var out []string
	err := fs.Walk(context.Background(), "", func(p string, d gofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %s", i.Mode(), p)
		if i.Mode().IsRegular() {
			f, err := fs.Open(p)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(f)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", b)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTarFS(t *testing.T) {
	raw := pack(
		t,
		tar.Header{Name: "z/../b/deep/file"},
		tar.Header{Name: "/abs"},
		tar.Header{Name: "../../../escape"},
		tar.Header{Name: "b", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "b.txt", Mode: 0o755, Uid: 1000, ModTime: time.Unix(5, 0)},
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "b.txt"},
		tar.Header{Name: "twice"},
		tar.Header{Name: "twice", Typeflag: tar.TypeDir},
		tar.Header{Name: "./", Typeflag: tar.TypeDir},
	)
	want := []string{
		`-rw-r--r-- abs "body of /abs"`,
		`drwx------ b`,
		`drwxr-xr-x b/deep`,
		`-rw-r--r-- b/deep/file "body of z/../b/deep/file"`,
		`-rwxr-xr-x b.txt "body of b.txt"`,
		`-rw-r--r-- escape "body of ../../../escape"`,
		`-rwxr-xr-x hard "body of b.txt"`,
		`Lrwxrwxrwx link`,
		`drw-r--r-- twice`,
	}
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	_, _ = g.Write(raw)
	_ = g.Close()
	z, _ := zstd.NewWriter(&zst)
	_, _ = z.Write(raw)
	_ = z.Close()
	for name, b := range map[string][]byte{"plain": raw, "gzip": gz.Bytes(), "zstd": zst.Bytes()} {
		t.Run(name, func(t *testing.T) {
			fs, err := OpenTar(t.Context(), bytes.NewReader(b), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = fs.Close() }()
			if d := cmp.Diff(want, list(t, fs)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTarFSRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"device":              pack(t, tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}),
		"link out":            pack(t, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"}),
		"link to a directory": pack(t, tar.Header{Name: "d", Typeflag: tar.TypeDir}, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "d"}),
		"long name":           pack(t, tar.Header{Name: strings.Repeat("a/", maxTarName) + "f"}),
		"no archive":          bytes.Repeat([]byte("x"), 1024),
		"truncated":           pack(t, tar.Header{Name: "f"})[:520],
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := OpenTar(t.Context(), bytes.NewReader(b), t.TempDir()); !errs.Is(err, errs.Invalid) {
				t.Errorf("got %v", err)
			}
		})
	}
	xz := append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, make([]byte, 100)...)
	if _, err := OpenTar(t.Context(), bytes.NewReader(xz), t.TempDir()); !errs.Is(err, errs.Unsupported) {
		t.Errorf("xz: %v", err)
	}
}

func TestTarFSWalk(t *testing.T) {
	fs, err := OpenTar(t.Context(), bytes.NewReader(pack(t, tar.Header{Name: "a/1"}, tar.Header{Name: "a/2"}, tar.Header{Name: "b/3"})), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fs.Close() }()
	var got []string
	if err := fs.Walk(t.Context(), "", func(p string, d gofs.DirEntry, _ error) error {
		got = append(got, p)
		if p == "a" {
			return gofs.SkipDir
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a", "b", "b/3"}, got); d != "" {
		t.Error(d)
	}
	boom := errors.New("boom")
	if err := fs.Walk(t.Context(), "b", func(string, gofs.DirEntry, error) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if _, err := fs.Open("a"); err == nil {
		t.Error("opened a directory")
	}
	if _, err := fs.Open("a/4"); !errors.Is(err, gofs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A few bytes that claim a lot do not fill the disk, nor the time of a client
// that has gone.
func TestTarFSSparse(t *testing.T) {
	if _, err := OpenTar(t.Context(), bytes.NewReader(layertest.Sparse("big", 4<<30)), t.TempDir()); !errs.Is(err, errs.Invalid) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenTar(ctx, bytes.NewReader(layertest.Sparse("big", 1<<30)), t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	fs, err := OpenTar(t.Context(), bytes.NewReader(layertest.Sparse("small", 1<<20)), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fs.Close() }()
	f, err := fs.Open("small")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, f); n != 1<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func FuzzOpenTar(f *testing.F) {
	f.Add(pack(f, tar.Header{Name: "a/b"}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a"}))
	f.Add([]byte{0x1f, 0x8b})
	f.Add([]byte("BZh9"))
	tmp := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		fs, err := OpenTar(t.Context(), bytes.NewReader(b), tmp)
		if err != nil {
			return
		}
		defer func() { _ = fs.Close() }()
		last := ""
		_ = fs.Walk(t.Context(), "", func(p string, _ gofs.DirEntry, _ error) error {
			if path.IsAbs(p) || path.Clean(p) != p || strings.HasPrefix(p, "..") || p == last {
				t.Errorf("name %q after %q", p, last)
			}
			last = p
			return nil
		})
	})
}
