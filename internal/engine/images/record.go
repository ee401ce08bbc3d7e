package images

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/content"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/oci"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// danglingName begins the record of an image that has no name.
const danglingName = "dangling@"

// record is one name of an image.
type record struct {
	images.Image
	ref      reference.Named // nil: the image has no name
	familiar string          // what people call it; "" without a name
	repo     string          // that without tag and digest
}

func (r *record) tag() (reference.NamedTagged, bool) {
	t, ok := r.ref.(reference.NamedTagged)
	return t, ok
}

func (r *record) tagged() bool    { _, ok := r.tag(); return ok }
func (r *record) canonical() bool { _, ok := r.ref.(reference.Canonical); return ok }

// records reads every name. Records of other kinds (the builder's) are left out.
func (s *Service) records(ctx context.Context) ([]record, error) {
	list, err := s.store.Images.List(s.store.Context(ctx))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := make([]record, 0, len(list))
	for _, i := range list {
		r := record{Image: i}
		if !strings.HasPrefix(i.Name, danglingName) {
			n, err := reference.ParseNamed(i.Name)
			if err != nil {
				continue
			}
			r.ref, r.familiar, r.repo = n, reference.FamiliarString(n), reference.FamiliarName(n)
		}
		out = append(out, r)
	}
	return out, nil
}

// entry is an image with all its names.
type entry struct {
	*Image
	records []record
	updated time.Time
}

func (e *entry) repoTags() []string    { return e.namesThat((*record).tagged) }
func (e *entry) repoDigests() []string { return e.namesThat((*record).canonical) }

func (e *entry) namesThat(are func(*record) bool) []string {
	out := []string{}
	for i := range e.records {
		if r := &e.records[i]; are(r) {
			out = append(out, r.familiar)
		}
	}
	slices.Sort(out)
	return out
}

// dangling reports that no tag leads to the image.
func (e *entry) dangling() bool {
	return !slices.ContainsFunc(e.records, func(r record) bool { return r.tagged() })
}

// cache holds what digests name: it never goes stale.
type cache struct {
	mu     sync.Mutex
	images map[digest.Digest]*Image         // by manifest; guarded by mu
	layers map[digest.Digest]*ocispec.Index // by index; guarded by mu
	sizes  map[digest.Digest]int64          // by chainID; guarded by mu
}

func (c *cache) init() {
	c.images, c.layers, c.sizes = map[digest.Digest]*Image{}, map[digest.Digest]*ocispec.Index{}, map[digest.Digest]int64{}
}

// trim keeps the cache from growing for ever; the caller holds mu.
func trim[V any](m map[digest.Digest]V) {
	if len(m) > 10_000 {
		clear(m)
	}
}

// imageOf reads the image of a manifest.
func (s *Service) imageOf(ctx context.Context, target ocispec.Descriptor) (*Image, error) {
	s.cache.mu.Lock()
	img := s.cache.images[target.Digest]
	s.cache.mu.Unlock()
	if img != nil {
		return img, nil
	}
	m, err := s.manifest(ctx, target)
	if err != nil {
		return nil, err
	}
	conf, err := content.ReadBlob(s.store.Context(ctx), s.store.Content, m.Config, oci.MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", target.Digest, err)
	}
	img, err = newImage(target, m.Config.Digest, conf)
	if err != nil {
		return nil, err
	}
	s.cache.mu.Lock()
	trim(s.cache.images)
	s.cache.images[target.Digest] = img
	s.cache.mu.Unlock()
	return img, nil
}

func newImage(target ocispec.Descriptor, id digest.Digest, conf []byte) (*Image, error) {
	c, err := oci.ParseConfig(conf)
	if err != nil {
		return nil, err
	}
	img := &Image{ID: id, Target: target, Config: c, DiffIDs: c.RootFS.DiffIDs, Platform: oci.ConfigPlatform(&c)}
	if n := len(img.DiffIDs); n > 0 {
		img.chain = oci.ChainIDs(img.DiffIDs)
		img.ChainID = img.chain[n-1]
	}
	if c.Created != nil {
		img.Created = *c.Created
	}
	return img, nil
}

