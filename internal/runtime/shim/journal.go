//go:build linux

package shim

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/logs"
)

// A journal is where the bytes of one stream are between its fifo and its log.
// The kernel moves them from the fifo into this file (splice), which a kill
// cannot cut in two: they are in the one or in the other. What was moved and not
// logged is replayed by the next shim. Its head says how far the log has got:
//
//	0   8  all before this offset is logged
//	8  24  end of the log then (inode, birth, size)
//	64     the stream; what is logged is punched out again
type journal struct {
	path   string
	stream byte

	f       *os.File // nil until something comes
	fd      int
	size    int64
	done    int64 // as in the head
	punched int64
	broken  bool // the file cannot be written: the stream goes without
}

const (
	journalStart = 64
	journalHead  = 32
	journalSlack = 1 << 20 // punched out when it is more
	pageSize     = 4096
)

func journalPath(dir string, stream byte) string {
	return filepath.Join(dir, "j"+itoa(int(stream)))
}

// journals are those of a process with pipes and a log; terminals have none,
// since nothing can be spliced from them.
func journals(dir string, r *record, out LogWriter) (js [2]*journal) {
	if _, ok := out.(logs.Replayer); !ok || r.IO.TTY {
		return js
	}
	for i := range js {
		js[i] = &journal{path: journalPath(dir, byte(i+1)), stream: byte(i + 1)}
	}
	return js
}

func (j *journal) open(log logs.Replayer) error {
	fd, err := unix.Open(j.path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	j.f, j.fd = os.NewFile(uintptr(fd), j.path), fd
	j.size, j.done, j.punched = journalStart, journalStart, journalStart
	return j.logged(log)
}

// take moves what the pipe holds into the journal, and reads it from there.
func (j *journal) take(log logs.Replayer, pipe int, buf []byte) (int, error) {
	if j.f == nil && !j.broken && waiting(pipe) {
		j.broken = j.open(log) != nil
	}
	if j.f == nil || j.broken {
		return unix.Read(pipe, buf)
	}
	off := j.size
	n, err := unix.Splice(pipe, nil, j.fd, &off, len(buf), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	switch {
	case err == unix.EAGAIN && j.done-j.punched > pageSize:
		j.punch()
		return 0, err
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, err
	case err != nil: // no room, say
		j.broken = true
		return unix.Read(pipe, buf)
	case n == 0:
		return 0, nil
	}
	j.size += n
	return unix.Pread(j.fd, buf[:n], j.size-n)
}

// waiting tells whether a pipe has something to read.
func waiting(pipe int) bool {
	n, err := unix.IoctlGetInt(pipe, unix.TIOCINQ)
	return err == nil && n > 0
}

// logged notes that the log has all but what it holds back.
func (j *journal) logged(log logs.Replayer) error {
	if j.f == nil || j.broken {
		return nil
	}
	place, held := log.Place(j.stream)
	j.done = j.size - int64(held)
	if err := j.writeHead(place); err != nil {
		j.broken = true
		return err
	}
	if j.done-j.punched > journalSlack {
		j.punch()
	}
	return nil
}

func (j *journal) writeHead(m logs.Place) error {
	var h [journalHead]byte
	binary.LittleEndian.PutUint64(h[0:], uint64(j.done))
	binary.LittleEndian.PutUint64(h[8:], m.Ino)
	binary.LittleEndian.PutUint64(h[16:], uint64(m.Born))
	binary.LittleEndian.PutUint64(h[24:], uint64(m.Size))
	_, err := unix.Pwrite(j.fd, h[:], 0)
	return err
}

func (j *journal) punch() {
	from := (j.punched + pageSize - 1) / pageSize * pageSize
	to := j.done / pageSize * pageSize
	if to > from && unix.Fallocate(j.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from) == nil {
		j.punched = to
	} else {
		j.punched = j.done // not on this file system: it may grow
	}
}

// recover replays what an earlier shim has taken and not logged, and goes on
// with its journal.
func (j *journal) recover(log logs.Replayer) error {
	fd, err := unix.Open(j.path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: j.path, Err: err}
	}
	j.f, j.fd = os.NewFile(uintptr(fd), j.path), fd
	var h [journalHead]byte
	n, err := unix.Pread(fd, h[:], 0)
	if err != nil {
		return &os.PathError{Op: "read", Path: j.path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: j.path, Err: err}
	}
	j.size = max(st.Size, journalStart)
	j.done, j.punched = journalStart, journalStart
	if n == journalHead { // or it was killed before anything came
		j.done = min(max(int64(binary.LittleEndian.Uint64(h[0:])), journalStart), j.size)
	}
	if rest := j.size - j.done; rest > 0 && rest < journalSlack {
		p := make([]byte, rest)
		if _, err := j.f.ReadAt(p, j.done); err != nil {
			return err
		}
		place := logs.Place{
			Ino: binary.LittleEndian.Uint64(h[8:]), Born: int64(binary.LittleEndian.Uint64(h[16:])), Size: int64(binary.LittleEndian.Uint64(h[24:])),
		}
		if err := log.Replay(j.stream, time.Now(), p, place); err != nil {
			return err
		}
	}
	return j.logged(log)
}

// finish notes that the log has been closed, and so has everything.
func (j *journal) finish() {
	if j.f != nil && !j.broken {
		j.done = j.size
		_ = j.writeHead(logs.Place{})
	}
}

func (j *journal) close() {
	if j.f != nil {
		_ = j.f.Close()
		j.f = nil
	}
	_ = unix.Unlink(j.path)
}
