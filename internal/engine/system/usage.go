package system

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sync/errgroup"
)

// DiskUsage asks all services at once.
func (s *Service) DiskUsage(ctx context.Context, o DiskUsageOptions) (*system.DiskUsage, error) {
	all := !o.Containers && !o.Images && !o.Volumes && !o.BuildCache
	u := &system.DiskUsage{}
	g, ctx := errgroup.WithContext(ctx)
	ask := func(wanted, there bool, what string, f func() error) {
		if (wanted || all) && there {
			g.Go(func() error {
				if err := f(); err != nil {
					return fmt.Errorf("disk usage of %s: %w", what, err)
				}
				return nil
			})
		}
	}
	ask(o.Containers, s.d.Containers != nil, "containers", func() (err error) {
		u.ContainerUsage, err = s.d.Containers.DiskUsage(ctx, o.Verbose)
		return err
	})
	ask(o.Images, s.d.Images != nil, "images", func() (err error) {
		u.ImageUsage, err = s.d.Images.DiskUsage(ctx, o.Verbose)
		return err
	})
	ask(o.Volumes, s.d.Volumes != nil, "volumes", func() (err error) {
		u.VolumeUsage, err = s.d.Volumes.DiskUsage(ctx, o.Verbose)
		return err
	})
	ask(o.BuildCache, s.d.BuildCache != nil, "the build cache", func() error {
		records, err := s.d.BuildCache.DiskUsage(ctx)
		u.BuildCacheUsage = BuildCacheUsage(records, o.Verbose)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return u, nil
}

// ContainerUsage sums up containers that were listed with their sizes.
func ContainerUsage(cs []container.Summary, verbose bool) *container.DiskUsage {
	u := &container.DiskUsage{TotalCount: int64(len(cs))}
	for _, c := range cs {
		u.TotalSize += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			u.ActiveCount++
		case container.StateCreated, container.StateRemoving, container.StateExited, container.StateDead:
			u.Reclaimable += c.SizeRw
		}
	}
	if verbose {
		u.Items = cs
	}
	return u
}

// ImageUsage sums up images that were listed with shared sizes and the number
// of containers; layers is the size of all layers, each counted once.
func ImageUsage(is []image.Summary, layers int64, verbose bool) *image.DiskUsage {
	u := &image.DiskUsage{TotalCount: int64(len(is)), TotalSize: layers, Reclaimable: layers}
	for _, m := range is {
		if m.Containers > 0 {
			u.ActiveCount++
			if m.Size >= 0 && m.SharedSize >= 0 {
				u.Reclaimable -= m.Size - m.SharedSize
			}
		}
	}
	u.Reclaimable = max(u.Reclaimable, 0)
	if verbose {
		u.Items = is
	}
	return u
}

// VolumeUsage sums up volumes that have their UsageData.
func VolumeUsage(vs []volume.Volume, verbose bool) *volume.DiskUsage {
	u := &volume.DiskUsage{TotalCount: int64(len(vs))}
	for _, v := range vs {
		if v.UsageData == nil {
			continue
		}
		size := max(v.UsageData.Size, 0) // -1 is not known
		u.TotalSize += size
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
	}
	if verbose {
		u.Items = vs
	}
	return u
}

// BuildCacheUsage sums up the builder's records; what they share with images
// counts there.
func BuildCacheUsage(records []*build.CacheRecord, verbose bool) *build.DiskUsage {
	u := &build.DiskUsage{TotalCount: int64(len(records))}
	for _, r := range records {
		if r.InUse {
			u.ActiveCount++
		}
		if r.Shared {
			continue
		}
		u.TotalSize += r.Size
		if !r.InUse {
			u.Reclaimable += r.Size
		}
	}
	if verbose {
		u.Items = make([]build.CacheRecord, len(records))
		for i, r := range records {
			u.Items[i] = *r
		}
	}
	return u
}
