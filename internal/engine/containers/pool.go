package containers

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/ids"
)

const (
	poolPrefix = ".ready-"
	// A container that ends at once is over before its layer is replaced.
	poolDelay = 25 * time.Millisecond
	upperName = "upper"
	workName  = "work"
)

// pool keeps writable layers prepared: on a disk file system making a directory
// costs as much as starting a process, renaming one next to nothing.
type pool struct {
	root string
	size int
	log  *slog.Logger

	mu      sync.Mutex // guards ready, filling, closed
	ready   []string
	filling bool
	closed  bool
	quit    chan struct{} // closed when closed is set
	wg      sync.WaitGroup
}

func newPool(root string, size int, log *slog.Logger) *pool {
	return &pool{root: root, size: max(size, 0), log: log, quit: make(chan struct{})}
}

// adopt takes over what an earlier daemon prepared.
func (p *pool) adopt(dirs []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, dirs...)
}

func isReady(name string) bool { return strings.HasPrefix(name, poolPrefix) }

// take makes dir, with an upper and a work directory in it.
func (p *pool) take(dir string) error {
	p.mu.Lock()
	var from string
	if n := len(p.ready); n > 0 {
		from, p.ready = p.ready[n-1], p.ready[:n-1]
	}
	p.mu.Unlock()
	p.refill()
	if from != "" {
		if err := os.Rename(filepath.Join(p.root, from), dir); err == nil {
			return nil
		}
	}
	return prepare(dir)
}

// prepare makes a writable layer, or what is missing of it.
func prepare(dir string) error {
	// The upper directory becomes the container's "/": its mode shows there.
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{dir, 0o700}, {filepath.Join(dir, upperName), 0o755}, {filepath.Join(dir, workName), 0o700}} {
		if err := os.Mkdir(d.path, d.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// refill prepares in the background what is missing.
func (p *pool) refill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.filling || p.closed || len(p.ready) >= p.size {
		return
	}
	p.filling = true
	p.wg.Go(func() {
		select {
		case <-p.quit:
		case <-time.After(poolDelay):
		}
		p.fill()
	})
}

func (p *pool) fill() {
	for {
		p.mu.Lock()
		if p.closed || len(p.ready) >= p.size {
			p.filling = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		name := poolPrefix + ids.Short(ids.New())
		if err := prepare(filepath.Join(p.root, name)); err != nil {
			p.log.Warn("cannot prepare a writable layer", "err", err)
			p.mu.Lock()
			p.filling = false
			p.mu.Unlock()
			return
		}
		p.mu.Lock()
		p.ready = append(p.ready, name)
		p.mu.Unlock()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.quit)
	}
	p.mu.Unlock()
	p.wg.Wait()
}
