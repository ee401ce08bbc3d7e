package containers

import (
	"context"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Prune removes the containers that do not run.
func (s *Service) Prune(ctx context.Context, f filter.Set) (container.PruneReport, error) {
	var report container.PruneReport
	if err := f.Check("label", "label!", "until"); err != nil {
		return report, err
	}
	until, err := pruneUntil(f["until"], s.now())
	if err != nil {
		return report, err
	}
	if !s.pruning.CompareAndSwap(false, true) {
		return report, errs.New(errs.Conflict, "a prune operation is already running")
	}
	defer s.pruning.Store(false)
	for _, c := range s.index.all() {
		if ctx.Err() != nil {
			return report, nil // what was done is told
		}
		v := c.look()
		if v.st.Phase.active() || !until.IsZero() && v.rec.Created.After(until) ||
			!f.Labels("label", v.rec.Config.Labels) || f.Has("label!") && f.Labels("label!", v.rec.Config.Labels) {
			continue
		}
		size, _, err := s.sizes(ctx, c, &v.rec)
		if err != nil {
			s.log.DebugContext(ctx, "cannot measure a container", "container", c.id, "err", err)
		}
		if err := s.Remove(ctx, c.id, RemoveOptions{}); err != nil {
			s.log.WarnContext(ctx, "cannot prune container", "container", c.id, "err", err)
			continue
		}
		report.SpaceReclaimed += uint64(max(size, 0))
		report.ContainersDeleted = append(report.ContainersDeleted, c.id)
	}
	s.o.Events.Publish(apievents.ContainerEventType, apievents.ActionPrune, "",
		map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)})
	return report, nil
}

// pruneUntil reads a time: seconds since 1970, a duration before now, or a date.
func pruneUntil(values []string, now time.Time) (time.Time, error) {
	if len(values) == 0 {
		return time.Time{}, nil
	}
	if len(values) > 1 {
		return time.Time{}, errs.New(errs.Invalid, "more than one until filter specified")
	}
	v := values[0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if sec, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(0, int64(sec*float64(time.Second))), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errs.Newf(errs.Invalid, "failed to parse value as time or duration: %q", v)
}
