package network

import (
	"os"
	"sync"
	"time"
)

// graves keeps the namespaces of closed sandboxes until it is quiet, and then
// drops them at once: while the kernel takes a namespace apart no interface can
// be made, and a container that starts right after another ended would wait for
// that; several together cost it hardly more than one.
type graves struct {
	mu    sync.Mutex // guards what follows
	files []*os.File
	first time.Time // when the oldest of files came
	busy  time.Time // when a sandbox was last asked for
	wake  *time.Timer
	over  bool
}

const (
	gravesQuiet = 50 * time.Millisecond // without a start
	gravesAge   = 2 * time.Second       // of the oldest
	gravesMax   = 64
)

// started notes that a sandbox is being made.
func (g *graves) started() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy = time.Now()
}

// bury takes over a namespace.
func (g *graves) bury(f *os.File) {
	g.mu.Lock()
	if g.over {
		g.mu.Unlock()
		_ = f.Close()
		return
	}
	if len(g.files) == 0 {
		g.first = time.Now()
		if g.wake == nil {
			g.wake = time.AfterFunc(gravesQuiet, g.visit)
		} else {
			g.wake.Reset(gravesQuiet)
		}
	}
	g.files = append(g.files, f)
	full := len(g.files) >= gravesMax
	g.mu.Unlock()
	if full {
		g.flush()
	}
}

// visit drops them if it is quiet, or comes again.
func (g *graves) visit() {
	g.mu.Lock()
	now := time.Now()
	if len(g.files) > 0 && now.Sub(g.busy) < gravesQuiet && now.Sub(g.first) < gravesAge {
		g.wake.Reset(gravesQuiet)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	g.flush()
}

// flush drops them now.
func (g *graves) flush() {
	g.mu.Lock()
	files := g.files
	g.files = nil
	g.mu.Unlock()
	for _, f := range files {
		_ = f.Close()
	}
}

func (g *graves) close() {
	g.mu.Lock()
	g.over = true
	if g.wake != nil {
		g.wake.Stop()
	}
	g.mu.Unlock()
	g.flush()
}
