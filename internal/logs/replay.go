package logs

import (
	"io"
	"os"
	"time"
)

// Place is a place in a log: where its next write goes.
type Place struct {
	Ino  uint64
	Born int64
	Size int64
}

// Replayer is a Writer that can go on after a crash in mid-write: whoever keeps
// what comes until it is logged, and the place of before, has each byte there once.
type Replayer interface {
	Writer
	// Place tells where the log ends, and how many of the bytes written last are
	// held back.
	Place(stream byte) (m Place, held int)
	// Replay writes what may have been written, in part or whole, since the place.
	Replay(stream byte, at time.Time, p []byte, since Place) error
}

var (
	_ Replayer = (*localWriter)(nil)
	_ Replayer = (*jsonWriter)(nil)
)

func (w *file) place() Place { return Place{w.id.ino, w.id.born, w.size} }

// Place implements Replayer.
func (w *localWriter) Place(byte) (Place, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.f.place(), 0
}

// Replay implements Replayer: frames hold the bytes as they came.
func (w *localWriter) Replay(stream byte, at time.Time, p []byte, since Place) error {
	done := 0
	err := recordsSince(w.f.path, since, localFormat{}.decode, func(r *record) {
		if r.stream == stream {
			done += len(r.data)
		}
	})
	if err != nil || done >= len(p) {
		return err
	}
	return w.Write(stream, at, p[done:])
}

// Place implements Replayer.
func (w *jsonWriter) Place(stream byte) (Place, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.f.place(), len(w.held[stream-1])
}

// Replay implements Replayer: the same bytes become the same records, so those
// that are there are left out.
func (w *jsonWriter) Replay(stream byte, at time.Time, p []byte, since Place) error {
	done := 0
	err := recordsSince(w.f.path, since, (&jsonFormat{}).decode, func(r *record) {
		if r.stream == stream {
			done++
		}
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.skip[stream-1] = done
	w.mu.Unlock()
	err = w.Write(stream, at, p)
	w.mu.Lock()
	if w.skip[stream-1] > 0 { // what would be held back is there too: the log was closed
		w.held[stream-1] = nil
	}
	w.skip[stream-1] = 0
	w.mu.Unlock()
	return err
}

type decodeFunc func(b []byte, off int64, f func(*record) bool) int

// recordsSince calls f for all that was logged after the place, in the file of
// the place and those that came after it. If that one is gone, it was long ago.
func recordsSince(path string, since Place, decode decodeFunc, f func(*record)) error {
	all := list(path)
	for n, e := range all {
		if e.gz || e.id != (fileID{since.Ino, since.Born}) {
			continue
		}
		from := since.Size
		for ; n >= 0; n-- {
			if all[n].gz {
				continue
			}
			if err := eachRecord(all[n].name, from, decode, f); err != nil {
				return err
			}
			from = 0
		}
		return nil
	}
	return nil
}

func eachRecord(name string, from int64, decode decodeFunc, f func(*record)) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	b := make([]byte, 0, 4*blockSize)
	for {
		n, err := file.ReadAt(b[len(b):cap(b)], from+int64(len(b)))
		b = b[:len(b)+n]
		done := decode(b, from, func(r *record) bool { f(r); return true })
		if err == io.EOF || n == 0 && done == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		from += int64(done)
		b = b[:copy(b, b[done:])]
	}
}
