//go:build root

package volumes

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ownMounts gives the test's thread a mount namespace, whose mounts are shared,
// as where systemd runs.
func ownMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // not given back: it keeps its namespace
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|flag, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func mkdir(t *testing.T, names ...string) string {
	t.Helper()
	dir := filepath.Join(names...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantMounted(t *testing.T, dir string, want bool) {
	t.Helper()
	if got, err := (hostMounts{}).Mounted(dir); err != nil || got != want {
		t.Errorf("%s is mounted: %v %v, want %v", dir, got, err, want)
	}
}

func TestHostMounts(t *testing.T) {
	ownMounts(t)
	var m hostMounts
	at := mkdir(t, t.TempDir(), "_data")
	wantMounted(t, at, false)
	for _, device := range []string{"tmpfs", "none", ""} {
		if err := m.Mount(device, at, "tmpfs", ""); err != nil {
			t.Fatal(err)
		}
		wantMounted(t, at, true)
		if err := m.Unmount(at); err != nil {
			t.Fatal(err)
		}
		wantMounted(t, at, false)
	}
	if err := m.Mount("tmpfs", at, "tmpfs", "size=1m,uid=33,noexec"); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) != 1<<20 || fs.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("%+v %v", fs, err)
	}
	for range 2 { // of none is no error
		if err := m.Unmount(at); err != nil {
			t.Error(err)
		}
	}
	if err := m.Unmount(filepath.Join(at, "nosuch")); err != nil {
		t.Error(err)
	}
	err := m.Mount("/no/such", at, "none", "bind")
	if want := "mount /no/such:" + at + ", flags: 0x1000: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := m.Mount("x", at, "tmpfs", "size=nonsense"); err == nil || !strings.Contains(err.Error(), "data: size=nonsense: invalid argument") {
		t.Errorf("%v", err)
	}
	wantMounted(t, at, false)
}

// What is mounted below a bound directory, before or after, stays where it was
// when the bind is unmounted.
func TestUnmountOfABindIsItsOwn(t *testing.T) {
	for _, how := range []string{"bind", "rbind"} {
		t.Run(how, func(t *testing.T) {
			ownMounts(t)
			var m hostMounts
			dir := t.TempDir()
			device, at := mkdir(t, dir, "device"), mkdir(t, dir, "_data")
			before, after := mkdir(t, device, "before"), mkdir(t, device, "after")
			for _, step := range []func() error{
				func() error { return m.Mount("tmpfs", before, "tmpfs", "") },
				func() error { return m.Mount(device, at, "none", how) },
				func() error { return m.Mount("tmpfs", after, "tmpfs", "") },
			} {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			defer func() { _, _ = m.Unmount(before), m.Unmount(after) }()
			wantMounted(t, filepath.Join(at, "after"), true)
			if err := m.Unmount(at); err != nil {
				t.Fatal(err)
			}
			for where, want := range map[string]bool{at: false, before: true, after: true} {
				wantMounted(t, where, want)
			}
		})
	}
}

// A read-only bind is.
func TestReadOnlyBind(t *testing.T) {
	ownMounts(t)
	var m hostMounts
	dir := t.TempDir()
	device, at := mkdir(t, dir, "device"), mkdir(t, dir, "_data")
	if err := m.Mount(device, at, "none", "bind,ro"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(at, "x"), 0o700); err == nil {
		t.Error("it is writable")
	}
	if err := m.Unmount(at); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(at, "x"), 0o700); err != nil {
		t.Error(err)
	}
}
