//go:build linux

package shim

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// LogWriter records what a container prints. A Write may wait for room, until
// Release is called, where the writer has that.
type LogWriter interface {
	Write(stream byte, at time.Time, p []byte) error
	Close() error
}

// A hub carries the streams of one process: what it prints goes to its log and
// to the attached clients, what those send goes to its stdin. It exists before
// the process if a client attaches early.
type hub struct {
	log *slog.Logger
	io  runtime.IO

	mu      sync.Mutex // guards all below, never held while reading or writing
	out     LogWriter
	stdin   *os.File // write end; with a terminal its master
	sources []*os.File
	clients []*attached
	used    bool          // a process has it
	begun   chan struct{} // closed once it carries, or never will
	ended   bool          // nothing will come any more
	hurried bool          // nobody holds the output back any more
	halted  bool          // nobody reads or writes: the shim is being replaced
	relay   *relay        // joins a terminal with passed descriptors
	logErr  bool

	// journals, by stream less one, of what goes to a log that can tell where it
	// ends. Each is its stream's reader's.
	journals [2]*journal

	// noStdin is told once nothing can be sent to the process any more.
	noStdin func()

	copying sync.WaitGroup // readers of the process's output
}

func newHub(log *slog.Logger, io runtime.IO) *hub {
	return &hub{log: log, io: io, begun: make(chan struct{})}
}

const bufferSize = 64 << 10

// bufferPool lends buffers to streams that have something to read.
type bufferPool struct{ p sync.Pool }

func (b *bufferPool) get() *[]byte {
	if v, ok := b.p.Get().(*[]byte); ok {
		return v
	}
	s := make([]byte, bufferSize)
	return &s
}

// start begins to carry: files are the read ends of stdout and stderr (or a
// terminal's master), nil where there is none.
func (h *hub) start(pool *bufferPool, out LogWriter, stdin *os.File, files ...*os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out, h.stdin = out, stdin
	for _, f := range files {
		if f != nil {
			h.sources = append(h.sources, f)
		}
	}
	h.carryAll(pool)
	close(h.begun)
}

// carryAll begins to read every source; h.mu is held.
func (h *hub) carryAll(pool *bufferPool) {
	for i, f := range h.sources {
		h.copying.Add(1)
		go h.carry(pool, byte(i+1), f)
	}
}

// carry copies one stream until its end. While nothing comes it holds no buffer.
func (h *hub) carry(pool *bufferPool, stream byte, f *os.File) {
	defer h.copying.Done()
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	read, logged := h.journaled(stream)
	grown := false
	for {
		var buf *[]byte
		var n int
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			buf = pool.get()
			n, rerr = read(int(fd), *buf)
			for rerr == unix.EINTR {
				n, rerr = read(int(fd), *buf)
			}
			if rerr == unix.EAGAIN {
				pool.p.Put(buf)
				return false
			}
			return true
		})
		if err != nil { // closed, or its time is up: what is there already is still read
			if !h.isHalted() { // by the next shim, if this one is being replaced
				h.drain(pool, stream, rc, read, logged)
			}
			return
		}
		if rerr != nil || n <= 0 { // a terminal ends with EIO
			pool.p.Put(buf)
			return
		}
		if n == len(*buf) && !grown && !h.io.TTY { // a busy one gets room
			grown = true
			if rc.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) }) != nil {
				return
			}
		}
		h.print(stream, time.Now(), (*buf)[:n])
		pool.p.Put(buf)
		logged()
	}
}

// journaled tells how a stream is read, and what to do when that is logged: by
// way of its journal, if it has one.
func (h *hub) journaled(stream byte) (read func(fd int, p []byte) (int, error), logged func()) {
	j := h.journals[stream-1]
	log, ok := h.writer().(logs.Replayer)
	if j == nil || !ok {
		return unix.Read, func() {}
	}
	read = func(fd int, p []byte) (int, error) { return j.take(log, fd, p) }
	return read, func() {
		if j.logged(log) != nil {
			h.log.Warn("a container's output is not safe from a kill of the shim", "journal", j.path)
		}
	}
}

func (h *hub) writer() LogWriter {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out
}

// recover replays the journals into a log; h carries nothing yet.
func (h *hub) recover(out LogWriter) {
	log, ok := out.(logs.Replayer)
	for _, j := range h.journals {
		if j == nil || !ok {
			continue
		}
		if err := j.recover(log); err != nil {
			j.broken = true
			h.log.Error("some of a container's output is lost", "journal", j.path, "err", err)
		}
	}
}

