package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// UntarOptions are those of an upload into a container.
type UntarOptions struct {
	// NoOverwriteDirNonDir refuses to put a file in place of a directory, or the
	// other way round.
	NoOverwriteDirNonDir bool
	// User owns what is made, as the container's own /etc/passwd knows it; nil:
	// as the archive says.
	User *runtime.User
}

// Untar unpacks an archive, compressed or not, into the directory at p. Every
// entry lands inside the root, whatever links the archive or the container has.
func (r *Root) Untar(ctx context.Context, p string, in io.Reader, o UntarOptions) error {
	plain, _, err := Decompress(in)
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }()
	dest, err := mnt.OpenIn(r.fd, path.Join("/", p), unix.O_PATH, 0)
	if err != nil {
		return &fs.PathError{Op: "lstat", Path: p, Err: err}
	}
	defer func() { _ = unix.Close(dest) }()
	var st unix.Stat_t
	if err := unix.Fstat(dest, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errs.New(errs.Invalid, "extraction point is not a directory")
	}
	if ofKernel(dest) {
		return errs.Newf(errs.Invalid, "%s is on a file system of the kernel's", p)
	}
	u := &untar{root: r, o: o, dest: dest, into: path.Join("/", p), uid: -1, gid: -1}
	u.ctx, u.parent, u.buf = ctx, -1, make([]byte, 256<<10)
	defer u.leave()
	if o.User != nil {
		if u.uid, u.gid, err = r.lookup(o.User.Spec); err == nil {
			u.uid, u.gid, err = r.outside(u.uid, u.gid)
		}
		if err != nil {
			return err
		}
	}
	if err := u.asRoot(func() error { return u.run(plain) }); err != nil {
		return r.explain(dest, err)
	}
	return nil
}

// asRoot calls f as who is root in the container: what is made is that one's
// before it gets its owner, and in a user namespace nobody else can make anything.
func (u *untar) asRoot(f func() error) error {
	if u.root.ids == nil {
		return f()
	}
	uid, gid, err := u.root.outside(0, 0)
	if err != nil {
		return err
	}
	return mnt.OnOwnThread(func() error {
		// Its ids are its own, and go with it.
		return userns.AsOwner(uid, gid, f)
	})
}

// outside is who an owner in the container is to the kernel.
func (r *Root) outside(uid, gid int) (int, int, error) {
	if r.ids == nil {
		return uid, gid, nil
	}
	if uid < 0 || gid < 0 || uid > math.MaxUint32 || gid > math.MaxUint32 {
		return 0, 0, errs.Newf(errs.Invalid, "owner %d:%d is none", uid, gid)
	}
	u, g, ok := r.ids.Outside(uint32(uid), uint32(gid))
	if !ok {
		return 0, 0, errs.Newf(errs.Invalid, "owner %d:%d is not mapped in the container's user namespace", uid, gid)
	}
	return u, g, nil
}

// explain says which of docker's read-only things was met.
func (r *Root) explain(dest int, err error) error {
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	if mountID(dest) == mountID(r.fd) {
		return errs.New(errs.Invalid, "container rootfs is marked read-only")
	}
	return errs.New(errs.Invalid, "mounted volume is marked read-only")
}

func mountID(fd int) uint64 {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) != nil {
		return 0
	}
	return st.Mnt_id
}

// untar shares the applier's way to make entries, in a tree that others may be
// changing at the same time.
type untar struct {
	applier
	root     *Root
	o        UntarOptions
	dest     int
	into     string // where dest is
	uid, gid int
}

