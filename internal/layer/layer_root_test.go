//go:build root

package layer_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/layer"
)

type ent = tar.Header

func archive(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range ents {
		body := strings.Repeat("x", int(h.Size))
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 0)
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	return b.Bytes()
}

func apply(t testing.TB, data []byte) (string, layer.Applied, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "fs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a, err := layer.Apply(t.Context(), dir, bytes.NewReader(data), layer.Limits{Bytes: 1 << 20, Entries: 1000})
	return dir, a, err
}

func names(t *testing.T, data []byte) (out []string) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		s := string(h.Typeflag) + " " + h.Name
		if h.Linkname != "" {
			s += " -> " + h.Linkname
		}
		out = append(out, s)
	}
}

func TestRoundTrip(t *testing.T) {
	in := archive(t,
		ent{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o2750, Uid: 7, Gid: 8},
		ent{Typeflag: tar.TypeReg, Name: "d/f", Size: 3, Mode: 0o4755, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}},
		ent{Typeflag: tar.TypeLink, Name: "d/g", Linkname: "d/f"},
		ent{Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "/etc/passwd"},
		ent{Typeflag: tar.TypeFifo, Name: "d/p"},
		ent{Typeflag: tar.TypeChar, Name: "d/null", Devmajor: 1, Devminor: 3},
		ent{Typeflag: tar.TypeReg, Name: ".wh.gone"},
		ent{Typeflag: tar.TypeDir, Name: "o/"},
		ent{Typeflag: tar.TypeReg, Name: "o/.wh..wh..opq"},
		ent{Typeflag: tar.TypeReg, Name: "a/deep/file", Size: 1},
	)
	dir, did, err := apply(t, in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "a/deep"}, did.Implicit); diff != "" {
		t.Error(diff)
	}
	var first, second bytes.Buffer
	if err := layer.Write(t.Context(), &first, dir); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"5 a/", "5 a/deep/", "0 a/deep/file", "5 d/", "0 d/f", "1 d/g -> d/f", "2 d/l -> /etc/passwd", "3 d/null", "6 d/p",
		"0 .wh.gone", "5 o/", "0 o/.wh..wh..opq",
	}
	if diff := cmp.Diff(want, names(t, first.Bytes())); diff != "" {
		t.Error(diff)
	}
	// An archive of ours, unpacked, gives the same archive: what [Write]
	// promises about digests.
	dir2, _, err := apply(t, first.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := layer.Write(t.Context(), &second, dir2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the archive of an unpacked archive differs")
	}
	st, err := os.Stat(dir + "/d/f")
	if err != nil || st.Mode()&os.ModeSetuid == 0 || st.ModTime().Unix() != 1e9 {
		t.Errorf("%v %v", st, err)
	}
}

func TestWhiteoutsMeetEntries(t *testing.T) {
	opaque := func(p string) bool {
		var b [1]byte
		n, err := unix.Lgetxattr(p, "trusted.overlay.opaque", b[:])
		return err == nil && n == 1 && b[0] == 'y'
	}
	for name, tc := range map[string][]ent{
		"whiteout first":  {{Typeflag: tar.TypeReg, Name: ".wh.d"}, {Typeflag: tar.TypeDir, Name: "d/"}, {Typeflag: tar.TypeReg, Name: "d/f"}},
		"whiteout last":   {{Typeflag: tar.TypeDir, Name: "d/"}, {Typeflag: tar.TypeReg, Name: "d/f"}, {Typeflag: tar.TypeReg, Name: ".wh.d"}},
		"implicit parent": {{Typeflag: tar.TypeReg, Name: ".wh.d"}, {Typeflag: tar.TypeReg, Name: "d/f"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, err := apply(t, archive(t, tc...))
			if err != nil {
				t.Fatal(err)
			}
			if !opaque(dir + "/d") {
				t.Error("the directory shows what the whiteout removed")
			}
			if _, err := os.Stat(dir + "/d/f"); err != nil {
				t.Error(err)
			}
		})
	}
}

