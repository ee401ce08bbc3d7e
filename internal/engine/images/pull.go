package images

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/oci"
	"github.com/skiff-containers/skiff/internal/remote"
)

// Pull brings an image, or with All every tag of a repository, from its registry.
func (s *Service) Pull(ctx context.Context, o PullOptions, p progress.Sink) error {
	named, err := oci.ParseNamed(o.Ref)
	if err != nil {
		return err
	}
	if o.Platform != nil && o.Platform.OS != "" && o.Platform.OS != "linux" {
		return errs.Newf(errs.Invalid, "cannot pull an image for %s: this engine runs linux", oci.FormatPlatform(*o.Platform))
	}
	repo := s.remote.Repository(named, o.Auth)
	if !o.All {
		return s.pullOne(ctx, repo, named, o, p)
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return err
	}
	slices.Sort(tags)
	for _, t := range tags {
		one, err := reference.WithTag(reference.TrimNamed(named), t)
		if err != nil {
			return errs.Newf(errs.Invalid, "tag %q of %s: %w", t, reference.FamiliarName(named), err)
		}
		if err := s.pullOne(ctx, repo, one, o, p); err != nil {
			return err
		}
	}
	return nil
}

// fetched is what a pull found out before it brings layers.
type fetched struct {
	target   ocispec.Descriptor // what the reference names
	body     []byte
	manifest ocispec.Descriptor // of the image that was chosen; the target itself unless that is an index
	mbody    []byte
	m        *ocispec.Manifest
	config   []byte
	diffIDs  []digest.Digest
}

func (s *Service) pullOne(ctx context.Context, repo *remote.Repository, named reference.Named, o PullOptions, p progress.Sink) error {
	ctx, end, err := s.lease(ctx, "pull")
	if err != nil {
		return diskFull(err)
	}
	defer end()
	f, err := s.fetchDocuments(ctx, repo, named, o.Platform)
	if err != nil {
		return diskFull(err)
	}
	// Not before: what is not there is told with a status.
	p.Emit(progress.Event{ID: oci.Object(named), Status: "Pulling from " + reference.Path(named)})
	open := repo.Blob
	if err := s.fetchLayers(ctx, f.m.Layers, f.diffIDs, open, pullWords, p); err != nil {
		return repo.Explain(err)
	}
	blobs := map[digest.Digest]ocispec.Descriptor{}
	for i, l := range f.m.Layers {
		blobs[f.diffIDs[i]] = l
	}
	img, fresh, err := s.keepPulled(ctx, named, f)
	if err != nil {
		return diskFull(err)
	}
	s.seen(ctx, repo.Named(), blobs)
	p.Emit(progress.Event{Status: "Digest: " + f.target.Digest.String()})
	short := reference.FamiliarString(named)
	if fresh {
		p.Emit(progress.Event{Status: "Status: Downloaded newer image for " + short})
	} else {
		p.Emit(progress.Event{Status: "Status: Image is up to date for " + short})
	}
	s.event(events.ActionPull, short, reference.FamiliarName(named), img)
	return nil
}

// fetchDocuments reads index, manifest and configuration, all verified.
func (s *Service) fetchDocuments(ctx context.Context, repo *remote.Repository, named reference.Named, want *ocispec.Platform) (*fetched, error) {
	var f fetched
	var err error
	if f.target, f.body, err = repo.Manifest(ctx, oci.Object(named)); err != nil {
		return nil, err
	}
	f.manifest, f.mbody = f.target, f.body
	if oci.IsIndex(f.target.MediaType) {
		x, err := oci.ParseIndex(f.target.MediaType, f.body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", reference.FamiliarString(named), err)
		}
		fit := oci.Choose(x, oci.Matcher(want))
		if len(fit) == 0 {
			p := oci.HostPlatform()
			if want != nil {
				p = *want
			}
			return nil, errs.Newf(errs.NotFound, "no matching manifest for %s in the manifest list entries", oci.FormatPlatform(p))
		}
		f.manifest = fit[0]
		if f.mbody, err = repo.Bytes(ctx, f.manifest, oci.MaxManifest); err != nil {
			return nil, err
		}
	} else if !oci.IsManifest(f.target.MediaType) {
		return nil, errs.Newf(errs.Invalid, "%s is no image: its manifest is of type %q", reference.FamiliarString(named), f.target.MediaType)
	}
	if f.m, err = oci.ParseManifest(f.manifest.MediaType, f.mbody); err != nil {
		return nil, fmt.Errorf("%s: %w", reference.FamiliarString(named), err)
	}
	if !oci.IsConfig(f.m.Config.MediaType) {
		return nil, errs.Newf(errs.Invalid, "%s is no image: unsupported media type %s", reference.FamiliarString(named), f.m.Config.MediaType)
	}
	if f.config, err = repo.Bytes(ctx, f.m.Config, oci.MaxConfig); err != nil {
		return nil, err
	}
	c, err := oci.ParseConfig(f.config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", reference.FamiliarString(named), err)
	}
	f.diffIDs = c.RootFS.DiffIDs
	got := oci.ConfigPlatform(&c)
	if got.OS != "linux" {
		return nil, errs.Newf(errs.Invalid, "image operating system %q cannot be used on this platform: operating system is not supported", got.OS)
	}
	if want != nil && !oci.Matcher(want).Match(got) {
		return nil, errs.Newf(errs.NotFound, "image with reference %s was found but does not match the specified platform: wanted %s, actual: %s",
			reference.FamiliarString(named), oci.FormatPlatform(*want), oci.FormatPlatform(got))
	}
	return &f, nil
}

// keepPulled stores the documents and names the image: from here on it exists.
func (s *Service) keepPulled(ctx context.Context, named reference.Named, f *fetched) (img *Image, fresh bool, err error) {
	if img, err = s.putImage(ctx, f.manifest, f.mbody, f.m, f.config); err != nil {
		return nil, false, err
	}
	if f.manifest.Digest != f.target.Digest {
		x, err := oci.ParseIndex(f.target.MediaType, f.body)
		if err != nil {
			return nil, false, err
		}
		labels := map[string]string{}
		for i, d := range x.Manifests {
			if s.store.Content.Stored(ctx, d.Digest) {
				labels[fmt.Sprintf("%s%d", refManifest, i)] = d.Digest.String()
			}
		}
		if err := s.putBlob(ctx, f.target, f.body, labels); err != nil {
			return nil, false, err
		}
	}
	// All that the image needs reaches the disk before anybody is told.
	if err := s.store.Sync(); err != nil {
		return nil, false, err
	}
	s.names.Lock()
	defer s.names.Unlock()
	old, err := s.store.Images.Get(s.store.Context(ctx), named.String())
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, false, err
	}
	fresh = err != nil || old.Target.Digest != f.target.Digest
	if !fresh {
		// The same index again, now with another platform's image.
		if had, err := s.imagesOf(ctx, old.Target); err == nil {
			fresh = !slices.ContainsFunc(had, func(i *Image) bool { return i.ID == img.ID })
		}
	}
	if err := s.name(ctx, named, f.target); err != nil {
		return nil, false, err
	}
	if _, ok := named.(reference.Canonical); !ok {
		c, err := reference.WithDigest(reference.TrimNamed(named), f.target.Digest)
		if err != nil {
			return nil, false, err
		}
		if err := s.name(ctx, c, f.target); err != nil {
			return nil, false, err
		}
	}
	return img, fresh, nil
}
