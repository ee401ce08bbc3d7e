//go:build root

package layer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopyUpLinksNothingOfTheHost: a container that has the volume, too, makes a
// directory that was copied a link to the host's before a second name of a file
// in it is made.
func TestCopyUpLinksNothingOfTheHost(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"image", "volume", "host"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(dir, "host", "file")
	for _, f := range []string{secret, filepath.Join(dir, "image", "one")} {
		if err := os.WriteFile(f, []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "image", "one"), filepath.Join(dir, "image", "two")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "host"), filepath.Join(dir, "volume", "d")); err != nil {
		t.Fatal(err)
	}
	open := func(name string) int {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	from, to := open("image"), open("volume")
	var st unix.Stat_t
	if err := unix.Fstatat(from, "one", &st, 0); err != nil {
		t.Fatal(err)
	}
	c := &copier{ctx: t.Context(), root: to, links: map[inode]string{{st.Dev, st.Ino}: "d/file"}}
	if err := c.entry(from, to, "two", "two"); !errors.Is(err, unix.ELOOP) {
		t.Error(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "volume", "two")); err == nil {
		t.Errorf("the volume has the host's file: %v", st)
	}
}
