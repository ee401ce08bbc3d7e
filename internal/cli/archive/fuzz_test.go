package archive

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// FuzzUnpack extracts what came from a container: nothing is written, and
// nothing changed, outside of the directory.
func FuzzUnpack(f *testing.F) {
	seed := func(hs ...tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range hs {
			_ = w.WriteHeader(&h)
		}
		_ = w.Close()
		f.Add(b.Bytes())
	}
	seed(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../victim"}, tar.Header{Name: "l/x", Typeflag: tar.TypeReg, Mode: 0o777})
	seed(tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700}, tar.Header{Name: "d/h", Typeflag: tar.TypeLink, Linkname: "../../victim"})
	seed(tar.Header{Name: "../x", Typeflag: tar.TypeReg}, tar.Header{Name: "/abs", Typeflag: tar.TypeFifo})
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		dir, victim := filepath.Join(top, "in"), filepath.Join(top, "victim")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := tar.NewReader(bytes.NewReader(data)).Next(); err == nil && r.Size > 1<<20 {
			return
		}
		_ = Unpack(io.LimitReader(bytes.NewReader(data), 1<<20), dir, Renamer("src", "dst"))
		ents, err := os.ReadDir(top)
		body, rerr := os.ReadFile(victim)
		st, serr := os.Stat(victim)
		if err != nil || rerr != nil || serr != nil || len(ents) != 2 || string(body) != "mine" || st.Mode().Perm() != 0o600 {
			t.Errorf("outside: %v, %q, %v", ents, body, st)
		}
	})
}
