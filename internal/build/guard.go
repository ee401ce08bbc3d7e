package build

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/atomicfile"
)

// guard lets builds write without waiting for the disk.
//
// The roots of steps are mounted volatile and BuildKit's cache records are not
// synced: nothing waits when a step ends, although its result is recorded at
// once. So while something is written there is a file that says so, with the id
// of this boot of the machine; it goes some time after the last build, when
// everything was synced. Layers are synced earlier: before an image is recorded
// and before a client hears of success. A start that finds the file of another
// boot knows that the machine went down meanwhile, and forgets the cache: its
// records may be damaged or tell of files that never reached the disk. A killed
// daemon alone loses nothing: what it wrote is with the kernel, and is the next
// one's to sync.
type guard struct {
	file, data string
	boot       []byte
	flush      func() error // of the records; set before use
	log        *slog.Logger

	mu     sync.Mutex
	active int         // what runs; guarded by mu
	gen    int         // counts writes of layers; guarded by mu
	synced int         // gen up to which everything is on disk; guarded by mu
	marked bool        // the file exists; guarded by mu
	idle   *time.Timer // settles all; guarded by mu
	closed bool        // guarded by mu
}

// idleAfter is how long after the last build its records are made durable.
const idleAfter = 5 * time.Second

// newGuard looks at what the last daemon left; lost says that the machine
// crashed during a build.
func newGuard(root, data string, log *slog.Logger) (_ *guard, lost bool, err error) {
	g := &guard{file: filepath.Join(root, "building"), data: data, log: log, flush: func() error { return nil }}
	if g.boot, err = os.ReadFile("/proc/sys/kernel/random/boot_id"); err != nil {
		return nil, false, err
	}
	was, err := os.ReadFile(g.file)
	if errors.Is(err, fs.ErrNotExist) {
		return g, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	g.marked, g.gen = true, 1
	return g, !bytes.Equal(was, g.boot), nil
}

// forget says that nothing is left of what the last daemon wrote.
func (g *guard) forget() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.synced = g.gen
	return g.clear()
}

// clear says that the state on disk is good. The caller holds g.mu.
func (g *guard) clear() error {
	if err := os.Remove(g.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	g.marked = false
	return nil
}

// enter is called before a build, and before anything else that writes
// records; what it returns after it, before its client hears of its end.
func (g *guard) enter() (done func() error, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.marked {
		if err := atomicfile.Write(g.file, g.boot, 0o600, true); err != nil {
			return nil, err
		}
		g.marked = true
	}
	if g.idle != nil {
		g.idle.Stop()
		g.idle = nil
	}
	g.active++
	return func() error {
		err := g.settle()
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.active--; g.active == 0 && !g.closed {
			g.idle = time.AfterFunc(idleAfter, func() {
				if err := g.rest(); err != nil {
					g.log.Error("cannot sync the build cache", "error", err)
				}
			})
		}
		return err
	}, nil
}

// busy reports whether a build runs.
func (g *guard) busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.active > 0
}

// rest makes the records durable, unless something runs, and says that the
// state on disk is good.
func (g *guard) rest() error {
	if err := g.settle(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.active > 0 || !g.marked || g.synced != g.gen {
		return nil
	}
	if err := g.flush(); err != nil {
		return err
	}
	return g.clear()
}

// close is the last rest.
func (g *guard) close() error {
	g.mu.Lock()
	g.closed = true
	if g.idle != nil {
		g.idle.Stop()
	}
	g.mu.Unlock()
	return g.rest()
}

// touch is called before a layer is written.
func (g *guard) touch() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gen++
}

// settle makes the layers durable that were written before.
func (g *guard) settle() error {
	g.mu.Lock()
	gen, clean := g.gen, g.synced == g.gen
	g.mu.Unlock()
	if clean {
		return nil
	}
	f, err := os.Open(g.data)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", g.data, err)
	}
	g.mu.Lock()
	g.synced = max(g.synced, gen)
	g.mu.Unlock()
	return nil
}
