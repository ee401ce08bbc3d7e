// Package archive makes and unpacks the tar streams that the command line
// exchanges with a daemon: build contexts and copies.
package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Entry says what becomes of one file of a tree.
type Entry int

// What [Packer.Select] may answer.
const (
	Include  Entry = iota
	Omit           // leave it out, look below
	OmitTree       // leave it out with all below
)

// Packer writes trees into a tar stream.
type Packer struct {
	tw *tar.Writer
	// Select decides about each file by its slash-separated path below the
	// root; nil includes everything.
	Select func(rel string, info fs.FileInfo) (Entry, error)
	// ZeroOwner records root as the owner of everything.
	ZeroOwner bool

	links map[inode]string
	buf   []byte
}

// inode tells files that are one, by hard links.
type inode struct{ dev, ino uint64 }

// NewPacker returns a Packer that writes to w.
func NewPacker(w io.Writer) *Packer {
	return &Packer{tw: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, 128<<10)}
}

// Close ends the stream.
func (p *Packer) Close() error { return p.tw.Close() }

// AddBytes adds a regular file that is not on disk.
func (p *Packer) AddBytes(name string, content []byte, mode fs.FileMode, modified time.Time) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: int64(mode.Perm()), ModTime: modified}
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := p.tw.Write(content)
	return err
}

// AddTree adds a file, or a directory with all below it, under a name; "" or
// "." puts a directory's contents at the top of the archive.
func (p *Packer) AddTree(root, name string) error {
	if name == "" {
		name = "."
	}
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(root, file)
		if relErr != nil {
			return relErr
		}
		rel = filepath.ToSlash(rel)
		if err != nil {
			// What is left out need not be readable.
			if d != nil && p.Select != nil && rel != "." {
				if info, ierr := d.Info(); ierr == nil {
					if e, serr := p.Select(rel, info); serr == nil && e != Include {
						return skip(e, d.IsDir())
					}
				}
			}
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		if p.Select != nil && rel != "." {
			e, err := p.Select(rel, info)
			if err != nil {
				return err
			}
			if e != Include {
				return skip(e, d.IsDir())
			}
		}
		return p.add(file, path.Join(name, rel), info)
	})
}

func skip(e Entry, dir bool) error {
	if e == OmitTree && dir {
		return fs.SkipDir
	}
	return nil
}

// AddFile adds one file without what is below it.
func (p *Packer) AddFile(file, name string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	return p.add(file, name, info)
}

func (p *Packer) add(file, name string, info fs.FileInfo) error {
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, filepath.ToSlash(link))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	h.Name = name
	if info.IsDir() && !strings.HasSuffix(name, "/") {
		h.Name += "/"
	}
	h.ModTime = h.ModTime.Truncate(time.Second)
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	h.Mode = portableMode(h.Mode)
	if p.ZeroOwner {
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	}
	if c := capability(file, info); c != "" {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": c}
	}
	if id, shared := linkedInode(info); shared {
		if first, seen := p.links[id]; seen {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			p.links[id] = h.Name
		}
	}
	if h.Typeflag != tar.TypeReg || h.Size == 0 {
		return p.tw.WriteHeader(h)
	}
	return p.addContent(file, h)
}

func (p *Packer) addContent(file string, h *tar.Header) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{p.tw}, io.LimitReader(f, h.Size), p.buf)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if n < h.Size {
		return fmt.Errorf("%s: shrank while it was read", file)
	}
	return nil
}
