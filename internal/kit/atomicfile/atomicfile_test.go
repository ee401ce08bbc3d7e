package atomicfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/internal/kit/atomicfile"
)

func TestWriteReplaces(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	for _, durable := range []bool{false, true} {
		for _, text := range []string{"one", "a longer two", ""} {
			if err := atomicfile.Write(p, []byte(text), 0o640, durable); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(p)
			if err != nil || string(got) != text {
				t.Fatalf("read %q, %v; want %q", got, err, text)
			}
		}
	}
	ents, _ := os.ReadDir(filepath.Dir(p))
	if len(ents) != 1 {
		t.Errorf("temporary files left: %v", ents)
	}
	if st, _ := os.Stat(p); st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestWriteFailsCleanly(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "sub")
	if err := os.MkdirAll(filepath.Join(p, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(p, []byte("x"), 0o600, false); err == nil {
		t.Error("replaced a directory")
	}
	if ents, _ := os.ReadDir(dir); len(ents) != 1 {
		t.Errorf("temporary files left: %v", ents)
	}
}
