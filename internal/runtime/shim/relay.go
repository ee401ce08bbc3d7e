//go:build linux

package shim

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A relay joins a terminal with descriptors that were passed along. Those are
// blocking, and stay so, since others have them as well: they are polled together
// with one that tells of the end.
type relay struct {
	users sync.WaitGroup

	mu   sync.Mutex // guards quit against its closing
	quit int        // an event: readable once it is over; -1 if there is none
}

// relayPatience is how long whoever has the other end may take for the last of
// what was printed.
const relayPatience = 2 * time.Second

// startRelay begins to carry between a terminal and passed descriptors.
func (h *hub) startRelay(console *os.File, passed [3]*os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	quit, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		h.log.Error("a terminal's descriptors may stay open", "err", err)
		quit = -1
	}
	r := &relay{quit: quit}
	h.stdin, h.sources, h.relay = console, []*os.File{console}, r
	close(h.begun)
	if out := dup(passed[1]); out >= 0 {
		h.copying.Add(1)
		r.users.Go(func() {
			defer h.copying.Done()
			defer func() { _ = unix.Close(out) }()
			r.output(console, out)
		})
	}
	if in := dup(passed[0]); in >= 0 {
		r.users.Go(func() {
			defer func() { _ = unix.Close(in) }()
			r.input(console, in)
		})
	}
	go func() {
		r.users.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.quit >= 0 {
			_ = unix.Close(r.quit)
		}
		r.quit = -1
	}()
}

func (r *relay) output(console *os.File, out int) {
	buf := make([]byte, 32<<10)
	for {
		n, err := console.Read(buf)
		for p := buf[:n]; len(p) > 0; {
			if !r.await(out, unix.POLLOUT) {
				return
			}
			// As much as a pipe takes at once: more could wait for a reader.
			w, werr := unix.Write(out, p[:min(len(p), 4096)])
			if werr != nil && werr != unix.EINTR && werr != unix.EAGAIN {
				return
			}
			p = p[max(w, 0):]
		}
		if err != nil {
			return
		}
	}
}

func (r *relay) input(console *os.File, in int) {
	buf := make([]byte, 4<<10)
	for r.await(in, unix.POLLIN) {
		n, err := unix.Read(in, buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		if _, err := console.Write(buf[:n]); err != nil {
			return
		}
	}
}

// await waits for a descriptor; false if it is over before.
func (r *relay) await(fd int, events int16) bool {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(r.quit), Events: unix.POLLIN}}
		_, err := unix.Poll(p, -1)
		switch {
		case err == unix.EINTR:
		case err != nil || p[1].Revents != 0:
			return false
		default:
			return true
		}
	}
}

// stop ends it; of none, nothing.
func (r *relay) stop() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quit >= 0 {
		_, _ = unix.Write(r.quit, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// patience gives the last of the output time to be taken, until done, and stops.
func (r *relay) patience(done <-chan struct{}) {
	if r == nil {
		return
	}
	t := time.NewTimer(relayPatience)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		r.stop()
	}
}

// dup copies a descriptor; -1 if there is none.
func dup(f *os.File) int {
	if f == nil {
		return -1
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}
