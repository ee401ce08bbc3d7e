package daemon

import (
	"context"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/engine/system"
)

// sysContainers and sysImages count for /info and /system/df.
type sysContainers struct{ s *containers.Service }

func (c sysContainers) States(context.Context) (running, paused, stopped int, err error) {
	n := c.s.Counts()
	return n.Running, n.Paused, n.Stopped, nil
}

func (c sysContainers) DiskUsage(ctx context.Context, verbose bool) (*container.DiskUsage, error) {
	list, err := c.s.List(ctx, containers.ListOptions{All: true, Size: true})
	if err != nil {
		return nil, err
	}
	return system.ContainerUsage(list, verbose), nil
}

type sysImages struct{ s *images.Service }

func (i sysImages) Count(ctx context.Context) (int, error) {
	return i.s.Count(ctx)
}

func (i sysImages) DiskUsage(ctx context.Context, verbose bool) (*image.DiskUsage, error) {
	list, err := i.s.List(ctx, images.ListOptions{SharedSize: true, ContainerCount: true})
	if err != nil {
		return nil, err
	}
	size, err := i.s.LayersSize(ctx)
	if err != nil {
		return nil, err
	}
	return system.ImageUsage(list, size, verbose), nil
}
