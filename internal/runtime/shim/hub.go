//go:build linux

package shim

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// LogWriter records what a container prints.
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
	logErr  bool

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
	h.out, h.stdin = out, stdin
	for i, f := range files {
		if f == nil {
			continue
		}
		h.sources = append(h.sources, f)
		h.copying.Add(1)
		go h.carry(pool, byte(i+1), f)
	}
	close(h.begun)
	h.mu.Unlock()
}

// carry copies one stream until its end. While nothing comes it holds no buffer.
func (h *hub) carry(pool *bufferPool, stream byte, f *os.File) {
	defer h.copying.Done()
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	grown := false
	for {
		var buf *[]byte
		var n int
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			buf = pool.get()
			n, rerr = unix.Read(int(fd), *buf)
			for rerr == unix.EINTR {
				n, rerr = unix.Read(int(fd), *buf)
			}
			if rerr == unix.EAGAIN {
				pool.p.Put(buf)
				return false
			}
			return true
		})
		if err != nil { // closed, or its time is up: what is there already is still read
			h.drain(pool, stream, rc)
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
	}
}

// drain reads what a pipe holds, and no more than a pipe can hold.
func (h *hub) drain(pool *bufferPool, stream byte, rc syscall.RawConn) {
	buf := pool.get()
	defer pool.p.Put(buf)
	for total := 0; total < 1<<20; {
		n := 0
		if rc.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), *buf) }) != nil || n <= 0 {
			return
		}
		h.print(stream, time.Now(), (*buf)[:n])
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
// grace for orphans that hold the streams open. Then the clients' streams end.
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
		h.mu.Unlock()
		<-done
	}
	h.close()
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
	clients, sources, out, stdin := h.clients, h.sources, h.out, h.stdin
	h.clients, h.sources, h.out, h.stdin = nil, nil, nil, nil
	h.mu.Unlock()
	for _, c := range clients {
		c.end()
	}
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
}

// join adds a client; nil if all is over.
func (h *hub) join(conn *net.UnixConn, want runtime.Attach) *attached {
	c := &attached{conn: conn, want: want, hub: h, done: make(chan struct{})}
	c.wake = sync.NewCond(&c.mu)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return nil
	}
	h.clients = append(h.clients, c)
	return c
}

// serve carries a client's stream until it leaves or all is printed.
func (h *hub) serve(c *attached) {
	go func() {
		h.input(c)
		c.leave()
	}()
	c.write()
	h.mu.Lock()
	h.clients = slices.DeleteFunc(h.clients, func(o *attached) bool { return o == c })
	h.mu.Unlock()
}

// input passes what the client sends to the process, until it leaves.
func (h *hub) input(c *attached) {
	buf := make([]byte, 16<<10)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 && c.want.Stdin {
			h.feed(c, buf[:n])
		}
		if err != nil {
			break
		}
	}
	if c.want.Stdin && h.awaitProcess(c) && h.io.StdinOnce {
		h.closeStdin()
	}
	c.awaitHangup()
}

// feed writes to the process's stdin. What comes before it has started waits.
func (h *hub) feed(c *attached, p []byte) {
	if !h.awaitProcess(c) {
		return
	}
	h.mu.Lock()
	f := h.stdin
	h.mu.Unlock()
	if f != nil {
		_, _ = f.Write(p) // the process may have closed it
	}
}

// awaitProcess waits until the hub has a process; false if it never will.
func (h *hub) awaitProcess(c *attached) bool {
	select {
	case <-c.done:
		return false
	case <-h.begun:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.ended
}

// idle tells whether the hub has neither process nor clients.
func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.used && len(h.clients) == 0
}

const (
	queueLimit = 1 << 20          // what a slow client may be behind
	stallLimit = 10 * time.Minute // how long it may take nothing at all
)

// attached is one client's end. Output is queued for it; when the queue is
// full the process waits, as it would on a terminal.
type attached struct {
	conn *net.UnixConn
	want runtime.Attach
	hub  *hub
	done chan struct{}

	mu    sync.Mutex // guards all below
	wake  *sync.Cond
	queue []byte
	over  bool // no more will be put
	gone  bool // the client left
}

func (c *attached) put(stream byte, p []byte) {
	if stream == 1 && !c.want.Stdout || stream == 2 && !c.want.Stderr {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) >= queueLimit && !c.gone {
		c.wake.Wait()
	}
	if c.gone {
		return
	}
	if !c.hub.io.TTY {
		head := [8]byte{stream}
		binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
		c.queue = append(c.queue, head[:]...)
	}
	c.queue = append(c.queue, p...)
	c.wake.Broadcast()
}

// end lets the client read what is queued, and then the end.
func (c *attached) end() {
	c.mu.Lock()
	c.over = true
	c.wake.Broadcast()
	c.mu.Unlock()
}

func (c *attached) leave() {
	c.mu.Lock()
	if !c.gone {
		c.gone = true
		close(c.done)
	}
	c.wake.Broadcast()
	c.mu.Unlock()
	_ = c.conn.Close()
}

// write sends what is queued until the end.
func (c *attached) write() {
	defer c.leave()
	var sending []byte
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.over && !c.gone {
			c.wake.Wait()
		}
		if c.gone || len(c.queue) == 0 {
			c.mu.Unlock()
			return
		}
		sending, c.queue = c.queue, sending[:0]
		c.wake.Broadcast()
		c.mu.Unlock()
		for rest := sending; len(rest) > 0; {
			_ = c.conn.SetWriteDeadline(time.Now().Add(stallLimit)) // anything taken counts as progress
			n, err := c.conn.Write(rest[:min(len(rest), 64<<10)])
			if err != nil {
				return
			}
			rest = rest[n:]
		}
		if cap(sending) > queueLimit/4 {
			sending = nil // an idle client holds no memory
		}
	}
}

// awaitHangup returns when the client has closed both directions.
func (c *attached) awaitHangup() {
	rc, err := c.conn.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		return err != nil && !errors.Is(err, unix.EINTR) || n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
}

// relay joins a terminal with descriptors that were passed along.
func (h *hub) relay(console *os.File, passed [3]*os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stdin, h.sources = console, []*os.File{console}
	close(h.begun)
	if out := dup(passed[1]); out != nil {
		h.copying.Add(1)
		go func() {
			defer h.copying.Done()
			defer func() { _ = out.Close() }()
			_, _ = io.Copy(out, console)
		}()
	}
	if in := dup(passed[0]); in != nil {
		go func() {
			defer func() { _ = in.Close() }()
			_, _ = io.Copy(console, in)
		}()
	}
}

func dup(f *os.File) *os.File {
	if f == nil {
		return nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}
