//go:build linux

package shim

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

const (
	queueLimit = 1 << 20          // what a slow client may be behind
	stallLimit = 10 * time.Minute // how long it may take nothing at all
)

// attached is one client's end. Output is queued for it; when the queue is
// full the process waits, as it would on a terminal.
type attached struct {
	conn *net.UnixConn
	key  key
	want runtime.Attach
	hub  *hub
	done chan struct{}
	stop chan struct{} // closed when it is halted

	unfed []byte // what it sent and its process has not got yet, once halted

	mu     sync.Mutex // guards all below
	wake   *sync.Cond
	queue  []byte
	over   bool // no more will be put
	gone   bool // the client left
	halted bool // the next shim goes on
	rushed bool // the queue has no limit any more
}

func newAttached(conn *net.UnixConn, k key, want runtime.Attach, h *hub) *attached {
	c := &attached{conn: conn, key: k, want: want, hub: h, done: make(chan struct{}), stop: make(chan struct{})}
	c.wake = sync.NewCond(&c.mu)
	return c
}

// join adds a client; nil if all is over.
func (h *hub) join(conn *net.UnixConn, k key, want runtime.Attach) *attached {
	c := newAttached(conn, k, want, h)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return nil
	}
	c.rushed = h.hurried
	h.clients = append(h.clients, c)
	return c
}

// serve carries a client's stream until it leaves or all is printed; or until it
// is halted: then it is still attached, and serve may be called again.
func (h *hub) serve(c *attached) (halted bool) {
	var input sync.WaitGroup
	input.Go(func() {
		if h.input(c) {
			c.leave()
		}
	})
	c.write()
	if c.isHalted() {
		input.Wait()
		return true
	}
	h.mu.Lock()
	h.clients = slices.DeleteFunc(h.clients, func(o *attached) bool { return o == c })
	h.mu.Unlock()
	return false
}

// input passes what the client sends to the process, until it leaves: then it
// is true.
func (h *hub) input(c *attached) bool {
	rest := c.unfed
	c.unfed = nil
	if len(rest) > 0 && !h.feed(c, rest) {
		return false
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 && c.want.Stdin && !h.feed(c, buf[:n]) {
			return false
		}
		if err != nil {
			break
		}
	}
	if c.isHalted() {
		return false
	}
	if c.want.Stdin && h.awaitProcess(c) && h.io.StdinOnce {
		h.closeStdin()
	}
	c.awaitHangup()
	return !c.isHalted()
}

// feed writes to the process's stdin. What comes before it has started waits;
// what a halt leaves over is kept, and feed is false.
func (h *hub) feed(c *attached, p []byte) bool {
	started := h.awaitProcess(c)
	if c.isHalted() {
		c.unfed = slices.Clone(p)
		return false
	}
	if !started {
		return true
	}
	h.mu.Lock()
	f := h.stdin
	h.mu.Unlock()
	if f == nil {
		return true
	}
	n, err := f.Write(p) // the process may have closed it
	if err != nil && h.isHalted() {
		c.unfed = slices.Clone(p[n:])
		select {
		case <-c.stop:
		case <-c.done:
		}
		return false
	}
	return true
}

// awaitProcess waits until the hub has a process; false if it never will, or if
// the client has left, hangs up meanwhile (it must not stay for as long as nobody
// starts one) or is halted. Only who reads from the client may call it.
func (h *hub) awaitProcess(c *attached) bool {
	select {
	case <-h.begun:
	default:
		hung := make(chan struct{})
		go func() { c.awaitHangup(); close(hung) }()
		select {
		case <-c.done: // closed, which ends that goroutine too
			return false
		case <-hung: // or halted, by a deadline
			return false
		case <-h.begun:
			_ = c.conn.SetReadDeadline(unixPast)
			<-hung
			c.resetReadDeadline()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.ended
}

func (c *attached) put(stream byte, p []byte) {
	if stream == 1 && !c.want.Stdout || stream == 2 && !c.want.Stderr {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) >= queueLimit && !c.gone && !c.rushed {
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

// hurry lets the process not wait for this client any more: it has ended, or is
// about to be read by another shim.
func (c *attached) hurry() {
	c.mu.Lock()
	c.rushed = true
	c.wake.Broadcast()
	c.mu.Unlock()
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

// halt makes serve return with the connection whole; the hub is halted already.
func (c *attached) halt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.halted || c.gone {
		return
	}
	c.halted = true
	close(c.stop)
	_ = c.conn.SetDeadline(unixPast)
	c.wake.Broadcast()
}

// unhalt prepares for another serve.
func (c *attached) unhalt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.halted, c.rushed, c.stop = false, false, make(chan struct{})
	_ = c.conn.SetDeadline(never)
}

// resetReadDeadline lets the client be read again, unless it is halted.
func (c *attached) resetReadDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.halted {
		_ = c.conn.SetReadDeadline(never)
	}
}

func (c *attached) isHalted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.halted
}

// write sends what is queued until the end, or until it is halted.
func (c *attached) write() {
	var sending []byte
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.over && !c.gone && !c.halted {
			c.wake.Wait()
		}
		if c.halted && !c.gone {
			c.mu.Unlock()
			return
		}
		if c.gone || len(c.queue) == 0 {
			c.mu.Unlock()
			c.leave()
			return
		}
		sending, c.queue = c.queue, sending[:0]
		c.wake.Broadcast()
		c.mu.Unlock()
		rest, err := c.send(sending)
		if err != nil && c.requeue(rest) {
			return
		}
		if err != nil {
			c.leave()
			return
		}
		if cap(sending) > queueLimit/4 {
			sending = nil // an idle client holds no memory
		}
	}
}

// send writes all of p, or returns what is left of it.
func (c *attached) send(p []byte) (rest []byte, err error) {
	for len(p) > 0 {
		c.mu.Lock()
		if !c.halted { // whose deadline stays
			_ = c.conn.SetWriteDeadline(time.Now().Add(stallLimit)) // anything taken counts as progress
		}
		c.mu.Unlock()
		n, err := c.conn.Write(p[:min(len(p), 64<<10)])
		p = p[n:]
		if err != nil {
			return p, err
		}
	}
	return nil, nil
}

// requeue puts back what a halt has kept from being sent.
func (c *attached) requeue(rest []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.halted || c.gone {
		return false
	}
	c.queue = slices.Concat(rest, c.queue)
	return true
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
