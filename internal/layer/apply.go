package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Limits of what one layer may unpack to.
type Limits struct {
	Bytes   int64 // of all files together
	Entries int64
}

// defaultLimits are far above any real layer and below what would stop a host.
var defaultLimits = Limits{Bytes: 512 << 30, Entries: 20_000_000}

// Applied tells what [Apply] made.
type Applied struct {
	Bytes, Entries int64 // file contents; entries
	// Implicit are directories that the archive did not contain, but had
	// something in: their owner and mode are those of the layer below.
	Implicit []string
}

// Apply unpacks a layer's uncompressed archive into dir, which becomes the
// upper directory of an overlay: whiteouts are devices 0:0, opaque directories
// carry the attribute. It needs nothing of the layers below, so that layers
// unpack side by side. All of r is read. Every step is relative to a
// descriptor and cannot leave dir, whatever links the archive holds.
func Apply(ctx context.Context, dir string, r io.Reader, lim Limits) (Applied, error) {
	if lim.Bytes == 0 {
		lim.Bytes = defaultLimits.Bytes
	}
	if lim.Entries == 0 {
		lim.Entries = defaultLimits.Entries
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Applied{}, fmt.Errorf("unpack into %s: %w", dir, err)
	}
	a := &applier{ctx: ctx, root: root, lim: lim, parent: -1, implicit: map[string]bool{}, buf: make([]byte, 256<<10)}
	defer a.close()
	if err := a.all(r); err != nil {
		return Applied{}, err
	}
	for p := range a.implicit {
		a.did.Implicit = append(a.did.Implicit, p)
	}
	slices.Sort(a.did.Implicit)
	return a.did, nil
}

type applier struct {
	ctx      context.Context
	root     int
	lim      Limits
	did      Applied
	implicit map[string]bool
	dirs     []dirTime
	buf      []byte

	parent     int // descriptor of parentName, kept: entries of a directory come together
	parentName string
}

type dirTime struct {
	name  string
	mtime time.Time
}

func (a *applier) close() {
	a.leave()
	_ = unix.Close(a.root)
}

func (a *applier) leave() {
	if a.parent >= 0 {
		_ = unix.Close(a.parent)
	}
	a.parent, a.parentName = -1, ""
}

func (a *applier) all(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		if err := a.ctx.Err(); err != nil {
			return context.Cause(a.ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read layer archive: %w", err)
		}
		a.did.Entries++
		if a.did.Entries > a.lim.Entries {
			return errs.Newf(errs.Invalid, "layer archive has more than %d entries", a.lim.Entries)
		}
		if hdr.Size < 0 || hdr.Size > a.lim.Bytes-a.did.Bytes {
			return errs.Newf(errs.Invalid, "layer archive unpacks to more than %d bytes", a.lim.Bytes)
		}
		if err := a.entry(hdr, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", hdr.Name, err)
		}
	}
	// What follows the end marker belongs to the digest.
	if _, err := io.CopyBuffer(io.Discard, r, a.buf); err != nil {
		return fmt.Errorf("read layer archive: %w", err)
	}
	a.leave()
	for _, d := range slices.Backward(a.dirs) {
		if err := a.setDirTime(d); err != nil {
			return fmt.Errorf("set time of %q: %w", d.name, err)
		}
	}
	return nil
}

func (a *applier) setDirTime(d dirTime) error {
	fd, err := a.open(d.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil // a later entry replaced it
		}
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ts := unix.NsecToTimespec(d.mtime.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{ts, ts}, 0)
}

