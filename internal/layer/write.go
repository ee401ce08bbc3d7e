package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// Names that carry meaning in layer archives, see the OCI image specification.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

const paxXattr = "SCHILY.xattr."

// opaqueXattrs mark a directory that hides everything below it.
var opaqueXattrs = [...]string{"trusted.overlay.opaque", "user.overlay.opaque"}

// Write archives dir, the upper directory of an overlay, as a layer: its
// whiteouts become the archive's, names are sorted, times cut to seconds. The
// same tree always gives the same bytes. The tree is walked by descriptors, so
// that a container that is still writing to it cannot lead the walk outside.
func Write(ctx context.Context, w io.Writer, dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("archive %s: %w", dir, err)
	}
	root := os.NewFile(uintptr(fd), dir)
	defer func() { _ = root.Close() }()
	lw := &writer{ctx: ctx, tw: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, 256<<10)}
	if err := lw.dir(root, ""); err != nil {
		return fmt.Errorf("archive %s: %w", dir, err)
	}
	return lw.tw.Close()
}

type inode struct{ dev, ino uint64 }

type writer struct {
	ctx   context.Context
	tw    *tar.Writer
	links map[inode]string // first name of each inode with more than one
	buf   []byte
}

// dir archives what is in d, whose name in the archive is prefix ("" or "a/b/").
func (w *writer) dir(d *os.File, prefix string) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.entry(d, prefix, name); err != nil {
			return fmt.Errorf("%s%s: %w", prefix, name, err)
		}
	}
	return nil
}

func (w *writer) entry(d *os.File, prefix, name string) error {
	var st unix.Stat_t
	fd := int(d.Fd())
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return nil // removed while we walk a live tree
		}
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil // means nothing without its process
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return w.tw.WriteHeader(whiteout(prefix + whiteoutPrefix + name))
		}
	}
	hdr, err := w.header(fd, prefix, name, &st)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return w.subdir(fd, name, hdr)
	case tar.TypeReg:
		return w.file(fd, name, hdr)
	}
	return w.tw.WriteHeader(hdr)
}

func whiteout(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

func (w *writer) header(fd int, prefix, name string, st *unix.Stat_t) (*tar.Header, error) {
	hdr := &tar.Header{
		Name: prefix + name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, 0), Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		hdr.Typeflag = tar.TypeDir
		hdr.Name += "/"
	case unix.S_IFREG:
		hdr.Typeflag = tar.TypeReg
		hdr.Size = st.Size
	case unix.S_IFLNK:
		hdr.Typeflag = tar.TypeSymlink
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, name, buf)
		if err != nil {
			return nil, err
		}
		hdr.Linkname = string(buf[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	default:
		return nil, fmt.Errorf("unknown file type %#o", st.Mode&unix.S_IFMT)
	}
	if st.Nlink > 1 && hdr.Typeflag != tar.TypeDir {
		key := inode{st.Dev, st.Ino}
		if first, ok := w.links[key]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			return hdr, nil
		}
		w.links[key] = hdr.Name
	}
	xs, err := xattrs(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name))
	if err != nil {
		return nil, err
	}
	for k, v := range xs {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords[paxXattr+k] = v
	}
	return hdr, nil
}

func (w *writer) subdir(fd int, name string, hdr *tar.Header) error {
	sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(sub), name)
	defer func() { _ = f.Close() }()
	if err := w.tw.WriteHeader(hdr); err != nil {
		return err
	}
	opaque, err := isOpaque(sub)
	if err != nil {
		return err
	}
	if opaque {
		if err := w.tw.WriteHeader(whiteout(hdr.Name + whiteoutOpaque)); err != nil {
			return err
		}
	}
	return w.dir(f, hdr.Name)
}

// isOpaque also refuses a directory that overlayfs renamed in place: its
// content is elsewhere, and an archive of it would be wrong.
func isOpaque(fd int) (bool, error) {
	var b [1]byte
	for _, k := range [...]string{"trusted.overlay.redirect", "user.overlay.redirect"} {
		if n, err := unix.Fgetxattr(fd, k, nil); err == nil && n > 0 {
			return false, fmt.Errorf("the directory was renamed by overlayfs (redirect_dir), which layers cannot express")
		}
	}
	for _, k := range opaqueXattrs {
		n, err := unix.Fgetxattr(fd, k, b[:])
		if err == nil && n == 1 && b[0] == 'y' {
			return true, nil
		}
		if err != nil && err != unix.ENODATA && err != unix.ENOTSUP && err != unix.ERANGE {
			return false, fmt.Errorf("read %s: %w", k, err)
		}
	}
	return false, nil
}

func (w *writer) file(fd int, name string, hdr *tar.Header) error {
	at, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	sub, err := mnt.OpenFile(at, -1)
	_ = unix.Close(at)
	if errors.Is(err, mnt.ErrNotRegular) {
		return errors.New("changed its type while being read")
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(sub), name)
	defer func() { _ = f.Close() }()
	// The size is the descriptor's, not the name's: a live tree may have
	// exchanged the file in between.
	var st unix.Stat_t
	if err := unix.Fstat(sub, &st); err != nil {
		return err
	}
	hdr.Size = st.Size
	if err := w.tw.WriteHeader(hdr); err != nil {
		return err
	}
	left := st.Size
	for left > 0 {
		n, err := f.Read(w.buf[:min(left, int64(len(w.buf)))])
		if n > 0 {
			if _, err := w.tw.Write(w.buf[:n]); err != nil {
				return err
			}
			left -= int64(n)
		}
		if err == io.EOF && left > 0 {
			return fmt.Errorf("shrank while being read")
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// xattrs reads the extended attributes that belong into a layer: all of a
// user's and file capabilities, none of overlayfs, SELinux or the kernel.
func xattrs(path string) (map[string]string, error) {
	n, err := unix.Llistxattr(path, nil)
	if err != nil || n == 0 {
		if err == unix.ENOTSUP || err == unix.ENOENT {
			err = nil
		}
		return nil, err
	}
	list := make([]byte, n)
	if n, err = unix.Llistxattr(path, list); err != nil {
		return nil, err
	}
	var out map[string]string
	for k := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !wantXattr(k) {
			continue
		}
		size, err := unix.Lgetxattr(path, k, nil)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", k, err)
		}
		v := make([]byte, size)
		if size > 0 {
			if size, err = unix.Lgetxattr(path, k, v); err != nil {
				return nil, fmt.Errorf("read %s: %w", k, err)
			}
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = string(v[:size])
	}
	return out, nil
}

func wantXattr(k string) bool {
	return k == "security.capability" || strings.HasPrefix(k, "user.") && !strings.HasPrefix(k, "user.overlay.")
}
