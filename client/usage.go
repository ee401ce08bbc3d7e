package client

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// DiskUsage tells what uses the daemon's disk; verbose with every object. All
// of the answer's four parts are set.
func (c *Client) DiskUsage(ctx context.Context, verbose bool) (system.DiskUsage, error) {
	var r struct {
		system.DiskUsage
		legacyUsage
	}
	q := query{"type": {string(system.ContainerObject), string(system.ImageObject), string(system.VolumeObject), string(system.BuildCacheObject)}}
	if err := c.call(ctx, request{method: http.MethodGet, path: "/system/df", query: q.flag("verbose", verbose).values()}, &r); err != nil {
		return system.DiskUsage{}, err
	}
	u := r.DiskUsage
	if lessVersion(c.APIVersion(), "1.52") {
		u = r.sum()
	}
	if u.ImageUsage == nil {
		u.ImageUsage = &image.DiskUsage{}
	}
	if u.ContainerUsage == nil {
		u.ContainerUsage = &container.DiskUsage{}
	}
	if u.VolumeUsage == nil {
		u.VolumeUsage = &volume.DiskUsage{}
	}
	if u.BuildCacheUsage == nil {
		u.BuildCacheUsage = &build.DiskUsage{}
	}
	return u, nil
}

// legacyUsage is the answer before version 1.52: lists without sums.
type legacyUsage struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
}

func (l *legacyUsage) sum() system.DiskUsage {
	images := &image.DiskUsage{TotalSize: l.LayersSize, TotalCount: int64(len(l.Images)), Items: l.Images}
	for _, i := range l.Images {
		switch {
		case i.Containers > 0:
			images.ActiveCount++
		case i.Containers == 0 && i.Size >= 0 && i.SharedSize >= 0: // -1: not counted
			images.Reclaimable += i.Size - i.SharedSize
		}
	}
	containers := &container.DiskUsage{TotalCount: int64(len(l.Containers)), Items: l.Containers}
	for _, c := range l.Containers {
		containers.TotalSize += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			containers.ActiveCount++
		default:
			containers.Reclaimable += c.SizeRw
		}
	}
	volumes := &volume.DiskUsage{TotalCount: int64(len(l.Volumes)), Items: l.Volumes}
	for _, v := range l.Volumes {
		if v.UsageData == nil {
			continue
		}
		size := max(v.UsageData.Size, 0)
		volumes.TotalSize += size
		if v.UsageData.RefCount > 0 {
			volumes.ActiveCount++
		} else {
			volumes.Reclaimable += size
		}
	}
	cache := &build.DiskUsage{TotalCount: int64(len(l.BuildCache)), Items: l.BuildCache}
	for _, b := range l.BuildCache {
		if b.InUse {
			cache.ActiveCount++
		}
		if !b.Shared {
			cache.TotalSize += b.Size
			if !b.InUse {
				cache.Reclaimable += b.Size
			}
		}
	}
	return system.DiskUsage{ImageUsage: images, ContainerUsage: containers, VolumeUsage: volumes, BuildCacheUsage: cache}
}
