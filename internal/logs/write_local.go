package logs

import (
	"os"
	"sync"
	"time"
)

// localWriter writes frames. It holds nothing back: what Write returned for
// survives a kill of the process.
type localWriter struct {
	hold *hold

	mu   sync.Mutex // guards all below
	f    *file
	open [2]bool // the stream's last frame ended in mid-line
}

// bufs lends the buffers in which frames are put together: idle logs hold none.
var bufs = sync.Pool{New: func() any { b := make([]byte, 0, blockSize+2*frameHeader); return &b }}

func newLocalWriter(path string, maxSize int64, maxFiles int, compress bool, h *hold) (*localWriter, error) {
	w := &localWriter{hold: h}
	f, err := openFile(path, maxSize, maxFiles, compress, w.repair)
	if err != nil {
		return nil, err
	}
	f.hold = h
	w.f = f
	return w, nil
}

// repair finds the end of the last whole frame. The frames of the last block
// also tell which stream is in mid-line.
func (w *localWriter) repair(f *os.File, size int64) (int64, error) {
	b := make([]byte, blockSize)
	for start := (size - 1) / blockSize * blockSize; start >= 0; start -= blockSize {
		n, err := f.ReadAt(b[:min(blockSize, size-start)], start)
		if n == 0 && err != nil {
			return 0, err
		}
		end := int64(-1)
		localFormat{}.decode(b[:n], start, func(r *record) bool {
			end = r.off + frameHeader + int64(len(r.data))
			w.open[r.stream-1] = r.data[len(r.data)-1] != '\n'
			return true
		})
		if end >= 0 {
			return end, nil
		}
		size = start
	}
	return 0, nil
}

func (w *localWriter) Write(stream byte, at time.Time, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	buf := bufs.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= 2*blockSize {
			bufs.Put(buf)
		}
	}()
	for len(p) > 0 {
		n := min(len(p), maxPayload) // so that no write is larger than a file may be for long
		b := appendFrames((*buf)[:0], w.f.size, stream, w.open[stream-1], at.UnixNano(), p[:n])
		if w.f.full(len(b)) {
			if err := w.f.rotate(); err == nil {
				b = appendFrames((*buf)[:0], w.f.size, stream, w.open[stream-1], at.UnixNano(), p[:n])
			}
		}
		*buf = b
		if err := w.f.append(b); err != nil {
			return err
		}
		w.open[stream-1] = p[n-1] != '\n'
		p = p[n:]
	}
	return nil
}

// Release ends a Write that waits until the daemon has sent the log on.
func (w *localWriter) Release() { w.hold.release() }

func (w *localWriter) Close() error {
	w.Release()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.f.close()
}
