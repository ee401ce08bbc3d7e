package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// Unpack extracts a tar stream below dir. Nothing it holds is written outside
// dir: paths are resolved by the kernel below it (os.Root), whatever links the
// stream makes on the way. Files belong to the caller.
//
// rename, if not nil, gives each entry's path another one; "" leaves it out.
func Unpack(r io.Reader, dir string, rename func(string) string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := unpacker{root: root, buf: make([]byte, 128<<10)}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(strings.TrimLeft(h.Name, "/"))
		link := path.Clean(strings.TrimLeft(h.Linkname, "/"))
		if rename != nil {
			name, link = rename(name), rename(link)
		}
		if name == "" {
			continue
		}
		if err := u.entry(h, name, link, tr); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	// Last, since every file made in a directory changes its time.
	for i := len(u.dirs) - 1; i >= 0; i-- {
		d := u.dirs[i]
		_ = u.root.Chmod(d.name, d.mode)
		_ = u.root.Chtimes(d.name, d.modified, d.modified)
	}
	return nil
}

type unpacker struct {
	root *os.Root
	dirs []madeDir
	buf  []byte
}

type madeDir struct {
	name     string
	mode     fs.FileMode
	modified time.Time
}

func (u *unpacker) entry(h *tar.Header, name, link string, content io.Reader) error {
	if !fs.ValidPath(name) {
		return errors.New("the archive has a path that leads out of it")
	}
	if err := u.clear(h, name); err != nil {
		return err
	}
	if parent := path.Dir(name); parent != "." {
		if err := u.root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	mode := h.FileInfo().Mode()
	bits := mode & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	switch h.Typeflag {
	case tar.TypeDir:
		if err := u.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if name != "." {
			u.dirs = append(u.dirs, madeDir{name, bits, h.ModTime})
		}
		return nil
	case tar.TypeReg:
		return u.file(name, bits, h.ModTime, content)
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return u.root.Link(link, name)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		return u.special(h, name)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("unsupported kind of file %q", h.Typeflag)
}

// clear makes way for an entry. Only like replaces like: a directory is merged
// with a directory, anything else replaces anything else.
func (u *unpacker) clear(h *tar.Header, name string) error {
	st, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	isDir := h.Typeflag == tar.TypeDir
	switch {
	case st.IsDir() && !isDir:
		return errors.New("cannot overwrite directory with non-directory")
	case !st.IsDir() && isDir:
		return errors.New("cannot overwrite non-directory with directory")
	case st.IsDir():
		return nil
	}
	return u.root.Remove(name)
}

func (u *unpacker) file(name string, mode fs.FileMode, modified time.Time, content io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, content, u.buf); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return u.root.Chtimes(name, modified, modified)
}
