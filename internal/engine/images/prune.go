package images

import (
	"context"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Prune removes the images that no container uses: those without a tag, or all
// with the filter dangling=false.
func (s *Service) Prune(ctx context.Context, f filter.Set) (image.PruneReport, error) {
	var out image.PruneReport
	if err := f.Check("dangling", "label", "label!", "until"); err != nil {
		return out, err
	}
	onlyDangling, err := f.Bool("dangling", true)
	if err != nil {
		return out, err
	}
	g := filter.Set{}
	for k, v := range f {
		if k != "dangling" {
			g[k] = v
		}
	}
	keep, err := s.wanted(ctx, g)
	if err != nil {
		return out, err
	}
	s.names.Lock()
	defer s.names.Unlock()
	all, err := s.ownEntries(ctx)
	if err != nil {
		return out, err
	}
	var victims []*entry
	for _, e := range all {
		if _, _, ok := keep(e); !ok || onlyDangling && !e.dangling() || len(s.inUse(e.ID.String())) > 0 {
			continue
		}
		victims = append(victims, e)
	}
	layers := map[digest.Digest]int64{}
	for _, e := range victims {
		r := &removal{s: s, e: e, all: all, force: true}
		err := r.byID(ctx)
		for _, d := range r.out {
			out.ImagesDeleted = append(out.ImagesDeleted, d)
			layers[digest.Digest(d.Deleted)] = 0
		}
		if err != nil {
			return out, err
		}
		for _, c := range e.chain {
			if _, gone := layers[c]; gone {
				layers[c] = s.layerSize(ctx, c)
			}
		}
	}
	for _, n := range layers {
		out.SpaceReclaimed += uint64(max(0, n))
	}
	if len(victims) > 0 {
		s.kick()
	}
	s.publish(events.ImageEventType, events.ActionPrune, "", map[string]string{"reclaimed": utoa(out.SpaceReclaimed)})
	return out, nil
}
