//go:build linux

package shim

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// dying is a log whose program is killed in one of its writes: half of that is
// written, and it never returns.
type dying struct {
	logs.Replayer
	writes atomic.Int64 // until then
	killed chan struct{}
	end    chan struct{}
}

func (d *dying) Write(stream byte, at time.Time, p []byte) error {
	switch n := d.writes.Add(-1); {
	case n > 0:
		return d.Replayer.Write(stream, at, p)
	case n == 0:
		_ = d.Replayer.Write(stream, at, p[:len(p)/2])
		close(d.killed)
	}
	<-d.end
	return os.ErrClosed
}

// A shim that is killed while it takes the rest from the pipe of a process that
// has ended costs nothing either.
func TestKilledInDrain(t *testing.T) {
	for _, driver := range []string{"json-file", "local"} {
		for _, writes := range []int64{1, 2, 5} {
			t.Run(fmt.Sprint(driver, writes), func(t *testing.T) {
				dir := t.TempDir()
				l := runtime.Log{Driver: driver, Path: filepath.Join(dir, "log"), MaxSize: -1}
				fds := [2]int{}
				if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
					t.Fatal(err)
				}
				w := os.NewFile(uintptr(fds[1]), "w")
				if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, 1<<20); err != nil {
					t.Fatal(err)
				}
				var text []byte
				for i := range 50000 { // less than the pipe holds
					text = fmt.Appendln(text, i)
				}
				if n, err := w.Write(text); err != nil || n != len(text) {
					t.Fatal(n, err)
				}
				// begin is what a shim does with what an earlier one left.
				begin := func(out LogWriter) *hub {
					fd, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
					if err != nil {
						t.Fatal(err)
					}
					r := os.NewFile(uintptr(fd), "r")
					if err := r.SetReadDeadline(unixPast); err != nil { // as once the grace has passed
						t.Fatal(err)
					}
					h := newHub(slog.New(slog.NewTextHandler(t.Output(), nil)), runtime.IO{})
					h.journals = journals(dir, &record{}, out)
					h.recover(out)
					h.start(&bufferPool{}, out, nil, r)
					return h
				}
				out := newReplayer(t, l)
				first := &dying{Replayer: out, killed: make(chan struct{}), end: make(chan struct{})}
				first.writes.Store(writes)
				dead := begin(first)
				<-first.killed
				defer func() { close(first.end); dead.copying.Wait() }()

				h := begin(newReplayer(t, l))
				h.copying.Wait()
				h.close()
				_ = w.Close()
				_ = unix.Close(fds[0])
				var got strings.Builder
				rd, err := logs.Open(t.Context(), l, logs.ReadOptions{Stdout: true, Tail: -1, TTY: true})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = rd.Close() }()
				if _, err := rd.WriteTo(&got); err != nil {
					t.Fatal(err)
				}
				if got.String() != string(text) {
					t.Errorf("the log has %d bytes, not the %d that were printed", got.Len(), len(text))
				}
			})
		}
	}
}

func newReplayer(t *testing.T, l runtime.Log) logs.Replayer {
	t.Helper()
	w, err := logs.NewWriter(l)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := w.(logs.Replayer)
	if !ok {
		t.Fatalf("%T cannot replay", w)
	}
	return r
}
