package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Builder makes images. Its methods are safe for concurrent use.
type Builder struct {
	opt Options
	log *slog.Logger

	mu     sync.Mutex // guards what follows; held while BuildKit starts
	kit    *kit
	closed bool
}

// New returns a Builder; BuildKit itself starts with the first use of it.
func New(opt Options) (*Builder, error) {
	switch {
	case opt.Root == "" || opt.StateDir == "":
		return nil, errors.New("build: no directories given")
	case opt.Launcher == nil || opt.Networks == nil:
		return nil, errors.New("build: no launcher or no networks given")
	case opt.Store == nil:
		return nil, errors.New("build: no store given")
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Builder{opt: opt, log: opt.Log}, nil
}

// start returns the running BuildKit and starts it if need be. A failed start
// is tried again by the next caller.
func (b *Builder) start(ctx context.Context) (*kit, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errs.New(errs.Unavailable, "the builder is closed")
	}
	if b.kit != nil {
		return b.kit, nil
	}
	for _, d := range []string{b.opt.Root, b.opt.StateDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("start the builder: %w", err)
		}
	}
	// What lives as long as BuildKit must not end with this request.
	k, err := startKit(context.WithoutCancel(ctx), b.opt)
	if err != nil {
		return nil, fmt.Errorf("start the builder: %w", err)
	}
	b.kit = k
	return k, nil
}

// Started reports whether BuildKit runs: if not, it has nothing to tell.
func (b *Builder) Started() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kit != nil
}

// unused reports that nothing was ever built: then BuildKit need not be
// started to tell what it keeps.
func (b *Builder) unused() bool {
	if b.Started() {
		return false
	}
	_, err := os.Stat(filepath.Join(b.opt.Root, "metadata_v2.db"))
	return errors.Is(err, fs.ErrNotExist)
}

// Close stops BuildKit. Builds that still run fail.
func (b *Builder) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.kit == nil {
		return nil
	}
	err := b.kit.close()
	b.kit = nil
	return err
}
