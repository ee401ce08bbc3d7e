package containers

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/ids"
)

const (
	trashName = ".trash"
	// Who waits for a container's end is told and gone before this is over.
	trashDelay = 25 * time.Millisecond
)

// trash removes directory trees in the background: throwing one away is a
// rename. What a killed daemon left in it is emptied by the next.
type trash struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex // guards running, closed
	running bool       // a goroutine is emptying
	again   bool       // more came while it did
	closed  bool
	quit    chan struct{} // closed when closed is set
	wg      sync.WaitGroup
}

func newTrash(dir string, log *slog.Logger) *trash {
	return &trash{dir: dir, log: log, quit: make(chan struct{})}
}

// throw makes a tree vanish from its place; none is no error.
func (t *trash) throw(path string) error {
	to := filepath.Join(t.dir, strconv.FormatInt(time.Now().UnixNano(), 36)+ids.Short(ids.New()))
	err := os.Rename(path, to)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Lstat(path); errors.Is(statErr, fs.ErrNotExist) {
			return nil
		}
		if err = os.Mkdir(t.dir, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Rename(path, to)
		}
	}
	if err != nil {
		return err
	}
	t.empty()
	return nil
}

// empty starts emptying unless that is going on.
func (t *trash) empty() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if t.running {
		t.again = true
		return
	}
	t.running = true
	t.wg.Go(t.work)
}

func (t *trash) work() {
	for {
		select {
		case <-t.quit:
			return
		case <-time.After(trashDelay):
		}
		entries, err := os.ReadDir(t.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.log.Warn("cannot empty the trash", "dir", t.dir, "err", err)
		}
		for _, e := range entries {
			t.mu.Lock()
			closed := t.closed
			t.mu.Unlock()
			if closed {
				return
			}
			if err := os.RemoveAll(filepath.Join(t.dir, e.Name())); err != nil {
				t.log.Warn("cannot remove a directory", "dir", filepath.Join(t.dir, e.Name()), "err", err)
			}
		}
		t.mu.Lock()
		if !t.again || t.closed {
			t.running = false
			t.mu.Unlock()
			return
		}
		t.again = false
		t.mu.Unlock()
	}
}

func (t *trash) close() {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.quit)
	}
	t.mu.Unlock()
	t.wg.Wait()
}
