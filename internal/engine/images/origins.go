package images

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// What push needs to upload nothing twice: for each layer, under which digests
// registries have it compressed, and in which repositories.

var bucketOrigins = []byte("skiff-origins")

const maxOrigins = 8

// origin is a compressed blob of a layer, somewhere.
type origin struct {
	Blob  ocispec.Descriptor `json:"blob"`
	Repos []string           `json:"repos,omitempty"` // "host/name", last seen first
}

func (s *Service) origins(diffID digest.Digest) (out []origin) {
	_ = s.store.DB.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bucketOrigins); b != nil {
			if v := b.Get([]byte(diffID)); v != nil {
				return json.Unmarshal(v, &out)
			}
		}
		return nil
	})
	return out
}

// seen records that repo has the layers as blobs. It only saves work later: a
// failure is logged.
func (s *Service) seen(ctx context.Context, repo reference.Named, blobs map[digest.Digest]ocispec.Descriptor) {
	if len(blobs) == 0 {
		return
	}
	name := repo.Name()
	err := s.store.DB.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketOrigins)
		if err != nil {
			return err
		}
		for diffID, blob := range blobs {
			var list []origin
			if v := b.Get([]byte(diffID)); v != nil {
				_ = json.Unmarshal(v, &list) // a damaged row is replaced
			}
			v, err := json.Marshal(addOrigin(list, blob, name))
			if err != nil {
				return err
			}
			if err := b.Put([]byte(diffID), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.log.WarnContext(ctx, "cannot record where layers are from", "repository", name, "error", err)
	}
}

func addOrigin(list []origin, blob ocispec.Descriptor, repo string) []origin {
	blob = ocispec.Descriptor{MediaType: blob.MediaType, Digest: blob.Digest, Size: blob.Size}
	o := origin{Blob: blob}
	if i := slices.IndexFunc(list, func(o origin) bool { return o.Blob.Digest == blob.Digest }); i >= 0 {
		o = list[i]
		list = slices.Delete(list, i, i+1)
	}
	o.Repos = slices.DeleteFunc(o.Repos, func(r string) bool { return r == repo })
	o.Repos = append([]string{repo}, o.Repos...)
	if len(o.Repos) > maxOrigins {
		o.Repos = o.Repos[:maxOrigins]
	}
	list = append([]origin{o}, list...)
	if len(list) > maxOrigins {
		list = list[:maxOrigins]
	}
	return list
}

// forget drops the rows of layers that are gone.
func (s *Service) forget(ctx context.Context, diffIDs []digest.Digest) {
	err := s.store.DB.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketOrigins)
		if b == nil {
			return nil
		}
		for _, d := range diffIDs {
			if err := b.Delete([]byte(d)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.log.WarnContext(ctx, "cannot forget where layers are from", "error", err)
	}
}