// Attacks seen in CVE-2014-9356, CVE-2021-41091 and their kin.
func TestArchivesCannotLeave(t *testing.T) {
	outside := t.TempDir()
	for name, tc := range map[string][]ent{
		"dot dot":             {{Typeflag: tar.TypeReg, Name: "../../../../../../../" + outside + "/x", Size: 1}},
		"absolute":            {{Typeflag: tar.TypeReg, Name: outside + "/x", Size: 1}},
		"through a link":      {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "l/x", Size: 1}},
		"over a link":         {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside + "/x"}, {Typeflag: tar.TypeReg, Name: "l", Size: 1}},
		"hard link out":       {{Typeflag: tar.TypeLink, Name: "h", Linkname: "/../../etc/passwd"}},
		"whiteout of root":    {{Typeflag: tar.TypeReg, Name: ".wh.."}},
		"whiteout of parent":  {{Typeflag: tar.TypeReg, Name: "d/.wh..."}},
		"directory over link": {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, {Typeflag: tar.TypeDir, Name: "l/"}, {Typeflag: tar.TypeReg, Name: "l/x", Size: 1}},
		"redirect attribute": {{Typeflag: tar.TypeDir, Name: "d/", PAXRecords: map[string]string{
			"SCHILY.xattr.trusted.overlay.redirect": "/etc",
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, _ := apply(t, archive(t, tc...))
			if ents, _ := os.ReadDir(outside); len(ents) != 0 {
				t.Errorf("wrote outside: %v", ents)
			}
			if n, err := unix.Lgetxattr(dir+"/d", "trusted.overlay.redirect", nil); err == nil {
				t.Errorf("overlayfs's own attribute set: %d bytes", n)
			}
			if st, err := os.Lstat(dir + "/h"); err == nil {
				t.Errorf("linked %v", st)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	if _, _, err := apply(t, archive(t, ent{Typeflag: tar.TypeReg, Name: "f", Size: 2 << 20})); !errs.Is(err, errs.Invalid) {
		t.Errorf("too many bytes: %v", err)
	}
	many := make([]ent, 1001)
	for i := range many {
		many[i] = ent{Typeflag: tar.TypeDir, Name: "d/"}
	}
	if _, _, err := apply(t, archive(t, many...)); !errs.Is(err, errs.Invalid) {
		t.Errorf("too many entries: %v", err)
	}
	if _, _, err := apply(t, []byte(strings.Repeat("garbage!", 200))); err == nil {
		t.Error("garbage accepted")
	}
}

func TestInherit(t *testing.T) {
	low := t.TempDir()
	if err := os.MkdirAll(low+"/a/deep", 0o700); err != nil {
		t.Fatal(err)
	}
	_ = os.Chown(low+"/a", 3, 4)
	dir, did, err := apply(t, archive(t, ent{Typeflag: tar.TypeReg, Name: "a/deep/f"}, ent{Typeflag: tar.TypeReg, Name: "b/f"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := layer.Inherit(dir, did.Implicit, []string{t.TempDir(), low}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir+"/a", &st); err != nil || st.Uid != 3 || st.Gid != 4 || st.Mode&0o777 != 0o700 {
		t.Errorf("%+v %v", st, err)
	}
}

func FuzzApply(f *testing.F) {
	f.Add(archive(f, ent{Typeflag: tar.TypeDir, Name: "d/"}, ent{Typeflag: tar.TypeReg, Name: "d/.wh.x"}, ent{Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "../.."}, ent{Typeflag: tar.TypeReg, Name: "d/l/x", Size: 3}))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		dir := top + "/fs"
		_ = os.Mkdir(dir, 0o755)
		_, err := layer.Apply(t.Context(), dir, bytes.NewReader(data), layer.Limits{Bytes: 1 << 20, Entries: 100})
		if ents, _ := os.ReadDir(top); len(ents) != 1 {
			t.Fatalf("wrote outside: %v", ents)
		}
		if err == nil {
			_ = layer.Write(t.Context(), io.Discard, dir)
		}
	})
}
