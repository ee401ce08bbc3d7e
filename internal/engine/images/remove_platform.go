package images

import (
	"cmp"
	"context"
	"fmt"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/oci"
)

// removePlatforms removes the images of some platforms from an index: it stays,
// as one of which these were never pulled. The last one goes with its names.
func (s *Service) removePlatforms(ctx context.Context, ref string, o RemoveOptions) (out []image.DeleteResponse, err error) {
	s.names.Lock()
	defer s.names.Unlock()
	defer func() {
		if len(out) > 0 {
			s.kick()
		}
	}()
	for i := range o.Platforms {
		gone, err := s.removePlatform(ctx, ref, &o.Platforms[i], o)
		if err != nil {
			return out, errs.Newf(errs.KindOf(err), "failed to delete platform %s for image %s: %w", platforms.FormatAll(o.Platforms[i]), ref, err)
		}
		out = append(out, gone...)
	}
	return out, nil
}

func (s *Service) removePlatform(ctx context.Context, ref string, p *ocispec.Platform, o RemoveOptions) ([]image.DeleteResponse, error) {
	img, _, err := s.resolve(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	// What runs there, too, is not what was meant.
	if !platforms.OnlyStrict(*p).Match(img.Platform) {
		return nil, errs.Newf(errs.NotFound, "image with reference %s was found but does not match the specified platform: wanted %s, actual: %s",
			ref, platforms.FormatAll(*p), oci.FormatPlatform(img.Platform))
	}
	all, err := s.ownEntries(ctx)
	if err != nil {
		return nil, err
	}
	e := all[img.ID]
	if e == nil {
		return nil, noImage(ref)
	}
	target := e.records[0].Target
	for _, r := range e.records {
		if r.Target.Digest != target.Digest {
			return nil, errs.Newf(errs.Conflict, "conflict: the image is also a part of %s", cmp.Or(r.familiar, r.Name))
		}
	}
	left, err := s.imagesOf(ctx, target)
	if err != nil {
		return nil, err
	}
	if len(left) == 1 {
		return s.remove(ctx, ref, o)
	}
	r := &removal{s: s, e: e, all: all, force: o.Force}
	if err := r.checkUse(); err != nil {
		return nil, err
	}
	if err := r.pinUsers(ctx); err != nil {
		return nil, err
	}
	if err := s.dropFromIndex(ctx, target, img.Target); err != nil {
		return nil, err
	}
	return []image.DeleteResponse{{Deleted: img.Target.Digest.String()}}, nil
}

// dropFromIndex has the index refer to the manifest no more, and removes that.
func (s *Service) dropFromIndex(ctx context.Context, index, manifest ocispec.Descriptor) error {
	x, err := s.index(ctx, index)
	if err != nil {
		return err
	}
	ctx = s.store.Context(ctx)
	cs := s.store.RawContent()
	for i, d := range x.Manifests {
		if d.Digest != manifest.Digest {
			continue
		}
		key := fmt.Sprintf("%s%d", refManifest, i)
		if _, err := cs.Update(ctx, ctdcontent.Info{Digest: index.Digest, Labels: map[string]string{key: ""}}, "labels."+key); err != nil {
			return fmt.Errorf("index %s: %w", index.Digest, err)
		}
	}
	if err := cs.Delete(ctx, manifest.Digest); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove manifest %s: %w", manifest.Digest, err)
	}
	return nil
}
