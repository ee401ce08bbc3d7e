//go:build root

package layer_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// exported lists what a root of the layers shows, with stubs in between.
func exported(t *testing.T, stubs string, lowers ...string) (out []string) {
	t.Helper()
	dir := t.TempDir()
	r := runtime.Rootfs{Lower: append([]string{stubs}, lowers...), Upper: filepath.Join(dir, "up"), Work: filepath.Join(dir, "work")}
	must(t, os.Mkdir(r.Upper, 0o755))
	must(t, os.Mkdir(r.Work, 0o755))
	root, err := layer.OpenRoot(&r)
	must(t, err)
	defer func() { _ = root.Close() }()
	var b bytes.Buffer
	must(t, root.Export(ctx, &b))
	for name, h := range tarNames(t, b.Bytes()) {
		line := fmt.Sprintf("%s %o %d:%d", name, h.Mode, h.Uid, h.Gid)
		if h.Linkname != "" {
			line += " " + h.Linkname
		} else if h.Size > 0 {
			line += fmt.Sprint(" ", h.Size)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	changes, err := layer.Changes(ctx, r.Upper, r.Lower, nil)
	must(t, err)
	if len(changes) > 0 {
		t.Errorf("changes: %v", changes)
	}
	return out
}

func TestStubs(t *testing.T) {
	files := []string{
		".dockerenv 755 0:0", "dev/console 755 0:0",
		"etc/hostname 755 0:0", "etc/hosts 755 0:0", "etc/mtab 777 0:0 /proc/mounts", "etc/resolv.conf 755 0:0",
	}
	for _, c := range []struct {
		name string
		make func(dir string) // the image
		want []string
	}{
		{"of an image with nothing", nil, append([]string{
			"dev/ 755 0:0", "dev/pts/ 755 0:0", "dev/shm/ 755 0:0", "etc/ 755 0:0", "proc/ 755 0:0", "sys/ 755 0:0",
		}, files...)},
		{"the image's directories stay as they are", func(dir string) {
			for _, d := range []string{"dev/pts", "dev/shm", "etc", "proc", "sys"} {
				must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
			}
			must(t, os.Chmod(filepath.Join(dir, "etc"), 0o711))
			must(t, os.Lchown(filepath.Join(dir, "etc"), 5, 6))
			must(t, os.Chmod(filepath.Join(dir, "proc"), 0o555))
			must(t, os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("x"), 0o644))
		}, append([]string{
			"dev/ 755 0:0", "dev/pts/ 755 0:0", "dev/shm/ 755 0:0", "etc/ 711 5:6", "etc/passwd 644 0:0 1", "proc/ 555 0:0", "sys/ 755 0:0",
		}, files...)},
		{"as with docker, the image's own files are hidden", func(dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "etc/mtab"), []byte("x"), 0o644))
			must(t, os.WriteFile(filepath.Join(dir, ".dockerenv"), []byte("x"), 0o644))
			must(t, os.Symlink("/run/resolv.conf", filepath.Join(dir, "etc/resolv.conf")))
		}, append([]string{
			"dev/ 755 0:0", "dev/pts/ 755 0:0", "dev/shm/ 755 0:0", "etc/ 755 0:0", "proc/ 755 0:0", "sys/ 755 0:0",
		}, files...)},
		{"a link in a directory's place stays", func(dir string) {
			must(t, os.Symlink("usr/etc", filepath.Join(dir, "etc")))
			must(t, os.Symlink("/", filepath.Join(dir, "proc")))
			must(t, os.WriteFile(filepath.Join(dir, "dev"), nil, 0o644))
		}, []string{
			".dockerenv 755 0:0", "dev 644 0:0", "etc 777 0:0 usr/etc", "proc 777 0:0 /", "sys/ 755 0:0",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			var lowers []string
			if c.make != nil {
				lowers = []string{t.TempDir()}
				c.make(lowers[0])
			}
			must(t, os.Chmod(base, 0o700))
			old := unix.Umask(0o077)
			stubs, err := layer.Stubs(base, lowers)
			unix.Umask(old)
			must(t, err)
			got := exported(t, stubs, lowers...)
			got = slices.DeleteFunc(got, func(s string) bool { return s == "./ 755 0:0" || s == "/ 755 0:0" })
			slices.Sort(c.want)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			again, err := layer.Stubs(base, lowers)
			if err != nil || again != stubs {
				t.Errorf("asked again: %s, %v; was %s", again, err, stubs)
			}
		})
	}
}

// What a daemon was killed over is made anew.
func TestStubsHalfMade(t *testing.T) {
	base := t.TempDir()
	dir, err := layer.Stubs(base, nil)
	must(t, err)
	must(t, os.Rename(dir, dir+".half"))
	must(t, os.Remove(filepath.Join(dir+".half", ".dockerenv")))
	_, err = layer.Stubs(base, nil)
	must(t, err)
	_, err = os.Stat(filepath.Join(dir, ".dockerenv"))
	must(t, err)
	if names, _ := os.ReadDir(base); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
}
