package layer

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Inherit gives the implicit directories of a layer in dir the owner, mode and
// time they have below: lowers are the directories of the layers under it,
// topmost first.
func Inherit(dir string, implicit, lowers []string) error {
	for _, name := range implicit {
		if err := inherit(dir, name, lowers); err != nil {
			return fmt.Errorf("attributes of %q: %w", name, err)
		}
	}
	return nil
}

func inherit(dir, name string, lowers []string) error {
	for _, l := range lowers {
		root, err := os.OpenRoot(l)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		f, err := root.Open(name)
		_ = root.Close()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil // a link out of the layer, or no directory: nothing to inherit
		}
		err = unix.Fstat(int(f.Fd()), &st)
		_ = f.Close()
		if err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		up, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		defer func() { _ = up.Close() }()
		if err := up.Lchown(name, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		if err := up.Chmod(name, os.FileMode(st.Mode&0o777)|specialBits(st.Mode)); err != nil {
			return err
		}
		t := time.Unix(st.Mtim.Sec, st.Mtim.Nsec)
		return up.Chtimes(name, t, t)
	}
	return nil
}

func specialBits(mode uint32) (m os.FileMode) {
	if mode&unix.S_ISUID != 0 {
		m |= os.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= os.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= os.ModeSticky
	}
	return m
}
