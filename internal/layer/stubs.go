package layer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

const stubMode = 0o755

// The places docker has in every container beside what its image brings.
var (
	stubDirs  = [...]string{"dev", "dev/pts", "dev/shm", "etc", "proc", "sys"}
	stubFiles = [...]string{".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"}
	stubLinks = [...]struct{ name, to string }{{"etc/mtab", "/proc/mounts"}}
)

// stubDir is a directory of a stub layer, with what its image gives it.
type stubDir struct {
	name     string
	mode     uint32
	uid, gid uint32
}

// Stubs returns the directory, in base, of a layer to lie over an image's, whose
// layers are lowers, and under a container's own: what programs take as a sign
// of docker's (/.dockerenv), /etc/mtab, and places to mount on. Being below the
// container's own layer it is no change of the container's. As with docker the
// image's own such files are hidden; its directories are left as they are.
//
// The same layer serves all images that need the same one. One call at a time.
func Stubs(base string, lowers []string) (string, error) {
	dirs, err := neededDirs(lowers)
	if err != nil {
		return "", fmt.Errorf("look for mount points: %w", err)
	}
	sum := sha256.Sum256(fmt.Append(nil, dirs, stubFiles, stubLinks))
	dir := filepath.Join(base, hex.EncodeToString(sum[:8]))
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	half := dir + ".half" // left by a daemon that was killed, maybe
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	if err := makeStubs(half, dirs); err != nil {
		return "", fmt.Errorf("make a layer of mount points: %w", err)
	}
	return dir, os.Rename(half, dir)
}

// neededDirs lists the directories the layer has to have: those that the image
// lacks, and as they are those that files go in.
func neededDirs(lowers []string) ([]stubDir, error) {
	root := -1
	if len(lowers) > 0 {
		r, err := OpenRoot(&runtime.Rootfs{Lower: lowers})
		if err != nil {
			return nil, err
		}
		defer func() { _ = r.Close() }()
		root = r.fd
	}
	var out []stubDir
	for _, name := range stubDirs {
		d, err := neededDir(root, name)
		if err != nil {
			return nil, err
		}
		if d != nil {
			out = append(out, *d)
		}
	}
	return out, nil
}

// neededDir is nil where the image has something to be left alone.
func neededDir(root int, name string) (*stubDir, error) {
	missing := &stubDir{name: name, mode: stubMode}
	if root < 0 {
		return missing, nil
	}
	fd, err := mnt.OpenIn(root, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return missing, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // its parent is odd
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || !holdsStubs(name) {
		return nil, nil
	}
	return &stubDir{name: name, mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid}, nil
}

func holdsStubs(dir string) bool {
	for _, f := range stubFiles {
		if path.Dir(f) == dir {
			return true
		}
	}
	return false
}

func makeStubs(dir string, dirs []stubDir) error {
	if err := os.Mkdir(dir, stubMode); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	has := map[string]bool{".": true}
	for _, d := range dirs {
		if !has[path.Dir(d.name)] {
			continue
		}
		has[d.name] = true
		if err := root.Mkdir(d.name, stubMode); err != nil {
			return err
		}
		if err := root.Lchown(d.name, int(d.uid), int(d.gid)); err != nil {
			return err
		}
		if err := root.Chmod(d.name, fileMode(d.mode&0o7777)); err != nil {
			return err
		}
	}
	for _, name := range stubFiles {
		if has[path.Dir(name)] {
			if err := stubFile(root, name); err != nil {
				return err
			}
		}
	}
	for _, l := range stubLinks {
		if has[path.Dir(l.name)] {
			if err := root.Symlink(l.to, l.name); err != nil {
				return err
			}
		}
	}
	return nil
}

func stubFile(root *os.Root, name string) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, stubMode)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(stubMode), f.Close())
}
