package images

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/oci"
)

// catalog keeps names and images as they were last read, until a name changes.
type catalog struct {
	mu      sync.Mutex               // guards all below
	version uint64                   // of the names
	records []record                 // read-only; nil: must be read
	images  map[digest.Digest]*entry // read-only; nil: must be read
}

// at returns what is kept of a version.
func (c *catalog) at(version uint64) ([]record, map[digest.Digest]*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != version {
		c.version, c.records, c.images = version, nil, nil
	}
	return c.records, c.images
}

func (c *catalog) keep(version uint64, recs []record, imgs map[digest.Digest]*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == version {
		c.records, c.images = recs, imgs
	}
}

// entries groups the names by image. The answer is shared: who changes it asks
// for [Service.ownEntries].
func (s *Service) entries(ctx context.Context) (map[digest.Digest]*entry, error) {
	version := s.store.NamesVersion()
	recs, imgs := s.catalog.at(version)
	if imgs != nil {
		return imgs, nil
	}
	if recs == nil {
		var err error
		if recs, err = s.records(ctx); err != nil {
			return nil, err
		}
	}
	imgs, lasting := s.group(ctx, recs)
	if lasting {
		s.catalog.keep(version, recs, imgs)
	} else {
		s.catalog.keep(version, recs, nil)
	}
	return imgs, nil
}

// ownEntries are entries that the caller may change.
func (s *Service) ownEntries(ctx context.Context) (map[digest.Digest]*entry, error) {
	all, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	all = maps.Clone(all)
	for id, e := range all {
		own := *e
		own.records = slices.Clone(e.records)
		all[id] = &own
	}
	return all, nil
}

// group reads the images that the names lead to. It also tells whether only a
// change of a name can change that: which of an index's images are here can
// change without.
func (s *Service) group(ctx context.Context, recs []record) (out map[digest.Digest]*entry, lasting bool) {
	lasting = true
	out = map[digest.Digest]*entry{}
	for _, r := range recs {
		lasting = lasting && !oci.IsIndex(r.Target.MediaType)
		imgs, err := s.imagesOf(ctx, r.Target)
		if err != nil {
			// One damaged image must not hide the others.
			s.log.WarnContext(ctx, "image cannot be read", "name", r.Name, "error", err)
			lasting = false
			continue
		}
		for _, img := range imgs {
			e := out[img.ID]
			if e == nil {
				e = &entry{Image: img}
				out[img.ID] = e
			}
			e.records = append(e.records, r)
			if r.UpdatedAt.After(e.updated) {
				e.updated = r.UpdatedAt
			}
		}
	}
	return out, lasting
}
