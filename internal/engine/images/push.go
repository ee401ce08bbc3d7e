package images

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-containers/skiff/internal/content"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/oci"
	"github.com/skiff-containers/skiff/internal/remote"
)

// pushResult is what docker's clients look for at the end of a push.
type pushResult struct {
	Tag    string
	Digest string
	Size   int
}

// Push sends a tag, or with All every tag of a repository, to its registry.
func (s *Service) Push(ctx context.Context, o PushOptions, p progress.Sink) error {
	named, err := reference.ParseNormalizedNamed(o.Ref)
	if err != nil {
		return errs.Newf(errs.Invalid, "invalid reference format: %s", o.Ref)
	}
	if _, ok := named.(reference.Digested); ok {
		return errs.New(errs.Invalid, "cannot push a digest reference")
	}
	refs, err := s.pushRefs(ctx, named, o.All)
	if err != nil {
		return err
	}
	ctx, end, err := s.lease(ctx, "push")
	if err != nil {
		return diskFull(err)
	}
	defer end()
	p.Emit(progress.Event{Status: fmt.Sprintf("The push refers to repository [%s]", reference.TrimNamed(named).Name())})
	repo := s.remote.Repository(named, o.Auth)
	for _, r := range refs {
		if err := s.pushOne(ctx, repo, r, o.Platform, p); err != nil {
			return diskFull(err)
		}
	}
	return nil
}

