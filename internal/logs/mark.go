package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Mark is a place in a log of the local format, with what its reader wants to
// know when it goes on from there. It outlives that the file is renamed or
// compressed. The zero mark is the start of all that there is.
type Mark struct {
	file  fileID
	off   int64
	State []byte // at most MaxState
}

// MarkFile keeps a Mark over kills of the process. It has two slots that are
// written in turn: a kill in mid-write leaves the other one.
//
//	 0  8  how many marks were written, little-endian like all
//	 8 16  the file: inode, time of birth
//	24  8  offset
//	32  4  length of the state
//	36  4  check sum of all the other bytes
//	40     the state
type MarkFile struct {
	f   *os.File
	seq uint64
	buf []byte
}

const (
	markHead = 40
	markSlot = 48 << 10
	// MaxState is what a mark can carry along.
	MaxState = markSlot - markHead
)

// OpenMarkFile opens or makes the file, and returns the last mark written.
func OpenMarkFile(path string) (*MarkFile, Mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, Mark{}, fmt.Errorf("open log mark: %w", err)
	}
	m := &MarkFile{f: f}
	mark, seq := readMark(f)
	m.seq = seq
	return m, mark, nil
}

// Put records a mark.
func (m *MarkFile) Put(k Mark) error {
	if len(k.State) > MaxState {
		return fmt.Errorf("log mark: a state of %d bytes", len(k.State))
	}
	m.seq++
	b := append(m.buf[:0], make([]byte, markHead)...)
	le := binary.LittleEndian
	le.PutUint64(b, m.seq)
	le.PutUint64(b[8:], k.file.ino)
	le.PutUint64(b[16:], uint64(k.file.born)) //nolint:gosec // the same bits
	le.PutUint64(b[24:], uint64(k.off))       //nolint:gosec // not negative
	le.PutUint32(b[32:], uint32(len(k.State)))
	b = append(b, k.State...)
	le.PutUint32(b[36:], markSum(b))
	if m.buf = b; cap(b) > 1024 {
		m.buf = nil
	}
	if _, err := m.f.WriteAt(b, int64(m.seq%2)*markSlot); err != nil {
		return fmt.Errorf("write log mark: %w", err)
	}
	return nil
}

// Close closes the file.
func (m *MarkFile) Close() error { return m.f.Close() }

func markSum(b []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, t, b[:36]), t, b[markHead:])
}

// readMark returns the newer of the slots that are whole.
func readMark(f *os.File) (mark Mark, seq uint64) {
	for n := range int64(2) {
		b := make([]byte, markHead)
		if _, err := f.ReadAt(b, n*markSlot); err != nil {
			continue
		}
		size := binary.LittleEndian.Uint32(b[32:])
		if size > MaxState {
			continue
		}
		b = append(b, make([]byte, size)...)
		if _, err := f.ReadAt(b[markHead:], n*markSlot+markHead); err != nil {
			continue
		}
		if k, s, ok := parseMark(b); ok && s > seq {
			mark, seq = k, s
		}
	}
	return mark, seq
}

func parseMark(b []byte) (k Mark, seq uint64, ok bool) {
	le := binary.LittleEndian
	if len(b) < markHead || markSum(b) != le.Uint32(b[36:]) {
		return k, 0, false
	}
	k.file = fileID{le.Uint64(b[8:]), int64(le.Uint64(b[16:]))} //nolint:gosec // the same bits
	k.off = int64(le.Uint64(b[24:]))                            //nolint:gosec // the same bits
	if len(b) > markHead {
		k.State = b[markHead:]
	}
	return k, le.Uint64(b), k.off >= 0
}

// loadMark reads a mark that another process writes; none is the zero mark.
func loadMark(path string) (Mark, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Mark{}, nil
	}
	if err != nil {
		return Mark{}, err
	}
	defer func() { _ = f.Close() }()
	k, _ := readMark(f)
	return k, nil
}

// Same reports whether two marks are one.
func (k Mark) Same(o Mark) bool {
	return k.file == o.file && k.off == o.off && string(k.State) == string(o.State)
}
