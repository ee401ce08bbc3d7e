package images

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/oci"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// noImage is docker's sentence, on which its client decides to pull.
func noImage(what string) error { return errs.Newf(errs.NotFound, "No such image: %s", what) }

// Resolve finds an image by name, id or unique prefix of an id. p chooses among
// platforms; nil prefers the host's.
func (s *Service) Resolve(ctx context.Context, refOrID string, p *ocispec.Platform) (*Image, error) {
	img, _, err := s.resolve(ctx, refOrID, p)
	return img, err
}

// Confirm waits for a removal that is under way, and tells whether the image is
// still there that ref led to a moment ago. A removal that begins later asks who
// uses it.
func (s *Service) Confirm(ctx context.Context, ref string, p *ocispec.Platform, id digest.Digest) error {
	s.names.Lock()
	defer s.names.Unlock()
	if again, err := s.Resolve(ctx, ref, p); err == nil && again.ID == id {
		return nil
	}
	all, err := s.entries(ctx) // the name may be another's by now
	if err == nil && all[id] == nil {
		err = noImage(ref)
	}
	return err
}

// resolve also returns the name that was meant, nil if it was an id.
func (s *Service) resolve(ctx context.Context, refOrID string, p *ocispec.Platform) (*Image, reference.Named, error) {
	if d, ok := oci.IsDigest(refOrID); ok {
		img, err := s.byID(ctx, d.String(), p)
		return img, nil, err
	}
	if ids.IsPrefix(refOrID) && len(refOrID) == ids.Len {
		img, err := s.byID(ctx, "sha256:"+refOrID, p)
		return img, nil, err
	}
	named, perr := oci.ParseNamed(refOrID)
	if perr == nil {
		img, err := s.byName(ctx, named, p)
		if !errs.Is(err, errs.NotFound) {
			return img, named, err
		}
		if !errors.Is(err, errUnknownName) {
			return nil, named, err
		}
	}
	if prefix := strings.TrimPrefix(refOrID, "sha256:"); ids.IsPrefix(prefix) {
		img, err := s.byID(ctx, "sha256:"+prefix, p)
		if err == nil || !errs.Is(err, errs.NotFound) {
			return img, nil, err
		}
	}
	if perr != nil {
		return nil, nil, perr
	}
	return nil, named, noImage(reference.FamiliarString(named))
}

var errUnknownName = errs.New(errs.NotFound, "unknown name")

func (s *Service) byName(ctx context.Context, named reference.Named, p *ocispec.Platform) (*Image, error) {
	rec, err := s.store.Images.Get(s.store.Context(ctx), named.String())
	if errdefs.IsNotFound(err) {
		return nil, errUnknownName
	}
	if err != nil {
		return nil, err
	}
	return s.choose(ctx, reference.FamiliarString(named), rec.Target, p)
}

// choose picks the platform among the images of target.
func (s *Service) choose(ctx context.Context, what string, target ocispec.Descriptor, p *ocispec.Platform) (*Image, error) {
	imgs, err := s.imagesOf(ctx, target)
	if err != nil {
		if errdefs.IsNotFound(err) {
			return nil, errs.Newf(errs.Internal, "image %s is damaged: %w", what, err)
		}
		return nil, err
	}
	return pick(what, imgs, p)
}

func pick(what string, imgs []*Image, p *ocispec.Platform) (*Image, error) {
	if p == nil {
		return imgs[0], nil
	}
	m := oci.Matcher(p)
	var best *Image
	for _, img := range imgs {
		if m.Match(img.Platform) && (best == nil || m.Less(img.Platform, best.Platform)) {
			best = img
		}
	}
	if best == nil {
		return nil, errs.Newf(errs.NotFound, "image with reference %s was found but does not match the specified platform: wanted %s, actual: %s",
			what, platforms.FormatAll(*p), oci.FormatPlatform(imgs[0].Platform))
	}
	return best, nil
}

// byID finds by (the beginning of) an id, or of a manifest's or index's digest.
func (s *Service) byID(ctx context.Context, id string, p *ocispec.Platform) (*Image, error) {
	all, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	var found []*Image
	for _, e := range all {
		if e.ID.String() == id {
			return pick(id, []*Image{e.Image}, p)
		}
		if strings.HasPrefix(e.ID.String(), id) {
			found = append(found, e.Image)
			continue
		}
		if slices.ContainsFunc(e.records, func(r record) bool { return strings.HasPrefix(r.Target.Digest.String(), id) }) ||
			strings.HasPrefix(e.Target.Digest.String(), id) {
			found = append(found, e.Image)
		}
	}
	short := strings.TrimPrefix(id, "sha256:")
	switch len(found) {
	case 0:
		if len(short) == ids.Len {
			return nil, noImage(id)
		}
		return nil, noImage(short + ":latest")
	case 1:
		return pick(id, found, p)
	}
	if len(short) == ids.Len { // an index with several images
		slices.SortFunc(found, func(a, b *Image) int { return strings.Compare(a.ID.String(), b.ID.String()) })
		return pick(id, found, p)
	}
	return nil, errs.Newf(errs.Invalid, "ambiguous image id %s: it begins the ids of %d images", short, len(found))
}

// Lowers returns the image's layers as an overlay's lowerdirs, topmost first;
// none for an image without layers.
func (s *Service) Lowers(ctx context.Context, img *Image) ([]string, error) {
	if img.ChainID == "" {
		return nil, nil
	}
	return s.store.LayerDirs(ctx, img.ChainID)
}

func pinName(containerID string) string { return "container-" + containerID }

// Pin keeps the layers of an image for a container, also when the image is
// removed by force.
func (s *Service) Pin(ctx context.Context, containerID string, img *Image) error {
	if img.ChainID == "" {
		return nil
	}
	ctx = s.store.Context(ctx)
	l, err := s.store.Leases.Create(ctx, leases.WithID(pinName(containerID)))
	if errdefs.IsAlreadyExists(err) {
		l, err = leases.Lease{ID: pinName(containerID)}, nil
	}
	if err != nil {
		return err
	}
	return s.store.Leases.AddResource(ctx, l, leases.Resource{ID: img.ChainID.String(), Type: "snapshots/" + snapshot.Name})
}

// Unpin lets the layers go; a container that was never pinned is no error.
func (s *Service) Unpin(ctx context.Context, containerID string) error {
	err := s.store.Leases.Delete(s.store.Context(ctx), leases.Lease{ID: pinName(containerID)})
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		s.kick()
	}
	return err
}
