package build

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"syscall"

	bkexec "github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// stubs are the empty files and directories that the launcher makes in a
// step's root to mount something on. They must not become part of the layer.
//
// Everything goes through descriptors of the root's own directories: a link that
// a step left cannot lead out of them.
type stubs struct {
	top   string   // where the step's changes are: the upper directory, or the bound one
	paths []string // what did not exist before, deepest first within a chain
}

// newStubs looks, before the step runs, which mount points do not exist.
func newStubs(r Rootfs, mounts []bkexec.Mount, recursive bool) (*stubs, error) {
	layers := append([]string(nil), r.Lower...)
	top := r.Bind
	if r.Upper != "" {
		top = r.Upper
	}
	if top == "" {
		return &stubs{}, nil // read-only: nothing can be made there
	}
	v, err := openView(append([]string{top}, layers...))
	if err != nil {
		return nil, err
	}
	defer v.close()
	s := &stubs{top: top}
	names := []string{"/etc/resolv.conf", "/etc/hosts"}
	for _, m := range mounts {
		names = append(names, m.Dest)
	}
	for _, n := range names {
		n = path.Clean("/" + n)
		for n != "/" {
			real, exists, err := v.resolve(n)
			if err != nil || exists || real == "/" {
				break
			}
			s.paths = append(s.paths, real)
			if !recursive {
				break
			}
			n = path.Dir(real)
		}
	}
	return s, nil
}

// remove takes away those that are there now and still empty. What cannot be
// removed stays: it is only an empty file in a layer.
func (s *stubs) remove(ctx context.Context, log *slog.Logger) {
	if len(s.paths) == 0 {
		return
	}
	root, err := unix.Open(s.top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		log.WarnContext(ctx, "cannot remove mount stubs", "dir", s.top, "error", err)
		return
	}
	defer func() { _ = unix.Close(root) }()
	for _, p := range s.paths {
		if err := removeStub(root, strings.TrimPrefix(p, "/")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.DebugContext(ctx, "a mount stub stays", "path", p, "error", err)
		}
	}
}

// removeStub only names things: the step may have put a pipe or a device in the
// place of each of them.
func removeStub(root int, p string) error {
	dir, err := mnt.DirBelow(root, path.Dir(p))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	name := path.Base(p)
	var st, parent unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	flags := 0
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFDIR:
		flags = unix.AT_REMOVEDIR // fails if something is in it
	case kind != unix.S_IFREG || st.Size != 0:
		return nil
	}
	if err := unix.Fstat(dir, &parent); err != nil {
		return err
	}
	if err := unix.Unlinkat(dir, name, flags); err != nil {
		return err
	}
	// Keep the times of the directory, so that a build can be reproduced.
	return unix.UtimesNanoAt(dir, "", []unix.Timespec{parent.Atim, parent.Mtim}, unix.AT_EMPTY_PATH)
}

// view reads an overlay's merged names from its directories, without mounting it.
type view struct{ layers []*os.Root } // topmost first

func openView(dirs []string) (*view, error) {
	v := &view{}
	for _, d := range dirs {
		r, err := os.OpenRoot(d)
		if err != nil {
			v.close()
			return nil, err
		}
		v.layers = append(v.layers, r)
	}
	return v, nil
}

func (v *view) close() {
	for _, l := range v.layers {
		_ = l.Close()
	}
}

// maxLinks bounds the symbolic links followed for one name, as the kernel does.
const maxLinks = 40

// resolve follows the links in a name, inside the root. For what does not
// exist it returns the name where it would be made.
func (v *view) resolve(name string) (real string, exists bool, err error) {
	todo := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	real, exists = "/", true
	links := 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			real = path.Dir(real)
			continue
		}
		next := path.Join(real, part)
		if !exists {
			real = next
			continue
		}
		st, target, err := v.lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			real, exists = next, false
			continue
		case err != nil:
			return "", false, err
		case st.Mode()&fs.ModeSymlink == 0:
			real = next
			continue
		}
		if links++; links > maxLinks {
			return "", false, &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
		}
		if path.IsAbs(target) {
			real = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return real, exists, nil
}

// lstat looks a name up whose directories are none but directories in the
// merged view: in the topmost layer that has it, unless a layer above hides it.
func (v *view) lstat(name string) (fs.FileInfo, string, error) {
	rel := strings.TrimPrefix(name, "/")
	for _, l := range v.layers {
		st, last, err := look(l, rel)
		if err != nil {
			return nil, "", err
		}
		if st != nil {
			if whiteout(st) {
				break
			}
			var target string
			if st.Mode()&fs.ModeSymlink != 0 {
				target, err = l.Readlink(rel)
			}
			return st, target, err
		}
		if last {
			break
		}
	}
	return nil, "", &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
}

// look finds the name in one layer; last says that layers below do not show
// through here: a directory above the name is opaque, or is no directory.
func look(l *os.Root, rel string) (st fs.FileInfo, last bool, err error) {
	for i, c := range rel {
		if c != '/' {
			continue
		}
		dir := rel[:i]
		st, err := l.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, last, nil
		case err != nil:
			return nil, false, err
		case !st.IsDir():
			return nil, true, nil
		}
		last = last || opaque(l, dir)
	}
	st, err = l.Lstat(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, last, nil
	}
	return st, last, err
}

func whiteout(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && st.Mode()&fs.ModeCharDevice != 0 && sys.Rdev == 0
}

func opaque(l *os.Root, dir string) bool {
	f, err := l.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0) // a directory, or nothing is opened
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	n, err := unix.Fgetxattr(int(f.Fd()), "trusted.overlay.opaque", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}
