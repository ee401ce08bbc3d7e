package volumes

import (
	"context"
	"slices"
	"strconv"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"

	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Prune removes the anonymous volumes that no container uses; with the filter
// all=true, the named ones too. Volumes that are file systems of their own are
// left: nothing here would be freed.
func (s *Service) Prune(ctx context.Context, f filter.Set) (volume.PruneReport, error) {
	report := volume.PruneReport{VolumesDeleted: []string{}}
	if err := f.Check("label", "label!", "all"); err != nil {
		return report, err
	}
	all, err := f.Bool("all", false)
	if err != nil {
		return report, err
	}
	for _, name := range s.prunable(f, all) {
		if ctx.Err() != nil {
			break // what was done is told of
		}
		size := diskUsage(s.path(name)) // not under the lock: it can take long
		if !s.removeUnused(name) {
			continue
		}
		report.VolumesDeleted = append(report.VolumesDeleted, name)
		report.SpaceReclaimed += uint64(max(size, 0)) //nolint:gosec // not negative
	}
	s.o.Events.Publish(apievents.VolumeEventType, apievents.ActionPrune, "", map[string]string{
		"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10),
	})
	return report, nil
}

func (s *Service) prunable(f filter.Set, all bool) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, rec := range s.vols {
		_, anonymous := rec.Labels[AnonymousLabel]
		if len(s.users[name]) > 0 || !anonymous && !all || len(rec.Options) > 0 ||
			!f.Labels("label", rec.Labels) || f.Has("label!") && f.Labels("label!", rec.Labels) {
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// removeUnused removes a volume, if it is still there and still unused.
func (s *Service) removeUnused(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.vols[name]
	if !ok || len(s.users[name]) > 0 {
		return false
	}
	if err := s.remove(rec); err != nil {
		s.o.Log.Warn("cannot prune a volume", "volume", name, "err", err)
		return false
	}
	return true
}