func (s *Service) pushRefs(ctx context.Context, named reference.Named, all bool) ([]reference.NamedTagged, error) {
	if !all {
		t, ok := reference.TagNameOnly(named).(reference.NamedTagged)
		if !ok {
			return nil, errs.Newf(errs.Invalid, "invalid reference format: %s", named)
		}
		if _, err := s.byName(ctx, t, nil); err != nil {
			return nil, errs.Newf(errs.NotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
		}
		return []reference.NamedTagged{t}, nil
	}
	recs, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	var out []reference.NamedTagged
	for _, r := range recs {
		if t, ok := r.tag(); ok && t.Name() == named.Name() {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, errs.Newf(errs.NotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	slices.SortFunc(out, func(a, b reference.NamedTagged) int { return strings.Compare(a.Tag(), b.Tag()) })
	return out, nil
}

// pushOne sends one tag. An index of which every image is here goes whole, one
// of which some are missing as the image of one platform.
func (s *Service) pushOne(ctx context.Context, repo *remote.Repository, ref reference.NamedTagged, want *ocispec.Platform, p progress.Sink) error {
	rec, err := s.store.Images.Get(s.store.Context(ctx), ref.String())
	if err != nil {
		return err
	}
	var desc ocispec.Descriptor
	var body []byte
	whole := want == nil && oci.IsIndex(rec.Target.MediaType) && s.complete(ctx, rec.Target)
	img, err := s.choose(ctx, reference.FamiliarString(ref), rec.Target, want)
	if err != nil {
		return err
	}
	if whole {
		if desc, body, err = s.pushIndex(ctx, repo, rec.Target, p); err != nil {
			return err
		}
	} else if desc, body, err = s.pushImage(ctx, repo, img.Target, p); err != nil {
		return err
	}
	if err := repo.PushManifest(ctx, ref.Tag(), desc, body); err != nil {
		return err
	}
	if err := s.namePushed(ctx, ref, desc); err != nil {
		return err
	}
	p.Emit(progress.Event{Status: fmt.Sprintf("%s: digest: %s size: %d", ref.Tag(), desc.Digest, desc.Size)})
	p.Emit(progress.Event{Aux: pushResult{Tag: ref.Tag(), Digest: desc.Digest.String(), Size: int(desc.Size)}})
	s.event(events.ActionPush, reference.FamiliarString(ref), reference.FamiliarName(ref), img)
	return nil
}

// namePushed records what the registry calls the image.
func (s *Service) namePushed(ctx context.Context, ref reference.Named, desc ocispec.Descriptor) error {
	c, err := reference.WithDigest(reference.TrimNamed(ref), desc.Digest)
	if err != nil {
		return err
	}
	s.names.Lock()
	defer s.names.Unlock()
	return s.name(ctx, c, desc)
}

// complete reports whether everything that an index names is here.
func (s *Service) complete(ctx context.Context, target ocispec.Descriptor) bool {
	x, err := s.index(ctx, target)
	if err != nil || len(x.Manifests) == 0 {
		return false
	}
	for _, d := range x.Manifests {
		if oci.IsIndex(d.MediaType) {
			return false
		}
		m, err := s.manifest(ctx, d)
		if err != nil || !s.store.Content.Stored(s.store.Context(ctx), m.Config.Digest) {
			return false
		}
		for _, l := range m.Layers {
			if !s.store.Content.Stored(s.store.Context(ctx), l.Digest) {
				return false
			}
		}
	}
	return true
}

func (s *Service) pushIndex(ctx context.Context, repo *remote.Repository, target ocispec.Descriptor, p progress.Sink) (ocispec.Descriptor, []byte, error) {
	x, err := s.index(ctx, target)
	if err != nil {
		return target, nil, err
	}
	for _, d := range x.Manifests {
		m, err := s.manifest(ctx, d)
		if err != nil {
			return target, nil, err
		}
		g, gctx := errgroup.WithContext(ctx)
		for _, l := range append(slices.Clone(m.Layers), m.Config) {
			g.Go(func() error {
				return s.pushStored(gctx, repo, l, ids.Short(l.Digest.String()), s.mounts(repo, "", l.Digest), p)
			})
		}
		if err := g.Wait(); err != nil {
			return target, nil, err
		}
		body, err := content.ReadBlob(s.store.Context(ctx), s.store.Content, d, oci.MaxManifest)
		if err != nil {
			return target, nil, err
		}
		if err := repo.PushManifest(ctx, "", d, body); err != nil {
			return target, nil, err
		}
	}
	body, err := content.ReadBlob(s.store.Context(ctx), s.store.Content, target, oci.MaxManifest)
	return target, body, err
}

// pushImage sends an image's layers and configuration, and returns the manifest
// to send: the image's own, if all its layers are sent as it names them.
func (s *Service) pushImage(ctx context.Context, repo *remote.Repository, target ocispec.Descriptor, p progress.Sink) (ocispec.Descriptor, []byte, error) {
	m, err := s.manifest(ctx, target)
	if err != nil {
		return target, nil, err
	}
	img, err := s.imageOf(ctx, target)
	if err != nil {
		return target, nil, err
	}
	if len(m.Layers) != len(img.DiffIDs) {
		return target, nil, errs.Newf(errs.Invalid, "image %s: %d layers, %d diff ids", img.ID, len(m.Layers), len(img.DiffIDs))
	}
	sent := make([]ocispec.Descriptor, len(m.Layers))
	for _, d := range img.DiffIDs {
		p.Emit(progress.Event{ID: ids.Short(d.String()), Status: "Preparing"})
	}
	g, gctx := errgroup.WithContext(ctx)
	done := map[digest.Digest]int{} // a layer may be there twice; the same blob serves
	for i := range m.Layers {
		if _, twice := done[img.DiffIDs[i]]; twice {
			continue
		}
		done[img.DiffIDs[i]] = i
		g.Go(func() (err error) {
			sent[i], err = s.pushLayer(gctx, repo, m.Layers[i], img.DiffIDs[i], p)
			return err
		})
	}
	g.Go(func() error {
		return s.pushStored(gctx, repo, m.Config, "", nil, progress.Discard)
	})
	if err := g.Wait(); err != nil {
		return target, nil, err
	}
	blobs := map[digest.Digest]ocispec.Descriptor{}
	same := true
	for i, l := range m.Layers {
		sent[i] = sent[done[img.DiffIDs[i]]]
		same = same && sent[i].Digest == l.Digest
		blobs[img.DiffIDs[i]] = sent[i]
	}
	s.seen(ctx, repo.Named(), blobs)
	if same {
		body, err := content.ReadBlob(s.store.Context(ctx), s.store.Content, target, oci.MaxManifest)
		return target, body, err
	}
	return s.pushedManifest(ctx, m, sent)
}

// pushedManifest makes the manifest with the layers as they were sent, and keeps
// it: the next push sends the same one.
func (s *Service) pushedManifest(ctx context.Context, m *ocispec.Manifest, sent []ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	desc, body, err := oci.NewManifest(m.Config, sent, m.Annotations)
	if err != nil {
		return desc, nil, err
	}
	made, err := oci.ParseManifest(desc.MediaType, body)
	if err != nil {
		return desc, nil, err
	}
	conf, err := content.ReadBlob(s.store.Context(ctx), s.store.Content, m.Config, oci.MaxConfig)
	if err != nil {
		return desc, nil, err
	}
	_, err = s.putImage(ctx, desc, body, made, conf)
	return desc, body, err
}

// mounts lists the repositories of repo's registry that have the blob.
func (s *Service) mounts(repo *remote.Repository, diffID, blob digest.Digest) (out []string) {
	if diffID == "" {
		return nil
	}
	host := reference.Domain(repo.Named()) + "/"
	for _, o := range s.origins(diffID) {
		if o.Blob.Digest != blob {
			continue
		}
		for _, r := range o.Repos {
			if name, ok := strings.CutPrefix(r, host); ok && r != repo.Named().Name() {
				out = append(out, name)
			}
		}
	}
	return out
}