// drain reads what a pipe holds, and no more than a pipe can hold.
func (h *hub) drain(pool *bufferPool, stream byte, rc syscall.RawConn, read func(int, []byte) (int, error), logged func()) {
	buf := pool.get()
	defer pool.p.Put(buf)
	for total := 0; total < 1<<20; {
		n, rerr := 0, error(nil)
		err := rc.Control(func(fd uintptr) { n, rerr = read(int(fd), *buf) })
		if rerr == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		h.print(stream, time.Now(), (*buf)[:n])
		logged()
		total += n
	}
}

func (h *hub) print(stream byte, at time.Time, p []byte) {
	h.mu.Lock()
	out, clients := h.out, slices.Clone(h.clients)
	h.mu.Unlock()
	if out != nil {
		if err := out.Write(stream, at, p); err != nil {
			h.mu.Lock()
			first := !h.logErr
			h.logErr = true
			h.mu.Unlock()
			if first {
				h.log.Error("cannot write a container's log", "err", err)
			}
		}
	}
	for _, c := range clients {
		c.put(stream, p)
	}
}

// finish waits for the rest of the output after the process has ended: up to
// grace for orphans that hold the streams open, and for clients that are slow to
// take it: what is left is queued for them. Then the clients' streams end.
func (h *hub) finish(grace time.Duration) {
	done := make(chan struct{})
	go func() { h.copying.Wait(); close(done) }()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		h.mu.Lock()
		for _, f := range h.sources {
			_ = f.SetReadDeadline(time.Now())
		}
		h.release()
		h.hurryAll()
		relay := h.relay
		h.mu.Unlock()
		relay.patience(done)
		<-done
	}
	h.close()
}

// release has a log that waits for room take the rest without; h.mu is held.
func (h *hub) release() {
	if w, ok := h.out.(interface{ Release() }); ok {
		w.Release()
	}
}

// close ends the streams and the log.
func (h *hub) close() {
	h.mu.Lock()
	if h.ended {
		h.mu.Unlock()
		return
	}
	h.ended = true
	select {
	case <-h.begun:
	default:
		close(h.begun)
	}
	clients, sources, out, stdin, relay := h.clients, h.sources, h.out, h.stdin, h.relay
	h.clients, h.sources, h.out, h.stdin = nil, nil, nil, nil
	h.mu.Unlock()
	for _, c := range clients {
		c.end()
	}
	relay.stop()
	for _, f := range sources {
		_ = f.Close()
	}
	if stdin != nil {
		_ = stdin.Close() // a terminal's master: closed twice, no harm
	}
	if out != nil {
		if err := out.Close(); err != nil {
			h.log.Error("cannot close a container's log", "err", err)
		}
	}
	for _, j := range h.journals {
		if j != nil {
			j.close()
		}
	}
}

func (h *hub) closeStdin() {
	h.mu.Lock()
	f := h.stdin
	if h.io.TTY || f == nil {
		h.mu.Unlock()
		return
	}
	h.stdin = nil
	h.mu.Unlock()
	_ = f.Close()
	if h.noStdin != nil {
		h.noStdin()
	}
}

// idle tells whether the hub has neither process nor clients.
func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.used && len(h.clients) == 0
}

// hurry lets no client hold the process's output back any more.
func (h *hub) hurry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hurryAll()
}

// hurryAll is hurry with h.mu held.
func (h *hub) hurryAll() {
	h.hurried = true
	for _, c := range h.clients {
		c.hurry()
	}
}

func (h *hub) isHalted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.halted
}

// halt stops reading what the process prints, and closes its log. All that was
// read is in the log and queued for the clients then; the rest stays where it is.
func (h *hub) halt() {
	h.mu.Lock()
	if h.ended {
		h.mu.Unlock()
		return
	}
	h.halted = true
	for _, c := range h.clients {
		c.hurry()
	}
	for _, f := range h.sources {
		_ = f.SetReadDeadline(unixPast)
	}
	if h.stdin != nil {
		_ = h.stdin.SetWriteDeadline(unixPast)
	}
	h.release()
	h.mu.Unlock()
	h.copying.Wait()
	h.mu.Lock()
	out := h.out
	h.out = nil
	h.mu.Unlock()
	if out == nil {
		return
	}
	if err := out.Close(); err != nil {
		h.log.Error("cannot close a container's log", "err", err)
	}
	for _, j := range h.journals {
		if j != nil {
			j.finish()
		}
	}
}

// resume reads on after a halt.
func (h *hub) resume(pool *bufferPool, out LogWriter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.halted {
		return
	}
	h.halted, h.out = false, out
	if log, ok := out.(logs.Replayer); ok {
		for _, j := range h.journals {
			if j != nil {
				_ = j.logged(log)
			}
		}
	}
	for _, f := range h.sources {
		_ = f.SetReadDeadline(never)
	}
	if h.stdin != nil {
		_ = h.stdin.SetWriteDeadline(never)
	}
	h.carryAll(pool)
}
