package logs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
)

// file is a log's current file with its rotated ones: path, path.1 (the newest
// of them), path.2 … or path.1.gz … It is not safe for concurrent use.
type file struct {
	path     string
	f        *os.File
	id       fileID // of f
	size     int64
	maxSize  int64 // 0 or less: never rotated
	maxFiles int
	compress bool
	packing  sync.WaitGroup // a rotated file is being compressed
	hold     *hold          // nil: rotation drops files freely
}

// repairFunc tells how much of a file is whole; what comes after is cut off.
type repairFunc func(f *os.File, size int64) (int64, error)

func openFile(path string, maxSize int64, maxFiles int, compress bool, repair repairFunc) (*file, error) {
	w := &file{path: path, maxSize: maxSize, maxFiles: max(maxFiles, 1), compress: compress}
	if err := w.open(repair); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *file) open(repair repairFunc) error {
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("open log: %s is not a regular file", w.path)
	}
	size := int64(0)
	if err == nil {
		size = st.Size()
	}
	if err == nil && size > 0 && repair != nil {
		if size, err = repair(f, size); err == nil && size < st.Size() {
			err = f.Truncate(size)
		}
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	w.f, w.id, w.size = f, idOf(f), size
	return nil
}

// append writes b as a whole or not at all.
func (w *file) append(b []byte) error {
	n, err := w.f.Write(b)
	if err != nil {
		if n > 0 {
			_ = w.f.Truncate(w.size)
		}
		return fmt.Errorf("write log: %w", err)
	}
	w.size += int64(n)
	return nil
}

// full reports whether n more bytes call for a new file.
func (w *file) full(n int) bool {
	return w.maxSize > 0 && w.size > 0 && w.size+int64(n) > w.maxSize
}

// rotate starts a new file. Readers find the old one by its fileID. When it
// fails, the log goes on in the old file.
func (w *file) rotate() error {
	w.packing.Wait()
	if err := w.hold.await(w); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	fresh := w.path + ".new"
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if w.maxFiles > 1 {
		err = w.shift()
	}
	if err == nil {
		err = os.Rename(fresh, w.path)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(fresh)
		return fmt.Errorf("rotate log: %w", err)
	}
	id := w.id
	_ = w.f.Close()
	w.f, w.id, w.size = f, idOf(f), 0
	if w.compress && w.maxFiles > 1 {
		w.packing.Go(func() {
			_ = pack(w.path+".1", id) // on failure it is left as it is: readers take both
		})
	}
	return nil
}

// shift renames path.n to path.n+1, from the oldest on, and path to path.1.
func (w *file) shift() error {
	for n := w.maxFiles - 1; n >= 1; n-- {
		for _, ext := range []string{"", ".gz"} {
			from := w.path + "." + strconv.Itoa(n) + ext
			var err error
			if n == w.maxFiles-1 {
				err = os.Remove(from)
			} else {
				err = os.Rename(from, w.path+"."+strconv.Itoa(n+1)+ext)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return os.Rename(w.path, w.path+".1")
}

func (w *file) close() error {
	w.packing.Wait()
	return w.f.Close()
}

// fileID tells a file from every other, through renames; the time of its birth
// is there because inodes are used again.
type fileID struct {
	ino  uint64
	born int64
}

func identify(dirfd int, name string, flags int) (fileID, bool) {
	var st unix.Statx_t
	if unix.Statx(dirfd, name, flags|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st) != nil {
		return fileID{}, false
	}
	return fileID{st.Ino, st.Btime.Sec*1e9 + int64(st.Btime.Nsec)}, true
}

func idOf(f *os.File) fileID {
	id, _ := identify(int(f.Fd()), "", unix.AT_EMPTY_PATH) //nolint:gosec // a descriptor fits
	return id
}

// pack replaces a rotated file by its compressed form, whose comment says which
// file it was, for readers that have that open.
func pack(path string, id fileID) (err error) {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	tmp := path + ".gz.tmp"
	dst, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = dst.Close()
			_ = os.Remove(tmp)
		}
	}()
	z, err := gzip.NewWriterLevel(dst, gzip.BestSpeed)
	if err != nil {
		return err
	}
	z.Comment = id.String()
	if _, err = io.Copy(z, src); err != nil {
		return err
	}
	if err = z.Close(); err != nil {
		return err
	}
	if err = dst.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}

func (id fileID) String() string { return fmt.Sprintf("file %d %d", id.ino, id.born) }

func parseFileID(s string) (id fileID) {
	if n, err := fmt.Sscanf(s, "file %d %d", &id.ino, &id.born); n != 2 || err != nil {
		return fileID{} // docker's own, say
	}
	return id
}
