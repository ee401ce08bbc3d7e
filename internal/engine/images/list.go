package images

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/oci"
)

// List returns the images that the filters want, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]image.Summary, error) {
	if err := o.Filters.Check("dangling", "label", "label!", "before", "since", "until", "reference"); err != nil {
		return nil, err
	}
	all, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	keep, err := s.wanted(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	var users map[digest.Digest]int
	if o.SharedSize {
		users = layerUsers(all)
	}
	var containers map[string]int
	if o.ContainerCount {
		containers = s.useCounts()
	}
	out := []image.Summary{}
	for _, e := range all {
		tags, digests, ok := keep(e)
		if !ok {
			continue
		}
		sum := image.Summary{
			ID: e.ID.String(), RepoTags: tags, RepoDigests: digests, Created: e.Created.Unix(),
			Labels: e.Config.Config.Labels, Size: s.size(ctx, e.Image), SharedSize: -1, Containers: -1,
		}
		if sum.Labels == nil {
			sum.Labels = map[string]string{}
		}
		if o.SharedSize {
			sum.SharedSize = s.shared(ctx, e.Image, users)
		}
		if o.ContainerCount {
			sum.Containers = int64(containers[e.ID.String()])
		}
		if o.Manifests {
			d := e.Target
			sum.Descriptor = &d
			sum.Manifests = []image.ManifestSummary{s.manifestSummary(ctx, e.Image)}
		}
		out = append(out, sum)
	}
	slices.SortFunc(out, func(a, b image.Summary) int {
		if a.Created != b.Created {
			return int(min(1, max(-1, b.Created-a.Created)))
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// Count returns how many images there are.
func (s *Service) Count(ctx context.Context) (int, error) {
	all, err := s.entries(ctx)
	return len(all), err
}

// layerUsers counts the images that have each layer.
func layerUsers(all map[digest.Digest]*entry) map[digest.Digest]int {
	users := map[digest.Digest]int{}
	for _, e := range all {
		for _, c := range e.chain {
			users[c]++
		}
	}
	return users
}

func (s *Service) shared(ctx context.Context, img *Image, users map[digest.Digest]int) (sum int64) {
	for _, c := range img.chain {
		if users[c] > 1 {
			sum += s.layerSize(ctx, c)
		}
	}
	return sum
}

func (s *Service) manifestSummary(ctx context.Context, img *Image) image.ManifestSummary {
	m := image.ManifestSummary{ID: img.Target.Digest.String(), Descriptor: img.Target, Available: true, Kind: image.ManifestKindImage}
	m.ImageData = &image.ImageProperties{Platform: img.Platform, Containers: []string{}}
	m.ImageData.Size.Unpacked = s.size(ctx, img)
	for _, c := range s.inUse(img.ID.String()) {
		m.ImageData.Containers = append(m.ImageData.Containers, c.ID)
	}
	if man, err := s.manifest(ctx, img.Target); err == nil {
		for _, d := range append(slices.Clone(man.Layers), man.Config, img.Target) {
			if s.store.Content.Stored(s.store.Context(ctx), d.Digest) {
				m.Size.Content += d.Size
			}
		}
	}
	m.Size.Total = m.Size.Content + m.ImageData.Size.Unpacked
	return m
}

// wanted returns a function that tells whether an image is wanted, and which of
// its names.
func (s *Service) wanted(ctx context.Context, f filter.Set) (func(*entry) (tags, digests []string, ok bool), error) {
	onlyDangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	before, since, err := s.bounds(ctx, f)
	if err != nil {
		return nil, err
	}
	for _, pattern := range f["reference"] {
		if _, err := path.Match(pattern, "x"); err != nil {
			return nil, errs.Newf(errs.Invalid, "invalid filter 'reference=%s': %w", pattern, err)
		}
	}
	return func(e *entry) ([]string, []string, bool) {
		if !before.IsZero() && !e.Created.Before(before) || !since.IsZero() && !e.Created.After(since) {
			return nil, nil, false
		}
		if !f.Labels("label", e.Config.Config.Labels) || f.Has("label!") && !withoutLabels(f, e.Config.Config.Labels) {
			return nil, nil, false
		}
		if f.Has("dangling") && e.dangling() != onlyDangling {
			return nil, nil, false
		}
		if !f.Has("reference") {
			return e.repoTags(), e.repoDigests(), true
		}
		tags, digests := e.matching(f["reference"])
		return tags, digests, len(tags)+len(digests) > 0
	}, nil
}

// withoutLabels reports that labels have none of the "label!" filter.
func withoutLabels(f filter.Set, labels map[string]string) bool {
	for _, l := range f["label!"] {
		if (filter.Set{"l": {l}}).Labels("l", labels) {
			return false
		}
	}
	return true
}

// bounds reads the filters that compare the time of creation.
func (s *Service) bounds(ctx context.Context, f filter.Set) (before, since time.Time, err error) {
	for _, ref := range f["before"] {
		img, err := s.Resolve(ctx, ref, nil)
		if err != nil {
			return before, since, err
		}
		if before.IsZero() || img.Created.Before(before) {
			before = img.Created
		}
	}
	for _, u := range f["until"] {
		t, err := parseUntil(u, time.Now())
		if err != nil {
			return before, since, errs.Newf(errs.Invalid, "invalid filter 'until=%s': %w", u, err)
		}
		if before.IsZero() || t.Before(before) {
			before = t
		}
	}
	for _, ref := range f["since"] {
		img, err := s.Resolve(ctx, ref, nil)
		if err != nil {
			return before, since, err
		}
		if img.Created.After(since) {
			since = img.Created
		}
	}
	return before, since, nil
}

// matching returns the names that match one of the patterns.
func (e *entry) matching(patterns []string) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, r := range e.records {
		if r.ref == nil {
			continue
		}
		ok := slices.ContainsFunc(patterns, func(p string) bool {
			whole, err := path.Match(p, r.familiar)
			repo, _ := path.Match(p, r.repo)
			return err == nil && (whole || repo || matchesWhole(p, r.ref))
		})
		if !ok {
			continue
		}
		if r.tagged() {
			tags = append(tags, r.familiar)
		} else {
			digests = append(digests, r.familiar)
		}
	}
	slices.Sort(tags)
	slices.Sort(digests)
	return tags, digests
}

// matchesWhole matches a pattern against a name with its domain.
func matchesWhole(pattern string, ref reference.Reference) bool {
	named, ok := ref.(reference.Named)
	if !ok {
		return false
	}
	for _, s := range []string{named.String(), named.Name()} {
		if m, err := path.Match(pattern, s); err == nil && m {
			return true
		}
	}
	return false
}

// Size is what the image's layers take on the disk.
func (s *Service) Size(ctx context.Context, img *Image) int64 { return s.size(ctx, img) }

// LayersSize is what all layers of all images take, each counted once.
func (s *Service) LayersSize(ctx context.Context) (int64, error) {
	all, err := s.entries(ctx)
	if err != nil {
		return 0, err
	}
	var sum int64
	for c := range layerUsers(all) {
		sum += s.layerSize(ctx, c)
	}
	return sum, nil
}

// Descendants returns the ids of the image and of those made from it: images
// whose layers begin with all of its.
func (s *Service) Descendants(ctx context.Context, ref string) ([]string, error) {
	img, err := s.Resolve(ctx, ref, nil)
	if err != nil {
		return nil, err
	}
	all, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	out := []string{img.ID.String()}
	for id, e := range all {
		if id != img.ID && len(img.DiffIDs) > 0 && len(e.DiffIDs) >= len(img.DiffIDs) && slices.Equal(e.DiffIDs[:len(img.DiffIDs)], img.DiffIDs) {
			out = append(out, id.String())
		}
	}
	return out, nil
}

// NameLeadsTo reports whether ref still names the image imageID.
func (s *Service) NameLeadsTo(ctx context.Context, ref, imageID string) bool {
	named, err := oci.ParseNamed(ref)
	if err != nil {
		return false
	}
	rec, err := s.store.Images.Get(s.store.Context(ctx), named.String())
	if err != nil {
		return false
	}
	imgs, err := s.imagesOf(ctx, rec.Target)
	return err == nil && slices.ContainsFunc(imgs, func(i *Image) bool { return i.ID.String() == imageID })
}
