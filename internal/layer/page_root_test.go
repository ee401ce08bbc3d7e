//go:build root

package layer

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// TestMountByPage takes the way that only kernels before 6.7 need.
func TestMountByPage(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a,b:c", "l2", "up", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a,b:c/f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	in := func(d string) string { return filepath.Join(dir, d) }
	fd, err := mountByPage(&runtime.Rootfs{Lower: []string{in("a,b:c"), in("l2")}, Upper: in("up"), Work: in("work")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstatat(fd, "f", &st, 0); err != nil {
		t.Error(err)
	}
	if err := unix.Mkdirat(fd, "made", 0o755); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "up/made")); err != nil {
		t.Error(err)
	}
}
