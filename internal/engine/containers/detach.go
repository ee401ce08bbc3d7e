package containers

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/moby/term"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// ErrDetached ends the reads of a session whose client typed its detach keys.
var ErrDetached = errors.New("detached")

const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys reads docker's form: letters and ctrl-x, with commas between.
func parseDetachKeys(given, def string) ([]byte, error) {
	keys := firstOf(given, firstOf(def, defaultDetachKeys))
	b, err := term.ToBytes(keys)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "Invalid detach keys (%s) provided", keys)
	}
	return b, nil
}

// detector finds a sequence of keys in what a client types. Keys that may begin
// the sequence are held back until it is known.
type detector struct {
	keys []byte
	held int // that many of keys were typed last, and not passed on
}

// feed returns what is to be passed on, and whether the sequence is complete.
func (d *detector) feed(p []byte) (pass []byte, found bool) {
	if len(d.keys) == 0 {
		return p, false
	}
	for _, b := range p {
		for d.held > 0 && b != d.keys[d.held] {
			// Not the sequence: its longest end that could still begin one is held
			// on to, what is before it was meant for the program.
			n := d.overlap()
			pass = append(pass, d.keys[:d.held-n]...)
			d.held = n
		}
		if b != d.keys[d.held] {
			pass = append(pass, b)
			continue
		}
		if d.held++; d.held == len(d.keys) {
			d.held = 0
			return pass, true
		}
	}
	return pass, false
}

// overlap is the length of the longest proper beginning of the held keys that
// they also end with.
func (d *detector) overlap() int {
	for n := d.held - 1; n > 0; n-- {
		if string(d.keys[:n]) == string(d.keys[d.held-n:d.held]) {
			return n
		}
	}
	return 0
}

// session is an attached client.
type session struct {
	stream   runtime.Stream // nil: only the replay
	replay   io.ReadCloser  // read first; nil once read
	tty      bool
	keys     detector // used by Write alone
	detached atomic.Bool
	onDetach func()
	onClose  func()
	closed   atomic.Bool

	// ended is closed once the process's exit code is known; nil: nobody asks.
	// Clients ask for the code as soon as they have read the end.
	ended <-chan struct{}
}

// exitWait is how long the end of an exec's output waits for its exit code.
const exitWait = 5 * time.Second

var _ Session = (*session)(nil)

func (s *session) TTY() bool { return s.tty }

func (s *session) Read(p []byte) (int, error) {
	if s.replay != nil {
		n, err := s.replay.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		_ = s.replay.Close()
		s.replay = nil
		if err != io.EOF {
			return 0, err
		}
	}
	if s.stream == nil {
		return 0, io.EOF
	}
	n, err := s.stream.Read(p)
	if err != nil && s.detached.Load() {
		return n, ErrDetached
	}
	if err == io.EOF && s.ended != nil {
		select {
		case <-s.ended:
		case <-time.After(exitWait):
		}
	}
	return n, err
}

// Write passes on what the client types, unless it is the detach keys: then the
// session ends, and what came after them is dropped.
func (s *session) Write(p []byte) (int, error) {
	if s.stream == nil {
		return len(p), nil
	}
	pass, found := s.keys.feed(p)
	if len(pass) > 0 {
		if _, err := s.stream.Write(pass); err != nil {
			return 0, err
		}
	}
	if found && s.detached.CompareAndSwap(false, true) {
		_ = s.stream.Close()
		s.onDetach()
	}
	return len(p), nil
}

func (s *session) CloseWrite() error {
	if s.stream == nil {
		return nil
	}
	return s.stream.CloseWrite()
}

func (s *session) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	if s.onClose != nil {
		s.onClose()
	}
	if s.stream == nil {
		return nil
	}
	return s.stream.Close()
}
