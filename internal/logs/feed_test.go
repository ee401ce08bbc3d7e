package logs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func spool(t *testing.T) runtime.Log {
	t.Helper()
	l := newLog(t, logs.DriverLocal)
	l.Sent = l.Path + ".sent"
	return l
}

// eater takes a log, marks how far it is, and fails now and then as a daemon
// that is killed: what it took since the last mark is taken again.
type eater struct {
	mu     sync.Mutex // guards got
	got    bytes.Buffer
	file   *logs.MarkFile
	faulty bool
}

var errKilled = errors.New("killed")

func (e *eater) Take(p logs.Piece) error {
	if e.faulty && rand.IntN(20) == 0 { //nolint:gosec // a test
		return errKilled
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got.Write(p.Data)
	return e.file.Put(p.End)
}

func (e *eater) Idle() error { return nil }

func (e *eater) text() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got.String()
}

// TestFeedGoesOn kills the reader again and again while the log is written,
// rotated and compressed: it gets everything, once and in order.
func TestFeedGoesOn(t *testing.T) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprint("compressed ", compress), func(t *testing.T) {
			l := spool(t)
			l.MaxSize, l.MaxFiles, l.Compress = 100_000, 3, compress
			done := make(chan struct{})
			var want strings.Builder
			go func() {
				defer close(done)
				w, err := logs.NewWriter(l)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range 20000 {
					line := fmt.Sprintf("%d %s\n", i, strings.Repeat("y", i%100))
					want.WriteString(line)
					if err := w.Write(logs.Stdout, time.Now(), []byte(line)); err != nil {
						t.Error(err)
						return
					}
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}()
			e := &eater{faulty: true}
			for kills := 0; ; kills++ {
				var mark logs.Mark
				var err error
				if e.file, mark, err = logs.OpenMarkFile(l.Sent); err != nil {
					t.Fatal(err)
				}
				err = logs.Feed(t.Context(), l, mark, done, e)
				_ = e.file.Close()
				if err == nil {
					break
				}
				if !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
			}
			if e.text() != want.String() {
				t.Errorf("%d bytes came, %d were written", len(e.text()), want.Len())
			}
		})
	}
}

// TestHeldLogWaits: the writer waits before it drops what was not sent, until
// that is sent, or nobody will read on.
func TestHeldLogWaits(t *testing.T) {
	for _, files := range []int{1, 2} {
		t.Run(fmt.Sprint(files, " files"), func(t *testing.T) {
			l := spool(t)
			l.MaxSize, l.MaxFiles = 10_000, files
			w := open(t, l)
			chunk := []byte(strings.Repeat("x", 999) + "\n")
			wrote := make(chan int, 1000)
			go func() {
				for i := range 100 {
					if w.Write(logs.Stdout, time.Now(), chunk) != nil {
						break
					}
					wrote <- i
				}
				close(wrote)
			}()
			for deadline := time.Now().Add(5 * time.Second); len(wrote) < 9*files && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			if n := len(wrote); n != 9*files {
				t.Errorf("%d KB were written into %d files of 10", n, files)
			}
			e := &eater{}
			var err error
			if e.file, _, err = logs.OpenMarkFile(l.Sent); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			end := make(chan error, 1)
			go func() { end <- logs.Feed(ctx, l, logs.Mark{}, nil, e) }()
			for range wrote { // to its end
			}
			for deadline := time.Now().Add(5 * time.Second); len(e.text()) < 100_000 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if n := len(e.text()); n != 100_000 {
				t.Errorf("%d bytes were sent", n)
			}
			cancel()
			<-end

			go func() {
				time.Sleep(50 * time.Millisecond)
				w.(interface{ Release() }).Release()
			}()
			for range 100 { // nobody reads: this ends by the release
				if err := w.Write(logs.Stdout, time.Now(), chunk); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if st, err := os.Stat(l.Path); err != nil || st.Size() < 80_000 {
				t.Errorf("what came after the release is not all there: %v %v", st.Size(), err)
			}
		})
	}
}

// TestLossyLogCounts: the writer does not wait, and counts what it drops unsent.
func TestLossyLogCounts(t *testing.T) {
	for _, compress := range []bool{false, true} {
		l := spool(t)
		l.MaxSize, l.MaxFiles, l.Compress, l.Lossy = 10_000, 2, compress, true
		w := open(t, l)
		for range 100 {
			if err := w.Write(logs.Stdout, time.Now(), []byte(strings.Repeat("x", 999)+"\n")); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if n := logs.Dropped(l.Sent); n != 90*1016 { // 9 go into a file, one is in the last
			t.Errorf("compressed %v: %d bytes dropped", compress, n)
		}
	}
}

// TestMarkSurvivesATornWrite: whatever becomes of the slot written last, the one
// before is found.
func TestMarkSurvivesATornWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mark")
	f, m, err := logs.OpenMarkFile(path)
	if err != nil || !m.Same(logs.Mark{}) {
		t.Fatal(m, err)
	}
	for _, state := range []string{"", "one", strings.Repeat("x", logs.MaxState), "two"} {
		if err := f.Put(logs.Mark{State: []byte(state)}); err != nil {
			t.Fatal(err)
		}
		if got := reopen(t, path); got != state {
			t.Errorf("got %d bytes, want %d", len(got), len(state))
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range 43 { // "two" is in the first slot
		torn := bytes.Clone(whole)
		torn[at] ^= 0x10
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := reopen(t, path); len(got) != logs.MaxState {
			t.Errorf("byte %d torn: got %q", at, got[:min(len(got), 10)])
		}
	}
	if err := f.Put(logs.Mark{State: make([]byte, logs.MaxState+1)}); err == nil {
		t.Error("a state too large was taken")
	}
}

func reopen(t *testing.T, path string) string {
	t.Helper()
	f, m, err := logs.OpenMarkFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	return string(m.State)
}
