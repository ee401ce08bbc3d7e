package archive

import (
	"archive/tar"
	"path"

	"golang.org/x/sys/unix"
)

// special makes a pipe or a device.
func (u *unpacker) special(h *tar.Header, name string) error {
	dir, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	}
	return unix.Mknodat(int(dir.Fd()), path.Base(name), mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}
