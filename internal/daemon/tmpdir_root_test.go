//go:build root

package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A mount that a killed daemon left is taken away; what it showed stays.
func TestOwnTmp(t *testing.T) {
	t.Setenv("TMPDIR", os.TempDir()) // restored afterwards
	root := t.TempDir()
	layer, at := filepath.Join(root, "layer"), filepath.Join(root, "tmp", "buildkit-mount1")
	for _, d := range []string{layer, at} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(layer, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(layer, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
	if err := ownTmp(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(at); !os.IsNotExist(err) {
		t.Errorf("%s: %v", at, err)
	}
	if got, want := os.Getenv("TMPDIR"), filepath.Join(root, "tmp"); got != want {
		t.Errorf("TMPDIR=%s, want %s", got, want)
	}
}
