//go:build linux

package mnt

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func rootOf(t *testing.T) (fd int, dir, outside string) {
	t.Helper()
	dir, outside = filepath.Join(t.TempDir(), "root"), t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd, dir, outside
}

func TestTargetStaysInside(t *testing.T) {
	root, dir, outside := rootOf(t)
	for name, link := range map[string]string{
		"abs": outside, "up": "../../../../../../../.." + outside, "deep": "a/b/c/d", "loop": "loop", "viaabs": "/abs/x", "a/back": "../a/b",
	} {
		if err := os.Symlink(link, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		path string
		dir  bool
		at   string // below the root; "" fails
	}{
		{"/new/dir", true, "new/dir"},
		{"/new/file", false, "new/file"},
		{"/abs/f", false, outside + "/f"},
		{"/up/g", true, outside + "/g"},
		{"/deep/e", false, "a/b/c/d/e"},
		{"/loop/x", true, ""},
		{"/viaabs", true, outside + "/x"},
		{"/a/back/z", false, "a/b/z"},
		{"/../../h", true, "h"},
		{"/a/../i", true, "i"},
		{"/a/b", true, "a/b"},
		{"/a/b", false, ""},
	} {
		fd, _, err := Target(root, tc.path, tc.dir, 0)
		if tc.at == "" {
			if err == nil {
				t.Errorf("%s gives a target", tc.path)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.path, err)
			continue
		}
		var got, want unix.Stat_t
		if err := unix.Fstat(fd, &got); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(filepath.Join(dir, tc.at), &want); err != nil || got.Ino != want.Ino {
			t.Errorf("%s is not %s: %v", tc.path, tc.at, err)
		}
		_ = unix.Close(fd)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
	if _, _, err := Target(root, "/abs/other", true, unix.RESOLVE_NO_SYMLINKS); err == nil {
		t.Error("a link was followed where none may be")
	}
}

func TestParseOptions(t *testing.T) {
	for _, tc := range []struct {
		words []string
		want  Options
	}{
		{[]string{"rbind", "ro", "rprivate"}, Options{Bind: true, Recursive: true, Set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE, RecPropagation: true}},
		{[]string{"ro", "rw"}, Options{Clear: unix.MOUNT_ATTR_RDONLY}},
		{[]string{"bind", "rro"}, Options{Bind: true, RecSet: unix.MOUNT_ATTR_RDONLY}},
		{[]string{"nosuid", "strictatime", "mode=755", "size=64k"}, Options{
			Set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_STRICTATIME, Clear: unix.MOUNT_ATTR__ATIME, Data: []Opt{{"mode", "755"}, {"size", "64k"}},
		}},
		{[]string{"shared", "nodev", "dev"}, Options{Propagation: unix.MS_SHARED, Clear: unix.MOUNT_ATTR_NODEV}},
		{[]string{"rbind", "ridmap", "rnoatime", "rnosuid"}, Options{
			Bind: true, Recursive: true, IDMap: true, RecIDMap: true,
			RecSet: unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_NOSUID, RecClear: unix.MOUNT_ATTR__ATIME,
		}},
		{[]string{"bind", "ridmap", "idmap", "tmpcopyup"}, Options{Bind: true, IDMap: true, CopyUp: true}},
		{[]string{"bind", "remount", "ro"}, Options{Bind: true, Remount: true, Set: unix.MOUNT_ATTR_RDONLY}},
		{[]string{"silent", "loud", "iversion", "noiversion", "nofail", "x-gvfs-hide", "nocopy"}, Options{}},
		{[]string{"sync", "dirsync", "lazytime", "async"}, Options{Data: []Opt{{"dirsync", ""}, {"lazytime", ""}}}},
		{[]string{"newinstance"}, Options{Data: []Opt{{"newinstance", ""}}}},
		{[]string{"relatime", "rw", "defaults"}, Options{Clear: unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_RDONLY}},
	} {
		if d := cmp.Diff(tc.want, ParseOptions(tc.words)); d != "" {
			t.Errorf("%v: %s", tc.words, d)
		}
	}
}
