package images

import (
	"context"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/oci"
)

// Tag gives the image one more name; an image that had the name loses it.
func (s *Service) Tag(ctx context.Context, source, target string) error {
	to, err := oci.ParseTagged(target)
	if err != nil {
		return err
	}
	s.names.Lock()
	defer s.names.Unlock()
	img, named, err := s.resolve(ctx, source, nil)
	if err != nil {
		return err
	}
	if err := s.name(ctx, to, s.targetOf(ctx, named, img)); err != nil {
		return err
	}
	s.tagged(img, to)
	return nil
}

// tagged tells of a name that an image was given; nil is none.
func (s *Service) tagged(img *Image, ref reference.NamedTagged) {
	if ref != nil {
		s.event(events.ActionTag, img.ID.String(), reference.FamiliarString(ref), img)
	}
}

// targetOf is what the name that was meant leads to (an index, maybe), or the
// image's own manifest.
func (s *Service) targetOf(ctx context.Context, named reference.Named, img *Image) ocispec.Descriptor {
	if named != nil {
		if rec, err := s.store.Images.Get(s.store.Context(ctx), named.String()); err == nil {
			return rec.Target
		}
	}
	return img.Target
}

// Record names an image that somebody else (the builder) stored under the lease
// in ctx; without names it is kept as dangling.
func (s *Service) Record(ctx context.Context, target ocispec.Descriptor, names []string) error {
	if err := s.store.Sync(); err != nil {
		return err
	}
	s.names.Lock()
	defer s.names.Unlock()
	imgs, err := s.imagesOf(ctx, target)
	if err != nil {
		return err
	}
	var refs []reference.NamedTagged
	for _, n := range names {
		ref, err := oci.ParseTagged(n)
		if err != nil {
			return err
		}
		if err := s.name(ctx, ref, target); err != nil {
			return err
		}
		refs = append(refs, ref)
	}
	if len(refs) == 0 {
		if err := s.keepUnnamed(ctx, imgs[0]); err != nil {
			return err
		}
	}
	s.event(events.ActionCreate, imgs[0].ID.String(), imgs[0].ID.String(), imgs[0])
	for _, ref := range refs {
		s.tagged(imgs[0], ref)
	}
	return nil
}

// keepUnnamed keeps an image that may have no name. The caller holds s.names.
func (s *Service) keepUnnamed(ctx context.Context, img *Image) error {
	all, err := s.entries(ctx)
	if err != nil {
		return err
	}
	if e := all[img.ID]; e != nil && len(e.records) > 0 {
		return nil
	}
	return s.addDangling(ctx, img)
}