func (s *Service) manifest(ctx context.Context, target ocispec.Descriptor) (*ocispec.Manifest, error) {
	body, err := content.ReadBlob(s.store.Context(ctx), s.store.Content, target, oci.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", target.Digest, err)
	}
	return oci.ParseManifest(target.MediaType, body)
}

func (s *Service) index(ctx context.Context, target ocispec.Descriptor) (*ocispec.Index, error) {
	s.cache.mu.Lock()
	x := s.cache.layers[target.Digest]
	s.cache.mu.Unlock()
	if x != nil {
		return x, nil
	}
	body, err := content.ReadBlob(s.store.Context(ctx), s.store.Content, target, oci.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", target.Digest, err)
	}
	x, err = oci.ParseIndex(target.MediaType, body)
	if err != nil {
		return nil, err
	}
	s.cache.mu.Lock()
	trim(s.cache.layers)
	s.cache.layers[target.Digest] = x
	s.cache.mu.Unlock()
	return x, nil
}

// imagesOf reads the images that are here of what a record leads to: one, or
// those of an index that were pulled, the host's platform first.
func (s *Service) imagesOf(ctx context.Context, target ocispec.Descriptor) ([]*Image, error) {
	if !oci.IsIndex(target.MediaType) {
		img, err := s.imageOf(ctx, target)
		if err != nil {
			return nil, err
		}
		return []*Image{img}, nil
	}
	x, err := s.index(ctx, target)
	if err != nil {
		return nil, err
	}
	host := oci.Host()
	var out []*Image
	for _, d := range x.Manifests {
		if oci.IsAttestation(d) || !oci.IsManifest(d.MediaType) {
			continue
		}
		if !s.store.Content.Stored(s.store.Context(ctx), d.Digest) {
			continue // another platform's, not pulled; the cache may know it from before
		}
		img, err := s.imageOf(ctx, d)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	slices.SortStableFunc(out, func(a, b *Image) int {
		switch am, bm := host.Match(a.Platform), host.Match(b.Platform); {
		case am && !bm, am && bm && host.Less(a.Platform, b.Platform):
			return -1
		case bm && !am, am && bm && host.Less(b.Platform, a.Platform):
			return 1
		}
		return 0
	})
	if len(out) == 0 {
		return nil, fmt.Errorf("index %s: none of its images is here: %w", target.Digest, errdefs.ErrNotFound)
	}
	return out, nil
}

// size is what the image's layers take on the disk.
func (s *Service) size(ctx context.Context, img *Image) int64 {
	var sum int64
	for _, c := range img.chain {
		sum += s.layerSize(ctx, c)
	}
	return sum
}

func (s *Service) layerSize(ctx context.Context, chainID digest.Digest) int64 {
	s.cache.mu.Lock()
	n, ok := s.cache.sizes[chainID]
	s.cache.mu.Unlock()
	if ok {
		return n
	}
	n, err := s.store.LayerSize(ctx, chainID)
	if err != nil {
		return 0 // gone, or not unpacked: counts nothing, and is not remembered
	}
	s.cache.mu.Lock()
	trim(s.cache.sizes)
	s.cache.sizes[chainID] = n
	s.cache.mu.Unlock()
	return n
}

// putBlob stores a small document with references to what it needs.
func (s *Service) putBlob(ctx context.Context, desc ocispec.Descriptor, body []byte, labels map[string]string) error {
	ctx = s.store.Context(ctx)
	cs := s.store.RawContent()
	err := ctdcontent.WriteBlob(ctx, cs, "doc-"+desc.Digest.String(), bytes.NewReader(body), desc, ctdcontent.WithLabels(labels))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("store %s: %w", desc.Digest, err)
	}
	if len(labels) == 0 {
		return nil
	}
	// One that was there may lack the references.
	paths := make([]string, 0, len(labels))
	for k := range labels {
		paths = append(paths, "labels."+k)
	}
	if _, err := cs.Update(ctx, ctdcontent.Info{Digest: desc.Digest, Labels: labels}, paths...); err != nil {
		return fmt.Errorf("store %s: %w", desc.Digest, err)
	}
	return nil
}

