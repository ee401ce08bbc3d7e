//go:build linux

package shim

import (
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// stuck is a log that has no room until it is released.
type stuck struct {
	released chan struct{}
	writing  chan struct{}
	bytes    atomic.Int64
}

func (s *stuck) Write(_ byte, _ time.Time, p []byte) error {
	select {
	case s.writing <- struct{}{}:
	default:
	}
	<-s.released
	s.bytes.Add(int64(len(p)))
	return nil
}
func (s *stuck) Release()     { close(s.released) }
func (s *stuck) Close() error { return nil }

// TestStuckLogEnds: a log that waits for its remote holds back neither the end
// of its container nor the shim's replacement, and loses nothing.
func TestStuckLogEnds(t *testing.T) {
	for name, end := range map[string]func(*hub){
		"the container ends":   func(h *hub) { h.finish(10 * time.Millisecond) },
		"the shim is replaced": func(h *hub) { h.halt() },
	} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			h := newHub(slog.New(slog.DiscardHandler), runtime.IO{})
			log := &stuck{released: make(chan struct{}), writing: make(chan struct{}, 1)}
			h.start(&bufferPool{}, log, nil, r)
			if _, err := w.WriteString("hello"); err != nil {
				t.Fatal(err)
			}
			<-log.writing
			ended := make(chan struct{})
			go func() { end(h); close(ended) }()
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Fatal("it waits for the log")
			}
			_ = w.Close()
			if n := log.bytes.Load(); n != 5 {
				t.Errorf("%d bytes were logged", n)
			}
		})
	}
}

// TestStuckClientEnds: a client that does not read does not hold back the end of
// its container, and is sent all of it once it does.
func TestStuckClientEnds(t *testing.T) {
	ours, theirs := sockets(t)
	defer func() { _ = theirs.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := newHub(slog.New(slog.DiscardHandler), runtime.IO{})
	c := h.join(ours, key{}, runtime.Attach{Stdout: true})
	go h.serve(c)
	h.start(&bufferPool{}, nil, nil, r)
	text := make([]byte, 64<<10)
	printed := 0
	for stuck := false; !stuck; { // what fits nowhere any more is still printed
		_ = w.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := w.Write(text)
		printed += n
		stuck = err != nil
	}
	_ = w.Close()
	ended := make(chan struct{})
	go func() { h.finish(10 * time.Millisecond); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it waits for the client")
	}
	_ = theirs.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(theirs)
	if err != nil || len(got) < printed {
		t.Errorf("the client got %d bytes of %d: %v", len(got), printed, err)
	}
}

func sockets(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if ours, err = socket(ends[0]); err != nil {
		t.Fatal(err)
	}
	if theirs, err = socket(ends[1]); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// TestUpgradeDuringAttach: a client that is just attaching when an upgrade begins
// has not left.
func TestUpgradeDuringAttach(t *testing.T) {
	s := &server{links: map[*link]struct{}{}}
	s.calm = sync.NewCond(&s.mu)
	ours, theirs := sockets(t)
	defer func() { _ = theirs.Close() }()
	l := s.newLink(ours)
	if err := s.takeTurn(nil); err != nil {
		t.Fatal(err)
	}
	h := newHub(slog.New(slog.DiscardHandler), runtime.IO{Stdin: true, StdinOnce: true})
	c := h.join(ours, key{}, runtime.Attach{Stdin: true})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.start(&bufferPool{}, nil, w)
	served := make(chan bool)
	go func() { served <- s.stream(l, c) }()
	go func() { _, _ = io.WriteString(theirs, "typed"); _ = theirs.CloseWrite() }()
	if got, err := io.ReadAll(r); string(got) != "typed" {
		t.Errorf("the process reads %q, %v", got, err)
	}
	_ = theirs.Close()
	<-served
}

// TestLastLeavesAsAnotherAttaches: who attaches to what is still to come is found
// by it, also if another one leaves at that moment.
func TestLastLeavesAsAnotherAttaches(t *testing.T) {
	s := &server{links: map[*link]struct{}{}, waiting: map[string]*hub{}, log: slog.New(slog.DiscardHandler)}
	s.calm = sync.NewCond(&s.mu)
	for range 2000 {
		leaving, err := s.join(nil, &request{ID: "box"})
		if err != nil {
			t.Fatal(err)
		}
		h := leaving.hub
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			h.mu.Lock()
			h.clients = slices.DeleteFunc(h.clients, func(c *attached) bool { return c == leaving })
			h.mu.Unlock()
			s.dropIdle(leaving.key, h)
		}()
		c, err := s.join(nil, &request{ID: "box"})
		if err != nil {
			t.Fatal(err)
		}
		<-gone
		if s.waiting["box"] != c.hub {
			t.Fatal("its hub is nobody's")
		}
		delete(s.waiting, "box")
	}
}

// TestRelayEnds: a terminal that is joined with somebody's descriptors lets go of
// them when its process has ended: also if nobody types, and nobody reads.
func TestRelayEnds(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	console, process := os.NewFile(uintptr(ends[0]), "console"), os.NewFile(uintptr(ends[1]), "process")
	in, typing, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reading, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reading.Close() }()
	h := newHub(slog.New(slog.DiscardHandler), runtime.IO{TTY: true, Passed: true})
	h.startRelay(console, [3]*os.File{in, out, out})
	_ = in.Close()
	_ = out.Close()
	if _, err := typing.WriteString("typed"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(process, got); err != nil || string(got) != "typed" {
		t.Errorf("%q, %v", got, err)
	}
	text := make([]byte, 64<<10)
	for stuck := false; !stuck; {
		_ = process.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := process.Write(text)
		stuck = err != nil
	}
	_ = process.Close()
	ended := make(chan struct{})
	go func() { h.finish(10 * time.Millisecond); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for who reads")
	}
	h.relay.users.Wait()
	if _, err := typing.WriteString("more"); err == nil {
		t.Error("what is typed is still taken")
	}
}
