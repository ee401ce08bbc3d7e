package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// hold keeps rotation from dropping what the daemon has not sent on yet.
type hold struct {
	mark     string // the file with the daemon's place
	lossy    bool   // drop and count instead of waiting
	released chan struct{}
	once     sync.Once
}

const holdEvery = 25 * time.Millisecond

var errHeld = errors.New("the oldest file is not sent yet")

func newHold(l runtime.Log) *hold {
	if l.Sent == "" {
		return nil
	}
	return &hold{mark: l.Sent, lossy: l.Lossy, released: make(chan struct{})}
}

// release ends all waiting: the container has ended, and what is left of its
// output goes to the current file, however large that gets.
func (h *hold) release() {
	if h != nil {
		h.once.Do(func() { close(h.released) })
	}
}

// await returns when the oldest file may be dropped. While it waits, so does the
// container, as with docker's mode=blocking; errHeld: it must not be dropped.
func (h *hold) await(w *file) error {
	if h == nil {
		return nil
	}
	var t *time.Ticker
	for {
		unsent, err := h.unsent(w)
		if err != nil || unsent == 0 {
			return err
		}
		if h.lossy {
			return addDropped(h.mark, unsent)
		}
		if t == nil {
			t = time.NewTicker(holdEvery)
			defer t.Stop()
		}
		select {
		case <-h.released:
			return errHeld
		case <-t.C:
		}
	}
}

// unsent tells how many bytes of the file that the next rotation drops were not
// sent.
func (h *hold) unsent(w *file) (int64, error) {
	all := settledList(w.path)
	last := w.path
	if w.maxFiles > 1 {
		last += "." + strconv.Itoa(w.maxFiles-1)
	}
	n := slices.IndexFunc(all, func(e entry) bool { return e.name == last || e.name == last+".gz" })
	if n < 0 {
		return 0, nil // nothing is dropped
	}
	k, err := loadMark(h.mark)
	if err != nil {
		return 0, fmt.Errorf("read log mark: %w", err)
	}
	at := -1
	if k.file != (fileID{}) {
		at = place(all, &segment{id: k.file})
	}
	if at >= 0 && at < n {
		return 0, nil // in a newer file
	}
	size, err := rawSize(all[n])
	if err == nil && at == n {
		size -= k.off
	}
	return max(0, size), err
}

// rawSize is a file's size before it was compressed.
func rawSize(e entry) (int64, error) {
	f, err := os.OpenFile(e.name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil || !e.gz {
		return st.Size(), err
	}
	var b [4]byte // gzip ends with it
	if _, err := f.ReadAt(b[:], st.Size()-4); err != nil && err != io.EOF {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint32(b[:])), nil
}

func droppedFile(mark string) string { return mark + ".dropped" }

// addDropped counts what was dropped unsent, for the daemon to tell of.
func addDropped(mark string, n int64) error {
	return os.WriteFile(droppedFile(mark), strconv.AppendInt(nil, Dropped(mark)+n, 10), 0o600)
}

// Dropped returns how many bytes of a log were rotated away before they were
// sent on; mark is [runtime.Log]'s Sent.
func Dropped(mark string) int64 {
	b, err := os.ReadFile(droppedFile(mark))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
