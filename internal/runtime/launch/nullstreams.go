//go:build linux

package launch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// nullStreams exchanges streams that are the host's null device for the
// container's own: nothing of the host's stays open, and what is open can be
// found below the root, as a checkpoint needs it.
func (s *setup) nullStreams() error {
	if !s.ownDev {
		return nil
	}
	own := -1
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || !isNull(&st) {
			continue // closed, or something else
		}
		if own < 0 {
			var err error
			if own, err = mnt.OpenIn(s.root, "/dev/null", unix.O_RDWR, unix.RESOLVE_NO_SYMLINKS); err != nil {
				return err
			}
			if err := unix.Fstat(own, &st); err != nil || !isNull(&st) {
				return errors.Join(errors.New("/dev/null is not the null device"), err, unix.Close(own))
			}
		}
		if err := unix.Dup3(own, fd, 0); err != nil {
			return fmt.Errorf("null device: %w", err)
		}
	}
	if own < 0 {
		return nil
	}
	return unix.Close(own)
}

func isNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}
