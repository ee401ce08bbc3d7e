package images

import (
	"context"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/oci"
)

// Prune removes the images that no container uses: those without a tag, or all
// with the filter dangling=false; and then the names, too, that no container was
// made by, of images that stay.
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
		if _, _, ok := keep(e); !ok || onlyDangling && !e.dangling() {
			continue
		}
		users := s.inUse(e.ID.String())
		if len(users) == 0 {
			victims = append(victims, e)
			continue
		}
		r := &removal{s: s, e: e, all: all}
		err := r.unused(ctx, users)
		out.ImagesDeleted = append(out.ImagesDeleted, r.out...)
		if err != nil {
			return out, err
		}
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

// unused removes the tags that no container was made by. One is left, though: the
// last of all.
func (r *removal) unused(ctx context.Context, users []ContainerRef) error {
	called := func(rec record) bool {
		return slices.ContainsFunc(users, func(u ContainerRef) bool { return slices.ContainsFunc(u.Images, rec.called) })
	}
	var tags []record
	for _, rec := range r.e.records {
		if rec.tagged() {
			tags = append(tags, rec)
		}
	}
	slices.SortFunc(tags, func(a, b record) int { return strings.Compare(a.Name, b.Name) })
	going := slices.DeleteFunc(slices.Clone(tags), called)
	if len(going) == len(tags) && len(going) > 0 {
		going = going[:len(going)-1]
	}
	for _, tag := range going {
		for _, rec := range slices.DeleteFunc(r.withDigests(tag), called) {
			if err := r.untag(ctx, rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// called reports whether people mean the record by that name.
func (r *record) called(name string) bool {
	n, err := oci.ParseNamed(name)
	return err == nil && n.String() == r.Name
}
