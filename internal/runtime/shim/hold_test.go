//go:build linux

package shim

import (
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

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
