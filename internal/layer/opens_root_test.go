//go:build root

package layer_test

import (
	"archive/tar"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// soon fails the test if do does not return; a blocked open cannot be ended.
func soon(t *testing.T, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
		return nil
	}
}

// watchOpens tells, when asked, whether anybody opened the file meanwhile.
func watchOpens(t *testing.T, name string) (opened func() bool) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, name, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		n, _ := unix.Read(fd, make([]byte, 4096))
		return n > 0
	}
}

// TestInheritOpensOnlyDirectories has a pipe, which blocks who opens it, and a
// device, which a host may act on, where a layer above has a directory.
func TestInheritOpensOnlyDirectories(t *testing.T) {
	low, _, err := apply(t, archive(t,
		ent{Typeflag: tar.TypeFifo, Name: "pipe"},
		ent{Typeflag: tar.TypeChar, Name: "device", Devmajor: 1, Devminor: 3},
		ent{Typeflag: tar.TypeReg, Name: "file"},
		ent{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "pipe"}))
	if err != nil {
		t.Fatal(err)
	}
	pipe, device := watchOpens(t, low+"/pipe"), watchOpens(t, low+"/device")
	for _, name := range []string{"pipe", "device", "file", "link"} {
		dir, did, err := apply(t, archive(t, ent{Typeflag: tar.TypeReg, Name: name + "/sub/f"}))
		if err != nil {
			t.Fatal(err)
		}
		if err := soon(t, func() error { return layer.Inherit(dir, did.Implicit, []string{low}) }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if pipe() || device() {
		t.Error("a pipe or a device was opened")
	}
}

// TestInheritToReplaced has a directory that the archive itself replaced by
// something else, after it put something in.
func TestInheritToReplaced(t *testing.T) {
	low := t.TempDir()
	if err := os.MkdirAll(low+"/a/deep", 0o700); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	for what, h := range map[string]ent{
		"pipe": {Typeflag: tar.TypeFifo, Name: "a"},
		"link": {Typeflag: tar.TypeSymlink, Name: "a", Linkname: outside},
		"file": {Typeflag: tar.TypeReg, Name: "a/deep"},
	} {
		dir, did, err := apply(t, archive(t, ent{Typeflag: tar.TypeReg, Name: "a/deep/f"}, h))
		if err != nil {
			t.Fatal(err)
		}
		if err := soon(t, func() error { return layer.Inherit(dir, did.Implicit, []string{low}) }); err != nil {
			t.Errorf("%s, implicit %s: %v", what, strings.Join(did.Implicit, " "), err)
		}
	}
}

// TestUserFilesAreOpenedIfTheyAreFiles has a device where a container's users
// are told of.
func TestUserFilesAreOpenedIfTheyAreFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(dir+"/etc/passwd", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	opened := watchOpens(t, dir+"/etc/passwd")
	root, err := layer.OpenRoot(&runtime.Rootfs{Bind: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := root.CheckUser("me"); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
	if opened() {
		t.Error("the device was opened")
	}
	if err := os.Remove(dir + "/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/etc/passwd", []byte("me:x:7:8::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := root.CheckUser("me"); err != nil {
		t.Error(err)
	}
}
