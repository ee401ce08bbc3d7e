package containers

import (
	"context"
	"fmt"
	"strconv"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// mountVolumes has a container's volumes mounted for a user, which is the
// container or who looks into it; undo gives them back.
func (s *Service) mountVolumes(ctx context.Context, rec *Record, user string, undo *cleanup.Stack) (map[string]MountedVolume, error) {
	out := map[string]MountedVolume{}
	for _, m := range rec.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		v, err := s.o.Volumes.Mount(ctx, m.Name, user)
		if err != nil {
			return nil, err
		}
		undo.Push(func() { s.unmountVolume(ctx, m, user) })
		out[m.Name] = v
	}
	return out, nil
}

func (s *Service) unmountVolume(ctx context.Context, m Mount, user string) {
	if m.Type != mount.TypeVolume {
		return
	}
	if err := s.o.Volumes.Unmount(ctx, m.Name, user); err != nil {
		s.log.WarnContext(ctx, "cannot unmount a volume", "volume", m.Name, "user", user, "err", err)
	}
}

// copyUp fills a container's empty volumes with what its image has at their
// places, once, before anybody sees them: at its first start, or when it is looked
// into before. A file system in memory that nobody else
// uses stays empty, as with docker, which fills it before its first start and
// unmounts it again: its content is the same at every start.
func (s *Service) copyUp(ctx context.Context, rec *Record, rootfs runtime.Rootfs, volumes map[string]MountedVolume) error {
	for _, m := range rec.Mounts {
		v := volumes[m.Name]
		if m.Type != mount.TypeVolume || m.NoCopy || v.Fleeting {
			continue
		}
		var owners *userns.Map
		if v.Foreign {
			owners = s.users(rec)
		}
		if err := s.o.Layers.CopyUp(ctx, rootfs, m.Destination, m.Source, m.Subpath, owners); err != nil {
			return fmt.Errorf("failed to populate volume %s: %w", m.Name, err)
		}
	}
	return nil
}

// volumeEvent tells that a container's volume was mounted or unmounted.
func (s *Service) volumeEvent(rec *Record, m Mount, a apievents.Action) {
	if m.Type != mount.TypeVolume {
		return
	}
	attrs := map[string]string{"driver": m.Driver, "container": rec.ID}
	if a == apievents.ActionMount {
		attrs["destination"] = m.Destination
		attrs["read/write"] = strconv.FormatBool(!m.ReadOnly)
		attrs["propagation"] = string(m.Propagation)
	}
	s.o.Events.Publish(apievents.VolumeEventType, a, m.Name, attrs)
}

// openStopped opens what the processes of a container that does not run would
// see. Its volumes are mounted for as long.
func (s *Service) openStopped(ctx context.Context, c *ctr, rec *Record, started bool) (Root, error) {
	rootfs, err := s.rootfs(ctx, c, rec)
	if err != nil {
		return nil, err
	}
	var undo cleanup.Stack
	defer undo.Run()
	ctx = context.WithoutCancel(ctx)
	volumes, err := s.mountVolumes(ctx, rec, "open-"+ids.New(), &undo)
	if err != nil {
		return nil, err
	}
	if !started {
		if err := s.copyUp(ctx, rec, *rootfs, volumes); err != nil {
			return nil, err
		}
	}
	var mounts []RootMount
	for _, m := range rec.Mounts {
		if m.Source != "" && (m.Type == mount.TypeVolume || m.Type == mount.TypeBind) {
			mounts = append(mounts, RootMount{Source: m.Source, Subpath: m.Subpath, Destination: m.Destination, ReadOnly: m.ReadOnly})
		}
	}
	if started {
		mounts = append(mounts, s.keptMounts(rec)...)
	}
	root, err := s.o.Layers.OpenRoot(ctx, *rootfs, mounts)
	if err != nil {
		return nil, err
	}
	held := undo
	undo.Release()
	return &heldRoot{root, held}, nil
}

// heldRoot gives its volumes back when it is closed.
type heldRoot struct {
	Root
	held cleanup.Stack
}

func (r *heldRoot) Close() error {
	defer r.held.Run()
	return r.Root.Close()
}