// open opens name below the root; links in it are resolved below the root.
func (a *applier) open(name string, flags int) (int, error) {
	if name == "" {
		name = "."
	}
	for {
		fd, err := unix.Openat2(a.root, name, &unix.OpenHow{
			Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
}

// enter makes the parent directory name the current one, and what of it is
// missing.
func (a *applier) enter(name string) error {
	if a.parent >= 0 && a.parentName == name {
		return nil
	}
	a.leave()
	fd, err := a.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		fd, err = a.makeParents(name)
	}
	if err != nil {
		return fmt.Errorf("parent directory: %w", err)
	}
	a.parent, a.parentName = fd, name
	return nil
}

func (a *applier) makeParents(name string) (int, error) {
	cur := ""
	for part := range strings.SplitSeq(name, "/") {
		above, err := a.open(cur, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return -1, err
		}
		cur = path.Join(cur, part)
		var made, opaque bool
		err = unix.Mkdirat(above, part, 0o755)
		if err == unix.EEXIST && isWhiteout(above, part) {
			// Removed, and made anew with something in it.
			if err = unix.Unlinkat(above, part, 0); err == nil {
				err = unix.Mkdirat(above, part, 0o755)
				opaque = true
			}
		}
		if err == nil {
			made = true
			err = unix.Fchmodat(above, part, 0o755, 0) // whatever the umask
			if err == nil && opaque {
				err = setOpaque(above, part)
			}
		} else if err == unix.EEXIST {
			err = nil
		}
		_ = unix.Close(above)
		if err != nil {
			return -1, err
		}
		if made && !opaque {
			a.implicit[cur] = true
		}
	}
	return a.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
}

func isWhiteout(dir int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func setOpaque(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Fsetxattr(fd, opaqueXattrs[0], []byte("y"), 0)
}

// cleanName returns the name below the root without "..", "" for the root.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 || len(name) >= unix.PathMax {
		return "", errs.New(errs.Invalid, "bad name in a layer archive")
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

func (a *applier) entry(hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(hdr.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if hdr.Typeflag != tar.TypeDir {
			return nil
		}
		return a.rootAttributes(hdr)
	}
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if err := a.enter(dir); err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(dir, base)
	}
	return a.create(hdr, name, base, r)
}

func (a *applier) rootAttributes(hdr *tar.Header) error {
	if err := unix.Fchown(a.root, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	a.dirs = append(a.dirs, dirTime{"", bounded(hdr.ModTime)})
	return unix.Fchmod(a.root, uint32(hdr.Mode&0o7777))
}

func (a *applier) whiteout(dir, base string) error {
	if base == whiteoutOpaque {
		delete(a.implicit, dir) // nothing below is seen: its attributes are its own
		return unix.Fsetxattr(a.parent, opaqueXattrs[0], []byte("y"), 0)
	}
	if strings.HasPrefix(base, whiteoutPrefix+whiteoutPrefix) {
		return nil // bookkeeping of aufs
	}
	gone := strings.TrimPrefix(base, whiteoutPrefix)
	if gone == "" || gone == "." || gone == ".." {
		return errs.Newf(errs.Invalid, "bad whiteout %q", base)
	}
	err := unix.Mknodat(a.parent, gone, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		return err
	}
	// The layer also has something of that name, which hides what is below;
	// a directory would not.
	var st unix.Stat_t
	if err := unix.Fstatat(a.parent, gone, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		delete(a.implicit, path.Join(dir, gone))
		return setOpaque(a.parent, gone)
	}
	return nil
}

// create makes the entry, in place of an earlier one of the same name unless
// both are directories.
func (a *applier) create(hdr *tar.Header, name, base string, r io.Reader) error {
	err := a.make(hdr, base, r)
	if errors.Is(err, unix.EEXIST) {
		gone := isWhiteout(a.parent, base)
		if hdr.Typeflag == tar.TypeDir && !gone && isDir(a.parent, base) {
			err = nil
		} else {
			if err := removeAt(a.parent, base); err != nil {
				return err
			}
			err = a.make(hdr, base, r)
			if err == nil && gone && hdr.Typeflag == tar.TypeDir {
				err = setOpaque(a.parent, base)
			}
		}
	}
	if err != nil {
		return err
	}
	delete(a.implicit, name)
	if hdr.Typeflag == tar.TypeLink {
		return nil // the attributes are the first name's
	}
	if hdr.Typeflag == tar.TypeDir {
		a.dirs = append(a.dirs, dirTime{name, bounded(hdr.ModTime)})
	}
	return a.attributes(hdr, base)
}

func isDir(dir int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

func (a *applier) make(hdr *tar.Header, base string, r io.Reader) error {
	mode := uint32(hdr.Mode & 0o7777)
	switch hdr.Typeflag {
	case tar.TypeDir:
		return unix.Mkdirat(a.parent, base, 0o700)
	case tar.TypeReg, '\x00', tar.TypeGNUSparse, tar.TypeCont:
		return a.file(hdr, base, r)
	case tar.TypeSymlink:
		return unix.Symlinkat(hdr.Linkname, a.parent, base)
	case tar.TypeLink:
		return a.link(hdr, base)
	case tar.TypeFifo:
		return unix.Mknodat(a.parent, base, unix.S_IFIFO|mode, 0)
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if hdr.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		return unix.Mknodat(a.parent, base, kind|mode, int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))))
	}
	return errs.Newf(errs.Invalid, "unknown type %q of entry", hdr.Typeflag)
}

func (a *applier) file(hdr *tar.Header, base string, r io.Reader) error {
	fd, err := unix.Openat(a.parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	n, err := fill(a.ctx, f, hdr, r, a.buf)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	a.did.Bytes += n
	return err
}

func (a *applier) link(hdr *tar.Header, base string) error {
	target, err := cleanName(hdr.Linkname)
	if err != nil {
		return err
	}
	dir, last := path.Split(target)
	if last == "" {
		return errs.Newf(errs.Invalid, "hard link to the root")
	}
	from, err := a.open(strings.TrimSuffix(dir, "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", hdr.Linkname, err)
	}
	defer func() { _ = unix.Close(from) }()
	if err := unix.Linkat(from, last, a.parent, base, 0); err != nil {
		return fmt.Errorf("hard link to %q: %w", hdr.Linkname, err)
	}
	return nil
}

// attributes sets owner, mode, extended attributes and time of a new entry.
func (a *applier) attributes(hdr *tar.Header, base string) error {
	if err := unix.Fchownat(a.parent, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("owner %d:%d: %w", hdr.Uid, hdr.Gid, err)
	}
	if hdr.Typeflag != tar.TypeSymlink { // made by us a moment ago: no link
		if err := unix.Fchmodat(a.parent, base, uint32(hdr.Mode&0o7777), 0); err != nil {
			return err
		}
	}
	for k, v := range hdr.PAXRecords {
		k, ok := strings.CutPrefix(k, paxXattr)
		if !ok || !mayApplyXattr(k) {
			continue
		}
		err := unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", a.parent, base), k, []byte(v), 0)
		if err == unix.ENOTSUP || err == unix.EPERM && strings.HasPrefix(k, "user.") {
			continue // the file system, or this type of file, has none
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", k, err)
		}
	}
	if hdr.Typeflag == tar.TypeDir {
		return nil // its time comes last
	}
	ts := unix.NsecToTimespec(bounded(hdr.ModTime).UnixNano())
	return unix.UtimesNanoAt(a.parent, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// mayApplyXattr leaves out what steers overlayfs itself: an archive could
// redirect a directory to another one of the host's. Labels of SELinux are the
// host's.
func mayApplyXattr(k string) bool {
	return !strings.HasPrefix(k, "trusted.overlay.") && !strings.HasPrefix(k, "user.overlay.") && k != "security.selinux"
}

func bounded(t time.Time) time.Time {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(1<<33, 0)) {
		return time.Unix(0, 0)
	}
	return t
}

func removeAt(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAt(fd, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}
