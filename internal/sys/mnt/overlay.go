//go:build linux

package mnt

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// OverlayTakesLayers tells whether this kernel's overlayfs takes its lower
// layers one by one (lowerdir+, from 6.7 on). It asks the kernel once.
var OverlayTakesLayers = sync.OnceValue(func() bool {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return true // whoever mounts is told why not
	}
	defer func() { _ = unix.Close(fs) }()
	return takesLayers(func(key, value string) error { return unix.FsconfigSetString(fs, key, value) })
})

// takesLayers finds out without mounting. Kernels before 6.5 take whatever
// option, to refuse them all at the end.
func takesLayers(set func(key, value string) error) bool {
	if err := set("skiff.none", "x"); err == nil {
		return false
	}
	return !errors.Is(set("lowerdir+", "/"), unix.EINVAL)
}
