//go:build root

package harness

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Subordinate gives dockremap ids, in /etc as the tests alone see it.
func Subordinate(t testing.TB, text string) {
	t.Helper()
	for _, name := range []string{"subuid", "subgid"} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		over := filepath.Join("/etc", name)
		if err := unix.Mount(file, over, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(over, unix.MNT_DETACH) })
	}
}
