package snapshot

import (
	"context"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
)

// countedImages counts the changes of image names, so that what was read of them can be
// kept until the next one. All writers of the process go through it.
type countedImages struct {
	images.Store
	changes atomic.Uint64
}

// NamesVersion changes with every change of an image's name. What is read
// between two calls that return the same is still true.
func (s *Store) NamesVersion() uint64 { return s.names.changes.Load() }

func (c *countedImages) Create(ctx context.Context, i images.Image) (images.Image, error) {
	defer c.changes.Add(1)
	return c.Store.Create(ctx, i)
}

func (c *countedImages) Update(ctx context.Context, i images.Image, paths ...string) (images.Image, error) {
	defer c.changes.Add(1)
	return c.Store.Update(ctx, i, paths...)
}

func (c *countedImages) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	defer c.changes.Add(1)
	return c.Store.Delete(ctx, name, opts...)
}