func (u *untar) run(in io.Reader) error {
	tr := tar.NewReader(in)
	type dated struct {
		fd  int
		hdr *tar.Header
	}
	var dirs []dated // their times come last
	defer func() {
		for _, d := range dirs {
			_ = unix.Close(d.fd)
		}
	}()
	for {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errs.Newf(errs.Invalid, "read archive: %w", err)
		}
		if escapes(hdr.Name) { // it would land inside: as docker, tell who made it
			return errs.Newf(errs.Invalid, "%q is outside of %q", hdr.Name, u.into)
		}
		name, err := cleanName(hdr.Name)
		if err != nil {
			return err
		}
		if name == "" || hdr.Typeflag == tar.TypeXGlobalHeader {
			continue // the directory itself stays as it is
		}
		if u.uid >= 0 {
			hdr.Uid, hdr.Gid = u.uid, u.gid
		} else if hdr.Uid, hdr.Gid, err = u.root.outside(hdr.Uid, hdr.Gid); err != nil {
			return fmt.Errorf("%s: %w", hdr.Name, err)
		}
		if err := u.entry(hdr, name, tr); err != nil {
			return fmt.Errorf("%s: %w", hdr.Name, err)
		}
		if hdr.Typeflag == tar.TypeDir && len(dirs) < 1000 {
			fd, err := unix.Openat(u.parent, path.Base(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == nil {
				dirs = append(dirs, dated{fd, hdr})
			}
		}
	}
	for _, d := range dirs {
		ts := unix.NsecToTimespec(bounded(d.hdr.ModTime).UnixNano())
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, selfFD(d.fd), []unix.Timespec{ts, ts}, 0); err != nil {
			return fmt.Errorf("%s: %w", d.hdr.Name, err)
		}
	}
	return nil
}

// escapes reports whether an entry's name leads above the directory that the
// archive is for; absolute names count from there.
func escapes(name string) bool {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	return !strings.HasPrefix(name, "/") && (clean == ".." || strings.HasPrefix(clean, "../"))
}

func (u *untar) entry(hdr *tar.Header, name string, in io.Reader) error {
	dir, base := path.Split(name)
	if err := u.enter(strings.TrimSuffix(dir, "/")); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Fstatat(u.parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && err != unix.ENOENT {
		return err
	}
	made := true
	if err == nil {
		was, is := st.Mode&unix.S_IFMT == unix.S_IFDIR, hdr.Typeflag == tar.TypeDir
		switch {
		case was && !is && u.o.NoOverwriteDirNonDir:
			return errs.Newf(errs.Invalid, "cannot overwrite directory %q with non-directory %q", "/"+name, u.at())
		case !was && is && u.o.NoOverwriteDirNonDir:
			return errs.Newf(errs.Invalid, "cannot overwrite non-directory %q with directory %q", "/"+name, u.at())
		case was && is:
			made = false
		default:
			if err := removeAt(u.parent, base); err != nil {
				return err
			}
		}
	}
	switch {
	case made && hdr.Typeflag == tar.TypeLink:
		return u.link(hdr, base)
	case made && isFile(hdr):
		return u.file(hdr, base, in)
	case made:
		if err := u.make(hdr, base, in); err != nil {
			return err
		}
	}
	return u.describe(hdr, base)
}

func isFile(hdr *tar.Header) bool {
	switch hdr.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeGNUSparse, tar.TypeCont:
		return true
	}
	return false
}

