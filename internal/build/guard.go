package build

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/atomicfile"
)

// guard lets build steps write without waiting for the disk.
//
// The roots of steps are mounted volatile: nothing is synced when a step ends,
// although BuildKit records its result at once. So from the first write of a
// build on there is a file that says so, with the id of this boot of the
// machine; it goes when everything was synced, which happens before an image is
// recorded and before a client hears of success. A start that finds the file of
// another boot knows that the machine went down in the middle of a build, and
// forgets the cache: the records may tell of files that never reached the disk.
// A killed daemon alone loses nothing: what it wrote is with the kernel.
type guard struct {
	file, data string
	boot       []byte

	mu     sync.Mutex
	active int  // builds that run; guarded by mu
	gen    int  // counts touches; guarded by mu
	synced int  // gen up to which everything is on disk; guarded by mu
	marked bool // the file exists; guarded by mu
}

// newGuard looks at what the last daemon left; lost says that the machine
// crashed during a build.
func newGuard(root, data string) (_ *guard, lost bool, err error) {
	g := &guard{file: filepath.Join(root, "building"), data: data}
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
	return g, !bytes.Equal(was, g.boot), nil
}

// clear says that the state on disk is good.
func (g *guard) clear() error {
	if err := os.Remove(g.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// enter is called before a build; what it returns after it, before its client
// hears of its end.
func (g *guard) enter() (done func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active++
	return func() error {
		err := g.settle()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.active--
		if err != nil || g.active > 0 || g.synced != g.gen || !g.marked {
			return err
		}
		g.marked = false
		return g.clear()
	}
}

// touch is called before anything is written.
func (g *guard) touch() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gen++
	if g.marked {
		return nil
	}
	if err := atomicfile.Write(g.file, g.boot, 0o600, true); err != nil {
		return err
	}
	g.marked = true
	return nil
}

// settle makes everything durable that was written before.
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
