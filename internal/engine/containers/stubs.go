package containers

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
)

const (
	stubsName = ".stubs"
	stubsKept = 1024 // images whose layer of stubs is remembered
)

// stubs knows which layer goes between an image's layers and a container's own:
// an image is looked at once, not at each start.
type stubs struct {
	base   string
	layers Layers

	mu    sync.Mutex // guards known, and is held for the making of one
	known map[string]string
}

func newStubs(dataRoot string, l Layers) *stubs {
	return &stubs{base: filepath.Join(dataRoot, stubsName), layers: l, known: map[string]string{}}
}

// over returns the layers of the image chainID ("" for none) with the one of
// stubs on top.
func (b *stubs) over(chainID string, lowers []string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	dir, ok := b.known[chainID]
	if !ok {
		if err := os.Mkdir(b.base, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		var err error
		if dir, err = b.layers.Stubs(b.base, lowers); err != nil {
			return nil, err
		}
		if len(b.known) >= stubsKept {
			clear(b.known)
		}
		b.known[chainID] = dir
	}
	return append([]string{dir}, lowers...), nil
}
