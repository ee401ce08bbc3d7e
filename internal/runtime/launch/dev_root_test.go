//go:build root

package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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