// file makes a file and gives it all its attributes by its descriptor: the
// container may put something else in its place at any time.
func (u *untar) file(hdr *tar.Header, base string, in io.Reader) error {
	fd, err := unix.Openat(u.parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	_, err = fill(u.ctx, f, hdr, in, u.buf)
	if err == nil {
		err = setAttributes(fd, hdr)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// describe sets the attributes of a directory, link or node, if it still is one.
func (u *untar) describe(hdr *tar.Header, base string) error {
	fd, err := unix.Openat(u.parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != typeOf(hdr) {
		return errs.Newf(errs.Conflict, "changed while it was written")
	}
	return setAttributes(fd, hdr)
}

func typeOf(hdr *tar.Header) uint32 {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return unix.S_IFDIR
	case tar.TypeSymlink:
		return unix.S_IFLNK
	case tar.TypeFifo:
		return unix.S_IFIFO
	case tar.TypeChar:
		return unix.S_IFCHR
	case tar.TypeBlock:
		return unix.S_IFBLK
	}
	return unix.S_IFREG
}

// setAttributes sets owner, mode, extended attributes and time of what fd,
// which may only name, stands for.
func setAttributes(fd int, hdr *tar.Header) error {
	if err := unix.Fchownat(fd, "", hdr.Uid, hdr.Gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("owner %d:%d: %w", hdr.Uid, hdr.Gid, err)
	}
	if hdr.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(selfFD(fd), uint32(hdr.Mode&0o7777)); err != nil {
			return err
		}
		for k, v := range hdr.PAXRecords {
			k, ok := strings.CutPrefix(k, paxXattr)
			if !ok || !mayApplyXattr(k) {
				continue
			}
			err := unix.Setxattr(selfFD(fd), k, []byte(v), 0)
			if err != nil && err != unix.ENOTSUP && (err != unix.EPERM || !strings.HasPrefix(k, "user.")) {
				return fmt.Errorf("set %s: %w", k, err)
			}
		}
	}
	ts := unix.NsecToTimespec(bounded(hdr.ModTime).UnixNano())
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
}

func (u *untar) at() string { return u.root.pathOf(u.dest) }

func (u *untar) link(hdr *tar.Header, base string) error {
	target, err := cleanName(hdr.Linkname)
	if err != nil {
		return err
	}
	dir, last := path.Split(target)
	if last == "" {
		return errs.Newf(errs.Invalid, "hard link to %q", hdr.Linkname)
	}
	from, err := u.openDir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", hdr.Linkname, err)
	}
	defer func() { _ = unix.Close(from) }()
	if err := unix.Linkat(from, last, u.parent, base, 0); err != nil {
		return fmt.Errorf("hard link to %q: %w", hdr.Linkname, err)
	}
	return nil
}

// enter makes the directory name below the destination the current one, and
// what of it is missing.
func (u *untar) enter(name string) error {
	if u.parent >= 0 && u.parentName == name {
		return nil
	}
	u.leave()
	fd, err := u.openDir(name)
	if errors.Is(err, unix.ENOENT) {
		fd, err = u.makeDirs(name)
	}
	if err != nil {
		return fmt.Errorf("parent directory: %w", err)
	}
	u.parent, u.parentName = fd, name
	return nil
}

// openDir opens a directory below the destination. A link that leads out of the
// destination is followed inside the container's root.
func (u *untar) openDir(name string) (int, error) {
	if name == "" {
		return reopenDir(u.dest)
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	for {
		fd, err := unix.Openat2(u.dest, name, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
		switch err {
		case unix.EAGAIN, unix.EINTR:
		case unix.EXDEV:
			return mnt.OpenIn(u.root.fd, path.Join(u.at(), name), flags, 0)
		default:
			return fd, err
		}
	}
}

func (u *untar) makeDirs(name string) (int, error) {
	cur, err := reopenDir(u.dest)
	if err != nil {
		return -1, err
	}
	at := ""
	for part := range strings.SplitSeq(name, "/") {
		at = path.Join(at, part)
		err := unix.Mkdirat(cur, part, 0o755)
		if err == nil && u.uid >= 0 {
			err = unix.Fchownat(cur, part, u.uid, u.gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		_ = unix.Close(cur)
		if err != nil && err != unix.EEXIST {
			return -1, err
		}
		if cur, err = u.openDir(at); err != nil {
			return -1, err
		}
	}
	return cur, nil
}

// maxUserFile bounds /etc/passwd and /etc/group of a container.
const maxUserFile = 10 << 20

// lookup finds a user and its primary group in the container's own files.
func (r *Root) lookup(spec string) (uid, gid int, err error) {
	passwd, err := r.userFile("/etc/passwd")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = passwd.Close() }()
	group, err := r.userFile("/etc/group")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = group.Close() }()
	found, err := user.GetExecUser(spec, nil, io.LimitReader(passwd, maxUserFile), io.LimitReader(group, maxUserFile))
	if err != nil {
		return 0, 0, errs.With(errs.Invalid, err)
	}
	return found.Uid, found.Gid, nil
}

// CheckUser refuses a user or group that the container's own files do not know.
func (r *Root) CheckUser(spec string) error {
	_, _, err := r.lookup(spec)
	return err
}

// userFile opens a regular file of the container's, or nothing if there is none.
func (r *Root) userFile(p string) (io.ReadCloser, error) {
	at, err := mnt.OpenIn(r.fd, p, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	defer func() { _ = unix.Close(at) }()
	fd, err := mnt.OpenFile(at, -1)
	switch {
	case err == nil:
		f := os.NewFile(uintptr(fd), p)
		if st, err := f.Stat(); err == nil && st.Size() <= maxUserFile {
			return f, nil
		}
		_ = f.Close()
	case !errors.Is(err, mnt.ErrNotRegular):
		return nil, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	return nil, errs.Newf(errs.Invalid, "%s of the container is not a regular file of at most %s bytes", p, strconv.Itoa(maxUserFile))
}
