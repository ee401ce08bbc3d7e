package images

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/oci"
	"github.com/skiff-containers/skiff/internal/oci/changes"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// Import makes an image of one layer from an archive of a root file system.
func (s *Service) Import(ctx context.Context, r io.Reader, o ImportOptions, p progress.Sink) (string, error) {
	var ref reference.NamedTagged
	var err error
	if o.Ref != "" {
		if ref, err = oci.ParseTagged(o.Ref); err != nil {
			return "", err
		}
	}
	conf := newConfig(o.Platform)
	if err := changes.Apply(&conf.Config, o.Changes); err != nil {
		return "", err
	}
	ctx, end, err := s.lease(ctx, "import")
	if err != nil {
		return "", diskFull(err)
	}
	defer end()
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return "", errs.Newf(errs.Invalid, "import: %w", err)
	}
	defer func() { _ = plain.Close() }()
	ex, err := s.store.Extract(ctx, plain)
	if err != nil {
		return "", diskFull(fmt.Errorf("import: %w", err))
	}
	defer ex.Discard(ctx)
	l, err := s.store.CommitMade(ctx, ex, "")
	if err != nil {
		return "", diskFull(fmt.Errorf("import: %w", err))
	}
	comment := o.Message
	if comment == "" {
		comment = "Imported from -"
	}
	appendLayer(&conf, l.DiffID, ocispec.History{Comment: comment})
	img, err := s.create(ctx, conf, []ocispec.Descriptor{archiveOf(l)}, ref)
	if err != nil {
		return "", diskFull(err)
	}
	p.Emit(progress.Event{Status: img.ID.String()})
	s.tagged(img, ref)
	s.event(events.ActionImport, img.ID.String(), img.ID.String(), img)
	return img.ID.String(), nil
}

func newConfig(p *ocispec.Platform) dockerspec.DockerOCIImage {
	var c dockerspec.DockerOCIImage
	c.Platform = oci.HostPlatform()
	if p != nil {
		c.Platform = *p
	}
	if c.OS == "" {
		c.OS = "linux"
	}
	c.RootFS.Type = "layers"
	return c
}

func appendLayer(c *dockerspec.DockerOCIImage, diffID digest.Digest, h ocispec.History) {
	now := time.Now().UTC()
	c.Created = &now
	h.Created = &now
	c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, diffID)
	c.History = append(c.History, h)
}

// archiveOf describes a layer by the archive that can be made of it.
func archiveOf(l snapshot.Layer) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID, Size: l.Size}
}

// create stores an image whose layers are there, under the lease in ctx, and
// names it; ref may be nil.
func (s *Service) create(ctx context.Context, conf dockerspec.DockerOCIImage, layers []ocispec.Descriptor, ref reference.NamedTagged) (*Image, error) {
	body, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	cdesc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(body), Size: int64(len(body))}
	target, mbody, err := oci.NewManifest(cdesc, layers, nil)
	if err != nil {
		return nil, err
	}
	m, err := oci.ParseManifest(target.MediaType, mbody)
	if err != nil {
		return nil, err
	}
	img, err := s.putImage(ctx, target, mbody, m, body)
	if err != nil {
		return nil, err
	}
	if err := s.store.Sync(); err != nil {
		return nil, err
	}
	s.names.Lock()
	defer s.names.Unlock()
	if ref != nil {
		return img, s.name(ctx, ref, target)
	}
	return img, s.keepUnnamed(ctx, img)
}
