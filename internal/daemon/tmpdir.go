package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// ownTmp gives the daemon a directory for temporary files of its own, and takes
// away what a killed daemon left in it. BuildKit mounts layers there while a
// build copies files; such a mount outlives the process, holds its layer on the
// disk, and would be in everybody's /tmp.
func ownTmp(dataRoot string) error {
	dir, err := filepath.Abs(filepath.Join(dataRoot, "tmp"))
	if err != nil {
		return err
	}
	if err := clearTmp(dir); err != nil {
		return fmt.Errorf("clear %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Setenv("TMPDIR", dir)
}

func clearTmp(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	below := func() ([]string, error) {
		ms, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
			return !strings.HasPrefix(i.Mountpoint, real+"/"), false
		})
		var out []string
		for _, m := range ms {
			out = append(out, m.Mountpoint)
		}
		return out, err
	}
	mounts, err := below()
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) { // the latest first
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	// Never delete through a mount: that would be a layer's content.
	if left, err := below(); err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("still mounted: %v", left))
	}
	return os.RemoveAll(real)
}
