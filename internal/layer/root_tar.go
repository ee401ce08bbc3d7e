package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// Tar archives the thing at p as docker cp wants it: under its own last name,
// with all that is below it; a link as itself.
func (r *Root) Tar(ctx context.Context, p string, w io.Writer) error {
	at, err := r.find(p)
	if err != nil {
		return err
	}
	defer at.close()
	t := newTreeTar(ctx, w, r.ids)
	name := archiveName(p)
	if name == "/" {
		name = "" // docker's: "/", "/bin/", "/bin/sh"
	}
	if err := t.add(at.dir, at.base, name); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "lstat", Path: p, Err: unix.ENOENT}
		}
		return fmt.Errorf("archive %s: %w", p, err)
	}
	return t.close()
}

// Export archives the whole root, without what is mounted in it.
func (r *Root) Export(ctx context.Context, w io.Writer) error {
	fd, err := reopenDir(r.fd)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	d := os.NewFile(uintptr(fd), "/")
	defer func() { _ = d.Close() }()
	t := newTreeTar(ctx, w, r.ids)
	t.oneMount = true
	if err := t.children(d, ""); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return t.close()
}

// reopenDir makes a descriptor that can be read of one that only names.
func reopenDir(fd int) (int, error) {
	return unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// treeTar writes a live tree as an archive.
type treeTar struct {
	ctx      context.Context //nolint:containedctx // for the length of one call
	out      *bufio.Writer
	tw       *tar.Writer
	links    map[inode]string
	buf      []byte
	oneMount bool
	ids      *userns.Map // nil: owners are as they are
}

func newTreeTar(ctx context.Context, w io.Writer, ids *userns.Map) *treeTar {
	out := bufio.NewWriterSize(w, 128<<10)
	return &treeTar{ctx: ctx, out: out, tw: tar.NewWriter(out), links: map[inode]string{}, buf: make([]byte, 256<<10), ids: ids}
}

func (t *treeTar) close() error {
	if err := t.tw.Close(); err != nil {
		return err
	}
	return t.out.Flush()
}

// open opens a name in dir without following anything; a mount is EXDEV if the
// archive is of one mount.
func (t *treeTar) open(dir int, name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
	if t.oneMount {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
}

// add archives base in dir as name.
func (t *treeTar) add(dir int, base, name string) error {
	if err := t.ctx.Err(); err != nil {
		return context.Cause(t.ctx)
	}
	// One descriptor stands for the thing, whatever becomes of its name.
	fd, err := t.open(dir, base, unix.O_PATH)
	mounted := err == unix.EXDEV
	if mounted {
		// Export: the place itself, as if nothing were mounted there.
		fd, err = unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	hdr, err := t.header(fd, name, &st)
	if err != nil || hdr == nil {
		return err
	}
	switch {
	case hdr.Typeflag == tar.TypeDir:
		return t.directory(fd, hdr, mounted)
	case hdr.Typeflag == tar.TypeReg && mounted:
		hdr.Size = 0
	case hdr.Typeflag == tar.TypeReg:
		return t.file(fd, hdr)
	}
	return t.tw.WriteHeader(hdr)
}

// nobody owns, in a user namespace, what is of somebody outside of it.
const nobody = 65534

func (t *treeTar) header(fd int, name string, st *unix.Stat_t) (*tar.Header, error) {
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), Format: tar.FormatPAX,
	}
	if t.ids != nil {
		var ok bool
		if hdr.Uid, hdr.Gid, ok = t.ids.Inside(st.Uid, st.Gid); !ok {
			hdr.Uid, hdr.Gid = nobody, nobody // as it sees them itself
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		hdr.Typeflag, hdr.Name = tar.TypeDir, name+"/"
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", buf)
		if err != nil {
			return nil, err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, string(buf[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	default:
		return nil, nil // sockets have no place in archives
	}
	if st.Nlink > 1 && hdr.Typeflag != tar.TypeDir {
		key := inode{st.Dev, st.Ino}
		if first, ok := t.links[key]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			return hdr, nil
		}
		t.links[key] = name
	}
	if hdr.Typeflag == tar.TypeReg || hdr.Typeflag == tar.TypeDir {
		xs, err := fdXattrs(fd)
		if err != nil {
			return nil, err
		}
		for k, v := range xs {
			if hdr.PAXRecords == nil {
				hdr.PAXRecords = map[string]string{}
			}
			hdr.PAXRecords[paxXattr+k] = v
		}
	}
	return hdr, nil
}

func selfFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// kernelFS are file systems whose content is the kernel's, not the container's.
var kernelFS = [...]int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
	unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.BPF_FS_MAGIC, unix.SECURITYFS_MAGIC, 0x19800202, // mqueue
}

func ofKernel(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && slices.Contains(kernelFS[:], st.Type) //nolint:unconvert // other widths elsewhere
}

func (t *treeTar) directory(fd int, hdr *tar.Header, mounted bool) error {
	if err := t.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if mounted || ofKernel(fd) {
		return nil
	}
	sub, err := reopenDir(fd)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(sub), hdr.Name)
	defer func() { _ = d.Close() }()
	return t.children(d, hdr.Name)
}

func (t *treeTar) children(d *os.File, prefix string) error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("%s: %w", prefix, err)
	}
	slices.Sort(names)
	for _, n := range names {
		err := t.add(int(d.Fd()), n, prefix+n)
		if errors.Is(err, unix.ENOENT) {
			continue // removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("%s: %w", prefix+n, err)
		}
	}
	return nil
}

// file writes a file that may change meanwhile: what it lost is filled with
// zeros, what it won is left out, as the size stands in front.
func (t *treeTar) file(fd int, hdr *tar.Header) error {
	sub, err := unix.Open(selfFD(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(sub), hdr.Name)
	defer func() { _ = f.Close() }()
	if ofKernel(sub) {
		hdr.Size = 0
	}
	if err := t.tw.WriteHeader(hdr); err != nil {
		return err
	}
	left := hdr.Size
	for left > 0 {
		n, err := f.Read(t.buf[:min(left, int64(len(t.buf)))])
		if err != nil && err != io.EOF {
			return err
		}
		if n == 0 {
			n = int(min(left, int64(len(t.buf))))
			clear(t.buf[:n])
		}
		if _, err := t.tw.Write(t.buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
		if err := t.ctx.Err(); err != nil {
			return context.Cause(t.ctx)
		}
	}
	return nil
}

// fdXattrs reads the extended attributes that belong into an archive, of a
// descriptor that may only name.
func fdXattrs(fd int) (map[string]string, error) {
	name := selfFD(fd)
	n, err := unix.Listxattr(name, nil)
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]byte, n)
	if n, err = unix.Listxattr(name, list); err != nil {
		return nil, err
	}
	var out map[string]string
	for _, k := range splitNames(list[:n]) {
		if !wantXattr(k) {
			continue
		}
		v := make([]byte, 64<<10) // XATTR_SIZE_MAX
		size, err := unix.Getxattr(name, k, v)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", k, err)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = string(v[:size])
	}
	return out, nil
}

func splitNames(list []byte) (out []string) {
	start := 0
	for i, c := range list {
		if c == 0 {
			out = append(out, string(list[start:i]))
			start = i + 1
		}
	}
	return out
}
