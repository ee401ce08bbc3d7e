package logs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
)

// segment is one open file of a log. By its id its place among the others is
// found, however often they were renamed, or compressed, meanwhile: as long as
// the file is open, no other gets its inode.
type segment struct {
	f      *os.File
	packed *os.File // f is a decompressed copy of it
	id     fileID   // of the file, or of packed
	was    fileID   // of the file before it was packed; else id
	mod    time.Time
}

func (s *segment) close() {
	if s == nil {
		return
	}
	_ = s.f.Close()
	if s.packed != nil {
		_ = s.packed.Close()
	}
}

func (s *segment) size() (int64, error) {
	st, err := s.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// maxSegments bounds the search for rotated files: --log-opt max-file is
// unlimited, and a gap ends it anyway.
const maxSegments = 10000

// entry is what lies at one place of the rotation.
type entry struct {
	name string
	id   fileID
	gz   bool
	was  fileID // the file that was compressed
}

// list takes down the files of a log, the current one first. A rotation that is
// under way leaves one place empty at a time: what comes after it still counts.
func list(path string) []entry {
	var out []entry
	missing := false
	for n := range maxSegments {
		name := path
		if n > 0 {
			name += "." + strconv.Itoa(n)
		}
		id, ok := identify(unix.AT_FDCWD, name, 0)
		e := entry{name: name, id: id}
		if !ok && n > 0 {
			name += ".gz"
			if id, ok = identify(unix.AT_FDCWD, name, 0); ok {
				e = entry{name, id, true, packedID(name)}
			}
		}
		if !ok && missing {
			break
		}
		if missing = !ok; ok {
			out = append(out, e)
		}
	}
	return out
}

// settledList is list, taken while no rotation was under way.
func settledList(path string) []entry {
	now := list(path)
	for range 100 {
		again := list(path)
		if equalEntries(now, again) {
			return now
		}
		now = again
	}
	return now
}

func equalEntries(a, b []entry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// packedID reads which file a compressed one was.
func packedID(name string) fileID {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fileID{}
	}
	defer func() { _ = f.Close() }()
	// Only the header is looked at, by hand: the shim has no use for the rest of
	// what reads gzip.
	const head, hasComment = 10, 0x10
	b := make([]byte, head+64)
	n, _ := f.ReadAt(b, 0)
	b = b[:n]
	if n < head || b[0] != 0x1f || b[1] != 0x8b || b[3] != hasComment {
		return fileID{} // docker's own, say
	}
	text, _, _ := strings.Cut(string(b[head:]), "\x00")
	return parseFileID(text)
}

// openSegment opens an entry; one that was renamed or removed meanwhile is
// fs.ErrNotExist.
func openSegment(e entry) (*segment, error) {
	f, err := os.OpenFile(e.name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return nil, fmt.Errorf("%s is not a regular file", e.name)
	}
	if idOf(f) != e.id {
		_ = f.Close()
		return nil, fs.ErrNotExist
	}
	s := &segment{f: f, id: e.id, was: e.id, mod: st.ModTime()}
	if !e.gz {
		return s, nil
	}
	s.was = e.was
	s.packed = f
	if s.f, err = unpacked(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("read %s: %w", e.name, err)
	}
	return s, nil
}

// maxUnpacked bounds what a compressed segment may grow to.
const maxUnpacked = 4 << 30

// unpacked decompresses f into anonymous memory, where it can be read from the
// end as well.
func unpacked(f *os.File) (*os.File, error) {
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	out := os.NewFile(uintptr(fd), "log") //nolint:gosec // a descriptor fits
	if _, err := io.Copy(out, io.LimitReader(z, maxUnpacked)); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		_ = out.Close()
		return nil, err
	}
	return out, nil
}

// chain walks along a log's files.
type chain struct{ path string }

// newest opens the current file; nil if there is none yet.
func (c chain) newest() (*segment, error) { return c.open(func(l []entry) int { return 0 }) }

// oldest opens the oldest file there is.
func (c chain) oldest() (*segment, error) { return c.open(func(l []entry) int { return len(l) - 1 }) }

// older opens the file before s; nil if it is gone.
func (c chain) older(s *segment) (*segment, error) {
	return c.open(func(l []entry) int {
		if i := place(l, s); i >= 0 {
			return i + 1
		}
		return -1
	})
}

// newer opens the file after s; nil if s is the current one. When s itself was
// dropped, that is the oldest left.
func (c chain) newer(s *segment) (*segment, error) {
	return c.open(func(l []entry) int {
		if i := place(l, s); i >= 0 {
			return i - 1
		}
		return len(l) - 1
	})
}

func place(l []entry, s *segment) int {
	for i, e := range l {
		if e.id == s.id && e.gz == (s.packed != nil) {
			return i
		}
	}
	if s.packed == nil {
		// Compressed meanwhile. An older one may have had the same inode: the
		// newest it is.
		for i, e := range l {
			if e.gz && e.was == s.id {
				return i
			}
		}
	}
	return -1
}

func (c chain) open(pick func([]entry) int) (*segment, error) {
	for range 100 {
		l := settledList(c.path)
		i := pick(l)
		if i < 0 || i >= len(l) {
			return nil, nil
		}
		s, err := openSegment(l[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated just now
		}
		return s, err
	}
	return nil, fmt.Errorf("log %s rotates faster than it can be read", c.path)
}
