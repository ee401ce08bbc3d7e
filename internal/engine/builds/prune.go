package builds

import (
	"context"
	"sort"
	"strconv"
	"time"

	apibuild "github.com/moby/moby/api/types/build"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Prune removes build cache: POST /build/prune.
func (s *Service) Prune(ctx context.Context, o PruneOptions) (*apibuild.CachePruneReport, error) {
	po := build.PruneOptions{
		All: o.All, ReservedSpace: o.ReservedSpace, MaxUsedSpace: o.MaxUsedSpace, MinFreeSpace: o.MinFreeSpace,
	}
	var err error
	if po.Filters, po.KeepDuration, err = CacheFilters(o.Filters, time.Now()); err != nil {
		return nil, err
	}
	var gone []build.CacheRecord
	// `system prune` sends its filters here too. No record has a label, so none
	// matches one asked for.
	if !o.Filters.Has("label") {
		if gone, err = s.builder.Prune(ctx, po); err != nil {
			return nil, err
		}
	}
	rep := &apibuild.CachePruneReport{CachesDeleted: []string{}}
	for _, r := range gone {
		rep.CachesDeleted = append(rep.CachesDeleted, r.ID)
		if r.Size > 0 && !r.Shared {
			rep.SpaceReclaimed += uint64(r.Size)
		}
	}
	s.publish(apievents.ActionPrune, map[string]string{"reclaimed": strconv.FormatUint(rep.SpaceReclaimed, 10)})
	return rep, nil
}

// DiskUsage lists the build cache, the newest use first.
func (s *Service) DiskUsage(ctx context.Context) ([]*apibuild.CacheRecord, error) {
	records, err := s.builder.DiskUsage(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := make([]*apibuild.CacheRecord, 0, len(records))
	for _, r := range records {
		out = append(out, &apibuild.CacheRecord{
			ID: r.ID, Parents: r.Parents, Type: string(r.RecordType), Description: r.Description, InUse: r.InUse,
			Shared: r.Shared, Size: r.Size, CreatedAt: r.CreatedAt, LastUsedAt: r.LastUsedAt, UsageCount: r.UsageCount,
		})
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].CreatedAt.After(out[j].CreatedAt) })
	return out, nil
}

// CacheFilters translates docker's filters to BuildKit's language, where one
// string with commas means all of its parts. now is what durations count from.
func CacheFilters(f filter.Set, now time.Time) (out []string, keep time.Duration, err error) {
	if err := f.Check("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private", "label", "label!"); err != nil {
		return nil, 0, err
	}
	all := ""
	add := func(s string) {
		if all != "" {
			all += ","
		}
		all += s
	}
	for _, key := range []string{"id", "parent", "type", "description"} {
		switch vs := f[key]; {
		case len(vs) > 1:
			return nil, 0, errs.Newf(errs.Invalid, "filter %q expects only one value", key)
		case len(vs) == 1 && key == "id":
			add("id~=" + strconv.Quote("^"+vs[0]))
		case len(vs) == 1:
			add(key + "==" + strconv.Quote(vs[0]))
		}
	}
	for _, key := range []string{"inuse", "shared", "private"} {
		if !f.Has(key) {
			continue
		}
		on, err := f.Bool(key, true)
		if err != nil {
			return nil, 0, err
		}
		switch {
		case key == "private" && on:
			add("shared!=true")
		case key == "private":
			add("shared==true")
		case on:
			add(key + "==true")
		default:
			add(key + "!=true")
		}
	}
	if all != "" {
		out = []string{all}
	}
	keep, err = keepDuration(f, now)
	return out, keep, err
}

// keepDuration reads until= and unused-for=: cache used later than that stays.
func keepDuration(f filter.Set, now time.Time) (time.Duration, error) {
	vs := append(append([]string(nil), f["until"]...), f["unused-for"]...)
	switch len(vs) {
	case 0:
		return 0, nil
	case 1:
	default:
		return 0, errs.New(errs.Invalid, "only one of until and unused-for may be given, once")
	}
	if d, err := time.ParseDuration(vs[0]); err == nil && d >= 0 {
		return d, nil
	}
	if sec, err := strconv.ParseInt(vs[0], 10, 64); err == nil {
		return max(0, now.Sub(time.Unix(sec, 0))), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, vs[0], time.Local); err == nil {
			return max(0, now.Sub(t)), nil
		}
	}
	return 0, errs.Newf(errs.Invalid, "invalid until filter: %q is neither a time nor a duration", vs[0])
}
