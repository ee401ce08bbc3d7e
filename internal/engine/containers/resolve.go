package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// declaredMounts lists what a configuration mounts, without touching anything.
// At one place the container's own outweighs that of --volumes-from, which
// outweighs a VOLUME of the image. With flat, -v's read-only binds are not
// recursively so.
func (s *Service) declaredMounts(c *container.Config, h *container.HostConfig, flat bool) ([]Mount, error) {
	points, err := spec.MountPoints(c, h)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	asked, err := spec.MountPoints(&container.Config{}, h)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	own := map[string]bool{}
	for _, p := range asked {
		own[p.Target] = true
	}
	from, err := s.mountsOfOthers(h.VolumesFrom)
	if err != nil {
		return nil, err
	}
	var out []Mount
	for _, p := range points {
		if err := checkBindSource(p); err != nil {
			return nil, err
		}
		if err := s.adaptToRoot(&p); err != nil {
			return nil, err
		}
		m := mountOf(p)
		if flat && p.Raw && p.Type == mount.TypeBind && p.ReadOnly {
			m.ReadOnlyNonRecursive = true
		}
		if other, ok := from[m.Destination]; ok && !own[m.Destination] {
			m = other
		}
		delete(from, m.Destination)
		out = append(out, m)
	}
	for i := range out {
		out[i].Hidden = out[i].Type == mount.TypeTmpfs && hasTmpfs(h, out[i].Destination)
	}
	for _, m := range from {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return out, nil
}

// hasTmpfs reports whether --tmpfs names the place.
func hasTmpfs(h *container.HostConfig, dest string) bool {
	for d := range h.Tmpfs {
		if path.Clean(d) == dest {
			return true
		}
	}
	return false
}

// mountsOfOthers collects the volumes and binds of other containers by place.
func (s *Service) mountsOfOthers(volumesFrom []string) (map[string]Mount, error) {
	out := map[string]Mount{}
	for _, v := range volumesFrom {
		ref, readOnly, err := spec.ParseVolumesFrom(v)
		if err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		other, err := s.index.get(ref)
		if err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		for _, m := range other.record().Mounts {
			if m.Type == mount.TypeVolume || m.Type == mount.TypeBind {
				m.ReadOnly = m.ReadOnly || readOnly
				m.FromOther, m.NoCopy, m.Anonymous = true, true, false
				out[m.Destination] = m
			}
		}
	}
	return out, nil
}

// checkBindSource is --mount's promise: unlike -v it does not make the source.
func checkBindSource(p spec.MountPoint) error {
	if p.Type != mount.TypeBind || p.CreateSource {
		return nil
	}
	_, err := os.Stat(p.Source)
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("bind source path does not exist: %s", p.Source)
	}
	return errs.Newf(errs.Invalid, "invalid mount config for type %q: %w", p.Type, err)
}

// adaptToRoot makes a bind that shows the daemon's directory follow what is
// unmounted there: kept mounted by a container, nothing could be removed.
func (s *Service) adaptToRoot(p *spec.MountPoint) error {
	if p.Type != mount.TypeBind || !under(p.Source, s.o.DataRoot) && !under(s.o.DataRoot, p.Source) {
		return nil
	}
	switch {
	case !p.Propagates:
		p.Propagation = mount.PropagationRSlave
	case p.Propagation != mount.PropagationRSlave && p.Propagation != mount.PropagationRShared:
		return errs.Newf(errs.Invalid, "invalid mount config: must use either propagation mode %q or %q when mount source is within the daemon root, "+
			"daemon root: %q, bind mount source: %q, propagation: %q",
			mount.PropagationRSlave, mount.PropagationRShared, s.o.DataRoot, p.Source, p.Propagation)
	}
	return nil
}

// under reports whether p is dir or in it; both are clean.
func under(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

func mountOf(p spec.MountPoint) Mount {
	return Mount{
		Type: p.Type, Name: p.Name, Source: p.Source, Destination: p.Target, Driver: p.Driver, Mode: p.Mode,
		ReadOnly: p.ReadOnly || p.Type == mount.TypeImage, Propagation: p.Propagation, Subpath: p.Subpath,
		NoCopy: p.NoCopy, MakeSource: p.CreateSource, NonRecursive: p.NonRecursive,
		ReadOnlyNonRecursive: p.ReadOnlyNonRecursive, ReadOnlyForceRecursive: p.ReadOnlyForceRecursive,
		Tmpfs: p.TmpfsOptions, opts: p.DriverOpts, labels: p.Labels,
	}
}

// acquire gets the volumes and images behind mounts for a container, filling in
// what becomes known; undo gives them back, and removes those it made unnamed.
func (s *Service) acquire(ctx context.Context, mounts []Mount, id string, undo *cleanup.Stack) error {
	for i := range mounts {
		m := &mounts[i]
		switch m.Type {
		case mount.TypeVolume:
			v, err := s.o.Volumes.Acquire(ctx, m.Name, m.Driver, m.opts, m.labels, id)
			if err != nil {
				return err
			}
			m.Anonymous = m.Name == ""
			m.Name, m.Driver, m.Source = v.Name, v.Driver, v.Path
			if m.Mode == "" && !m.FromOther {
				m.Mode = "z" // as docker shows it, with or without SELinux
			}
			undo.Push(func() { s.giveBack(context.WithoutCancel(ctx), *m, id, true) })
		case mount.TypeImage:
			img, err := s.o.Images.Resolve(ctx, m.Source, nil)
			if err != nil {
				return err
			}
			m.Name, m.Source, m.ChainID = m.Source, img.ID, img.ChainID
		}
	}
	return nil
}

// giveBack releases a volume, and removes it if it was made for the container
// alone and that is wanted.
func (s *Service) giveBack(ctx context.Context, m Mount, id string, remove bool) {
	if err := s.o.Volumes.Release(ctx, m.Name, id); err != nil {
		s.log.WarnContext(ctx, "cannot release a volume", "volume", m.Name, "container", id, "err", err)
		return
	}
	if !remove || !m.Anonymous {
		return
	}
	// Another container may have it by --volumes-from: then it stays.
	if err := s.o.Volumes.Remove(ctx, m.Name); err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict) {
		s.log.WarnContext(ctx, "cannot remove an anonymous volume", "volume", m.Name, "container", id, "err", err)
	}
}
