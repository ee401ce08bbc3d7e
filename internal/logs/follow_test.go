package logs_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/logs"
)

type safeBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestFollowAcrossRotation follows a log while it is written and rotated, from
// before its first byte: nothing may be missing, doubled or out of order.
func TestFollowAcrossRotation(t *testing.T) {
	for _, driver := range drivers {
		for _, compress := range []bool{false, true} {
			t.Run(fmt.Sprint(driver, " compressed ", compress), func(t *testing.T) {
				l := newLog(t, driver)
				l.MaxSize, l.MaxFiles, l.Compress = 100_000, 1000, compress
				done := make(chan struct{})
				o := both
				o.Follow, o.Done, o.TTY = true, done, true
				r, err := logs.Open(context.Background(), l, o)
				if err != nil {
					t.Fatal(err)
				}
				var got safeBuffer
				end := make(chan error, 1)
				go func() { _, err := r.WriteTo(&got); end <- err }()
				var want strings.Builder
				w := open(t, l)
				for i := range 20000 {
					line := fmt.Sprintf("%d %s\n", i, strings.Repeat("y", i%100))
					want.WriteString(line)
					if err := w.Write(logs.Stdout, time.Now(), []byte(line)); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				close(done)
				if err := <-end; err != nil {
					t.Fatal(err)
				}
				if got.String() != want.String() {
					t.Errorf("followed %d bytes, %d were written", len(got.String()), want.Len())
				}
			})
		}
	}
}

func TestFollowShowsWhatComesAtOnce(t *testing.T) {
	l := newLog(t, logs.DriverLocal)
	w := open(t, l)
	_ = w.Write(logs.Stdout, t0, []byte("old\nprompt> "))
	o := logs.ReadOptions{Stdout: true, Follow: true, TTY: true} // tail 0
	ctx, cancel := context.WithCancel(context.Background())
	r, err := logs.Open(ctx, l, o)
	if err != nil {
		t.Fatal(err)
	}
	var got safeBuffer
	end := make(chan error, 1)
	go func() { _, err := r.WriteTo(&got); end <- err }()
	want := ""
	time.Sleep(10 * time.Millisecond) // the reader must have taken the present end
	for i := range 3 {
		s := fmt.Sprintf("ls %d\n", i)
		want += s
		_ = w.Write(logs.Stdout, time.Now(), []byte(s))
		for deadline := time.Now().Add(10 * time.Second); got.String() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %q, want %q", got.String(), want)
			}
		}
	}
	cancel()
	if err := <-end; err != context.Canceled {
		t.Errorf("ended with %v", err)
	}
	_ = w.Close()
}

func TestFollowEnds(t *testing.T) {
	l := newLog(t, logs.DriverJSONFile)
	o := both
	o.Follow, o.Until = true, time.Now().Add(30*time.Millisecond)
	if b := read(t, l, o); len(b) != 0 { // no file at all, and the time runs out
		t.Errorf("%q", b)
	}
	write(t, l, "x\n")
	o.Until = time.Now().Add(30 * time.Millisecond)
	if out, _ := streams(t, read(t, l, o)); out != "x\n" {
		if time.Now().After(t0) {
			t.Errorf("%q", out)
		}
	}
	done := make(chan struct{})
	close(done)
	o.Until, o.Done = time.Time{}, done
	if out, _ := streams(t, read(t, l, o)); out != "x\n" {
		t.Errorf("%q", out)
	}
}

func TestFollowEmptiedFile(t *testing.T) {
	l := newLog(t, logs.DriverJSONFile)
	w := open(t, l)
	_ = w.Write(logs.Stdout, t0, []byte("before\n"))
	done := make(chan struct{})
	o := both
	o.Follow, o.Done, o.TTY = true, done, true
	r, _ := logs.Open(context.Background(), l, o)
	var got safeBuffer
	end := make(chan error, 1)
	go func() { _, err := r.WriteTo(&got); end <- err }()
	wait := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); got.String() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %q, want %q", got.String(), want)
			}
		}
	}
	wait("before\n")
	if err := os.Truncate(l.Path, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the reader has to see it empty
	_ = w.Write(logs.Stdout, t0, []byte("x\n"))
	wait("before\nx\n")
	close(done)
	<-end
	_ = w.Close()
}
