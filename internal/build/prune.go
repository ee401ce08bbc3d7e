package build

import (
	"context"
	"time"

	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"
)

// CacheRecord is one piece of the build cache.
type CacheRecord = client.UsageInfo

// PruneOptions say what of the build cache may go.
type PruneOptions struct {
	Filters                                   []string // BuildKit's filter language
	All                                       bool     // also what is internal or shared
	KeepDuration                              time.Duration
	ReservedSpace, MaxUsedSpace, MinFreeSpace int64
}

// DiskUsage lists the build cache; filters are in BuildKit's language.
func (b *Builder) DiskUsage(ctx context.Context, filters []string) ([]*CacheRecord, error) {
	if b.unused() {
		return nil, nil
	}
	k, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	return k.worker.DiskUsage(ctx, client.DiskUsageInfo{Filter: filters})
}

// Prune removes build cache and tells what went.
func (b *Builder) Prune(ctx context.Context, o PruneOptions) ([]CacheRecord, error) {
	if b.unused() {
		return nil, nil
	}
	k, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	var gone []CacheRecord
	ch := make(chan client.UsageInfo, 32)
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error {
		defer close(ch)
		return k.worker.Prune(ctx, ch, client.PruneInfo{
			Filter: o.Filters, All: o.All, KeepDuration: o.KeepDuration,
			ReservedSpace: o.ReservedSpace, MaxUsedSpace: o.MaxUsedSpace, MinFreeSpace: o.MinFreeSpace,
		})
	})
	for u := range ch {
		gone = append(gone, u)
	}
	return gone, eg.Wait()
}