// Labels by which the collector follows from a manifest to what it needs.
const (
	refConfig   = "containerd.io/gc.ref.content.config"
	refLayer    = "containerd.io/gc.ref.content.l."
	refManifest = "containerd.io/gc.ref.content.m."
)

// putImage stores an image's configuration and manifest, kept alive by whoever
// refers to the manifest. Its layers must be there.
func (s *Service) putImage(ctx context.Context, target ocispec.Descriptor, body []byte, m *ocispec.Manifest, conf []byte) (*Image, error) {
	img, err := newImage(target, m.Config.Digest, conf)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	if img.ChainID != "" {
		labels[snapshot.GCRef] = img.ChainID.String()
	}
	if err := s.putBlob(ctx, m.Config, conf, labels); err != nil {
		return nil, err
	}
	labels = map[string]string{refConfig: m.Config.Digest.String()}
	for i, l := range m.Layers {
		if _, made := s.store.Made(ctx, l.Digest); !made { // else it need not be kept
			labels[fmt.Sprintf("%s%d", refLayer, i)] = l.Digest.String()
		}
	}
	return img, s.putBlob(ctx, target, body, labels)
}

// name makes ref lead to the image, and forgets that the image had no name. The
// image that ref led to gets a dangling record if that was its last name. The
// caller holds s.names.
func (s *Service) name(ctx context.Context, ref reference.Named, target ocispec.Descriptor) error {
	ctx = s.store.Context(ctx)
	old, err := s.store.Images.Get(ctx, ref.String())
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err == nil && old.Target.Digest != target.Digest {
		if err := s.leaveDangling(ctx, old); err != nil {
			return err
		}
	}
	rec := images.Image{Name: ref.String(), Target: target}
	rec.Target.Annotations, rec.Target.URLs, rec.Target.Platform = nil, nil, nil
	if _, err := s.store.Images.Update(ctx, rec); errdefs.IsNotFound(err) {
		_, err = s.store.Images.Create(ctx, rec)
		if err != nil {
			return fmt.Errorf("name %s: %w", reference.FamiliarString(ref), err)
		}
	} else if err != nil {
		return fmt.Errorf("name %s: %w", reference.FamiliarString(ref), err)
	}
	return s.dropDangling(ctx, target)
}

// leaveDangling keeps the images of a record that is about to change.
func (s *Service) leaveDangling(ctx context.Context, old images.Image) error {
	imgs, err := s.imagesOf(ctx, old.Target)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := s.entries(ctx)
	if err != nil {
		return err
	}
	for _, img := range imgs {
		if e := all[img.ID]; e != nil && slices.ContainsFunc(e.records, func(r record) bool { return r.Name != old.Name }) {
			continue
		}
		if err := s.addDangling(ctx, img); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) addDangling(ctx context.Context, img *Image) error {
	ctx = s.store.Context(ctx)
	_, err := s.store.Images.Create(ctx, images.Image{Name: danglingName + img.ID.String(), Target: img.Target})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("keep image %s: %w", img.ID, err)
	}
	return nil
}

func (s *Service) dropDangling(ctx context.Context, target ocispec.Descriptor) error {
	imgs, err := s.imagesOf(ctx, target)
	if err != nil {
		return err
	}
	for _, img := range imgs {
		err := s.store.Images.Delete(s.store.Context(ctx), danglingName+img.ID.String())
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// unname removes a record.
func (s *Service) unname(ctx context.Context, name string) error {
	err := s.store.Images.Delete(s.store.Context(ctx), name)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the name %s: %w", name, err)
	}
	return nil
}

// isMissing tells absent things from failures.
func isMissing(err error) bool { return errdefs.IsNotFound(err) || errs.Is(err, errs.NotFound) }
