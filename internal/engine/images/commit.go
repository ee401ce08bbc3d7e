package images

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/oci"
)

// Commit makes an image of a container's writable layer, which is copied.
func (s *Service) Commit(ctx context.Context, c CommitSpec) (string, error) {
	var ref reference.NamedTagged
	var err error
	if c.Ref != "" {
		if ref, err = oci.ParseTagged(c.Ref); err != nil {
			return "", err
		}
	}
	ctx, end, err := s.lease(ctx, "commit")
	if err != nil {
		return "", diskFull(err)
	}
	defer end()
	conf := newConfig(nil)
	var layers []ocispec.Descriptor
	var parent digest.Digest
	if c.Parent != nil {
		m, err := s.manifest(ctx, c.Parent.Target)
		if err != nil {
			return "", fmt.Errorf("commit: the container's image: %w", err)
		}
		conf = c.Parent.Config
		conf.RootFS.DiffIDs, conf.History = slices.Clone(conf.RootFS.DiffIDs), slices.Clone(conf.History)
		layers, parent = slices.Clone(m.Layers), c.Parent.ChainID
	}
	pr, pw := io.Pipe()
	go func() { _ = pw.CloseWithError(layer.Write(ctx, pw, c.Upper)) }()
	ex, err := s.store.Extract(ctx, pr)
	_ = pr.Close()
	if err != nil {
		return "", diskFull(fmt.Errorf("commit: %w", err))
	}
	defer ex.Discard(ctx)
	l, err := s.store.CommitMade(ctx, ex, parent)
	if err != nil {
		return "", diskFull(fmt.Errorf("commit: %w", err))
	}
	conf.Config = c.Config
	conf.Author = c.Author
	conf.Config.ArgsEscaped = false
	appendLayer(&conf, l.DiffID, ocispec.History{Author: c.Author, Comment: c.Comment, CreatedBy: c.CreatedBy})
	img, err := s.create(ctx, conf, append(layers, archiveOf(l)), ref)
	if err != nil {
		return "", diskFull(err)
	}
	s.event(events.ActionCreate, img.ID.String(), img.ID.String(), img)
	s.tagged(img, ref)
	return img.ID.String(), nil
}
