package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// flaky is a remote that breaks off now and then, and then has lost the last
// batches that it did not confirm.
type flaky struct {
	mu      sync.Mutex // guards all
	has     []string
	doubt   [][]string
	dials   int
	refused int // dials that fail, from the first on
}

type flakySink struct {
	r    *flaky
	lost int // batches, when it broke
}

var errBroken = errors.New("broken")

func (r *flaky) dial(context.Context) (Sink, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dials++; r.dials <= r.refused {
		return nil, errBroken
	}
	return &flakySink{r: r}, nil
}

func (s *flakySink) Send(_ context.Context, batch []Message) error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if rand.IntN(6) == 0 { //nolint:gosec // a test
		s.lost, s.r.doubt = len(s.r.doubt), nil
		return errBroken
	}
	var lines []string
	for _, m := range batch {
		lines = append(lines, string(m.Line))
	}
	s.r.doubt = append(s.r.doubt, lines)
	if len(s.r.doubt) > 3 {
		s.r.has = append(s.r.has, s.r.doubt[0]...)
		s.r.doubt = s.r.doubt[1:]
	}
	return nil
}

func (s *flakySink) Pending() (int, int, error) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	n := len(s.r.doubt) + s.lost
	if s.lost == 0 && rand.IntN(4) == 0 { //nolint:gosec // a test
		for _, b := range s.r.doubt {
			s.r.has = append(s.r.has, b...)
		}
		s.r.doubt, n = nil, 0
	}
	return n, n, nil
}

func (s *flakySink) Close() error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.doubt = nil
	return nil
}

func testLog(t *testing.T) (runtime.Log, logs.Writer) {
	t.Helper()
	l := runtime.Log{Driver: logs.DriverLocal, Path: filepath.Join(t.TempDir(), "log"), MaxSize: 200_000, MaxFiles: 2, Compress: true}
	l.Sent = l.Path + ".sent"
	w, err := logs.NewWriter(l)
	if err != nil {
		t.Fatal(err)
	}
	return l, w
}

func quick() Retry { return Retry{Wait: time.Millisecond, MaxWait: time.Millisecond} }

// TestNothingIsLost: a remote that breaks off, a forwarder that is stopped and
// begun again, a log that rotates: every line comes, and they come in order but
// for those that are sent again.
func TestNothingIsLost(t *testing.T) {
	l, w := testLog(t)
	r := &flaky{refused: 3}
	const n = 30000
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range n {
			text := fmt.Sprintf("%d\n", i)
			if err := w.Write(logs.Stdout, time.Now(), []byte(text[:len(text)/2])); err != nil {
				t.Error(err)
			}
			if err := w.Write(logs.Stdout, time.Now(), []byte(text[len(text)/2:])); err != nil {
				t.Error(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	forward := func() *Forwarder {
		f, err := Forward(t.Context(), Options{Log: l, Driver: &Driver{Dial: r.dial, Retry: quick()}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for range 5 {
		f := forward()
		time.Sleep(20 * time.Millisecond)
		f.Stop()
	}
	f := forward()
	<-written
	f.Finish()
	select {
	case <-f.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next := 0
	for _, line := range r.has {
		i := -1
		if _, err := fmt.Sscan(line, &i); err != nil || i > next {
			t.Fatalf("%q came after %d", line, next-1)
		}
		next = max(next, i+1)
	}
	if next != n {
		t.Errorf("%d of %d lines came", next, n)
	}
	t.Logf("%d lines came again, over %d connections", len(r.has)-n, r.dials)
}

// TestGivesUp drops what a remote does not take in as many attempts as an option
// says, and tells of it.
func TestGivesUp(t *testing.T) {
	l, w := testLog(t)
	if err := w.Write(logs.Stdout, time.Now(), []byte("a\nb\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	retry := quick()
	retry.Tries = 3
	r := &flaky{refused: 1000}
	f, err := Forward(t.Context(), Options{Log: l, Driver: &Driver{Dial: r.dial, Retry: retry}, Logger: slog.New(slog.NewTextHandler(&told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	f.Finish()
	<-f.Done()
	if r.dials != 3 || !strings.Contains(told.String(), "log lines are dropped: the remote did not take them") || !strings.Contains(told.String(), "lines=2") {
		t.Errorf("%d attempts; %s", r.dials, told.String())
	}
}

type rejecting struct{ Sure }

func (rejecting) Send(_ context.Context, batch []Message) error {
	var bad *RejectedError
	for range batch {
		bad = bad.Reject(errBroken)
	}
	return bad.OrNil()
}
func (rejecting) Close() error { return nil }

func TestWhatCannotBeSentIsDropped(t *testing.T) {
	l, w := testLog(t)
	if err := w.Write(logs.Stderr, time.Now(), []byte("a\nb")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	f, err := Forward(t.Context(), Options{Log: l, Driver: &Driver{}, Sink: rejecting{}, Logger: slog.New(slog.NewTextHandler(&told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	f.Finish()
	<-f.Done()
	if !strings.Contains(told.String(), "they cannot be sent") {
		t.Error(told.String())
	}
}
