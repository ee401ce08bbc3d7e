//go:build root

package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func withoutDev(b *box) {
	b.l.Spec.Mounts = slices.DeleteFunc(b.l.Spec.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
}

// The devices are there also where the specification mounts nothing at /dev.
func TestDevicesInTheRoot(t *testing.T) {
	b := newBox(t, "test -c /dev/null && echo x > /dev/null && test -c /dev/made && stat -c %a /dev/made && readlink /dev/stdin; test -p /dev/pipe && echo pipe; test -e /dev/ptmx || echo none")
	withoutDev(b)
	mode := os.FileMode(0o640)
	b.l.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/made", Type: "c", Major: 1, Minor: 5, FileMode: &mode}, {Path: "/dev/pipe", Type: "p"}}
	b.prints("640\n/proc/self/fd/0\npipe\nnone\n")

	outside := t.TempDir()
	b = newBox(t, "true")
	withoutDev(b)
	dev := filepath.Join(b.l.Rootfs.Lower[0], "dev")
	if err := os.Remove(dev); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, dev); err != nil {
		t.Fatal(err)
	}
	b.fails("too many levels of symbolic links")

	b = newBox(t, "true")
	withoutDev(b)
	if err := os.WriteFile(filepath.Join(b.l.Rootfs.Lower[0], "dev/null"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	b.fails("something else is there")
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

// A device may be anywhere, also behind links of the image, which lead nowhere
// but in it. What the specification says of a device that every container has
// counts.
func TestDevicesAnywhere(t *testing.T) {
	mode, uid := os.FileMode(0o604), uint32(7)
	b := newBox(t, "stat -c '%a %u %t:%T' /fuse /made/deep/zero /dev/null /dev/zero; ls /away")
	lower := b.l.Rootfs.Lower[0]
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(lower, "away")); err != nil {
		t.Fatal(err)
	}
	b.l.Spec.Linux.Devices = []specs.LinuxDevice{
		{Path: "/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &uid},
		{Path: "/made/deep/zero", Type: "c", Major: 1, Minor: 5},
		{Path: "/away/device", Type: "c", Major: 1, Minor: 5},
		{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: &mode},
	}
	b.prints("604 7 a:e5\n666 0 1:5\n604 0 1:3\n666 0 1:5\ndevice\n")
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
	b = newBox(t, "true")
	b.l.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/etc/passwd", Type: "c", Major: 1, Minor: 5}}
	b.fails("something else is there")
	b = newBox(t, "stat -c %a /dev/null") // one that the root's own /dev has
	withoutDev(b)
	dev := filepath.Join(b.l.Rootfs.Lower[0], "dev/null")
	if err := unix.Mknod(dev, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	b.l.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: &mode}}
	b.prints("604\n")
	b = newBox(t, "true")
	inUserNS(b)
	b.l.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/fuse", Type: "c", Major: 10, Minor: 229}}
	b.fails("in a user namespace devices can be in /dev only")
}
