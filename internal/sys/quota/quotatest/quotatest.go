//go:build linux

// Package quotatest makes file systems that have project quotas.
package quotatest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/internal/sys/quota"
)

// Types are the file systems that have project quotas.
func Types() []string { return []string{"ext4", "xfs"} }

// Mount returns the mount point of a new file system of some 300 MB with
// project quotas on. The test, which needs a mount namespace of its own, is
// skipped where the machine cannot have one.
func Mount(t testing.TB, kind string) string {
	t.Helper()
	mkfs, option := []string{"mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "lazy_itable_init=1"}, "prjquota"
	if kind == "xfs" {
		mkfs, option = []string{"mkfs.xfs", "-q", "-f"}, "pquota"
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 320<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		t.Skipf("no %s here", mkfs[0])
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], image)...).CombinedOutput(); err != nil { //nolint:gosec // constants
		t.Fatalf("%s: %v: %s", mkfs[0], err, out)
	}
	at := filepath.Join(dir, "mnt")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	// The loop device goes with the mount, whatever becomes of this process.
	if out, err := exec.Command("mount", "-t", kind, "-o", "loop,"+option, image, at).CombinedOutput(); err != nil { //nolint:gosec // the test's own
		t.Skipf("cannot mount %s with %s: the kernel has no project quotas for it, or no loop device is free: %s", kind, option, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil { //nolint:gosec // the test's own
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	if err := new(quota.Projects).Check(at); err != nil {
		t.Skipf("%s mounted with %s: %v", kind, option, err)
	}
	return at
}
