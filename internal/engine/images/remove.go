package images

import (
	"context"
	"slices"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
)

// Remove takes a name from an image, or removes an image by its id. An image
// that loses its last name goes too, with the layers that nobody else has.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) ([]image.DeleteResponse, error) {
	if len(o.Platforms) > 0 {
		return s.removePlatforms(ctx, ref, o)
	}
	s.names.Lock()
	defer s.names.Unlock()
	return s.remove(ctx, ref, o)
}

// remove is Remove of a whole image; the caller holds s.names.
func (s *Service) remove(ctx context.Context, ref string, o RemoveOptions) ([]image.DeleteResponse, error) {
	img, named, err := s.resolve(ctx, ref, nil)
	if err != nil {
		return nil, err
	}
	all, err := s.ownEntries(ctx)
	if err != nil {
		return nil, err
	}
	e := all[img.ID]
	if e == nil {
		return nil, noImage(ref)
	}
	r := &removal{s: s, e: e, all: all, force: o.Force}
	if named == nil {
		err = r.byID(ctx)
	} else {
		err = r.byName(ctx, ref, named)
	}
	if len(r.out) > 0 {
		s.kick()
	}
	return r.out, err
}

// removal is one run of Remove.
type removal struct {
	s     *Service
	e     *entry
	all   map[digest.Digest]*entry
	force bool
	out   []image.DeleteResponse
}

// conflict is docker's sentence, by which clients tell what force would do.
func (r *removal) conflict(canForce bool, why string) error {
	how := "cannot be forced"
	if canForce {
		how = "must be forced"
	}
	return errs.Newf(errs.Conflict, "conflict: unable to delete %s (%s) - %s", ids.Short(r.e.ID.String()), how, why)
}

// users returns the containers of the image: a running one first.
func (r *removal) users() []ContainerRef {
	cs := r.s.inUse(r.e.ID.String())
	slices.SortStableFunc(cs, func(a, b ContainerRef) int {
		switch {
		case a.Running && !b.Running:
			return -1
		case b.Running && !a.Running:
			return 1
		}
		return 0
	})
	return cs
}

// checkUse refuses to delete an image from under a container.
func (r *removal) checkUse() error {
	cs := r.users()
	if len(cs) == 0 {
		return nil
	}
	id := ids.Short(cs[0].ID)
	if cs[0].Running {
		return r.conflict(false, "image is being used by running container "+id)
	}
	if !r.force {
		return r.conflict(true, "image is being used by stopped container "+id)
	}
	return nil
}

// single reports that the image has one name: one tag, with or without the
// digest that its registry gave it.
func (r *removal) single() bool {
	tags := 0
	repos := map[string]bool{}
	for _, rec := range r.e.records {
		if rec.ref == nil {
			continue
		}
		repos[rec.ref.Name()] = true
		if _, ok := rec.tag(); ok {
			tags++
		}
	}
	return tags <= 1 && len(repos) <= 1
}

func (r *removal) byID(ctx context.Context) error {
	if !r.force && !r.single() {
		return r.conflict(true, "image is referenced in multiple repositories")
	}
	if err := r.checkUse(); err != nil {
		return err
	}
	if err := r.pinUsers(ctx); err != nil {
		return err
	}
	for _, rec := range slices.Clone(r.e.records) {
		if err := r.untag(ctx, rec); err != nil {
			return err
		}
	}
	return r.delete(ctx)
}

// pinUsers lets the containers from under which the image is forced keep its
// layers.
func (r *removal) pinUsers(ctx context.Context) error {
	for _, c := range r.users() {
		if err := r.s.Pin(ctx, c.ID, r.e.Image); err != nil {
			return err
		}
	}
	return nil
}

func (r *removal) byName(ctx context.Context, ref string, named reference.Named) error {
	if !r.force && r.single() {
		if cs := r.users(); len(cs) > 0 {
			return errs.Newf(errs.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				ref, ids.Short(cs[0].ID), ids.Short(r.e.ID.String()))
		}
	}
	i := slices.IndexFunc(r.e.records, func(rec record) bool { return rec.Name == named.String() })
	if i < 0 {
		return noImage(reference.FamiliarString(named))
	}
	going := r.withDigests(r.e.records[i])
	last := len(going) == len(r.e.records)
	// Forced from under a running container, the image stays, without a name.
	stays := slices.ContainsFunc(r.users(), func(c ContainerRef) bool { return c.Running })
	if last {
		keep := r.pinUsers
		if stays {
			keep = func(ctx context.Context) error { return r.s.addDangling(ctx, r.e.Image) }
		}
		if err := keep(ctx); err != nil {
			return err
		}
	}
	for _, rec := range going {
		if err := r.untag(ctx, rec); err != nil {
			return err
		}
	}
	if !last || stays {
		return nil
	}
	return r.delete(ctx)
}

// withDigests adds to a tag that is to go the digests of its repository, if it
// is the last tag there.
func (r *removal) withDigests(going record) []record {
	out := []record{going}
	if _, ok := going.tag(); !ok {
		return out
	}
	for _, rec := range r.e.records {
		if rec.ref == nil || rec.ref.Name() != going.ref.Name() || rec.Name == going.Name {
			continue
		}
		if _, ok := rec.tag(); ok {
			return out[:1]
		}
		out = append(out, rec)
	}
	return out
}

// untag removes a name.
func (r *removal) untag(ctx context.Context, rec record) error {
	if err := r.s.unname(ctx, rec.Name); err != nil {
		return err
	}
	r.e.records = slices.DeleteFunc(r.e.records, func(x record) bool { return x.Name == rec.Name })
	if rec.ref == nil {
		return nil
	}
	name := reference.FamiliarString(rec.ref)
	r.out = append(r.out, image.DeleteResponse{Untagged: name})
	r.s.event(events.ActionUnTag, r.e.ID.String(), name, nil)
	return nil
}

// delete tells of the image and of the layers that only it had; they go with
// the next collection.
func (r *removal) delete(ctx context.Context) error {
	delete(r.all, r.e.ID)
	users := layerUsers(r.all)
	r.out = append(r.out, image.DeleteResponse{Deleted: r.e.ID.String()})
	var gone []digest.Digest
	for i, c := range slices.Backward(r.e.chain) {
		if users[c] == 0 {
			r.out = append(r.out, image.DeleteResponse{Deleted: c.String()})
			gone = append(gone, r.e.DiffIDs[i])
		}
	}
	r.s.forget(ctx, gone)
	r.s.event(events.ActionDelete, r.e.ID.String(), r.e.ID.String(), nil)
	return nil
}
