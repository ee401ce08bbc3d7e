package images

import (
	"context"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/snapshot"
)

// Inspect tells everything about an image.
func (s *Service) Inspect(ctx context.Context, ref string, p *ocispec.Platform, manifests bool) (*image.InspectResponse, error) {
	img, named, err := s.resolve(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	all, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	c := img.Config
	out := &image.InspectResponse{
		ID: img.ID.String(), RepoTags: []string{}, RepoDigests: []string{}, Author: c.Author, Config: &c.Config,
		Architecture: img.Platform.Architecture, Variant: img.Platform.Variant, Os: img.Platform.OS, OsVersion: img.Platform.OSVersion,
		Size: s.size(ctx, img), RootFS: image.RootFS{Type: "layers"},
		GraphDriver: &storage.DriverData{Name: snapshot.Name, Data: s.driverData(ctx, img)},
	}
	if n := len(c.History); n > 0 {
		out.Comment = c.History[n-1].Comment
	}
	if c.Created != nil {
		out.Created = c.Created.Format(time.RFC3339Nano)
	}
	for _, d := range img.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, d.String())
	}
	if e := all[img.ID]; e != nil {
		out.RepoTags, out.RepoDigests = e.repoTags(), e.repoDigests()
		out.Metadata.LastTagTime = e.updated
	}
	if manifests && p == nil {
		d := s.targetOf(ctx, named, img)
		out.Descriptor = &d
		imgs, err := s.imagesOf(ctx, d)
		if err != nil {
			return nil, err
		}
		for _, i := range imgs {
			out.Manifests = append(out.Manifests, s.manifestSummary(ctx, i))
		}
	}
	return out, nil
}

func (s *Service) driverData(ctx context.Context, img *Image) map[string]string {
	dirs, err := s.Lowers(ctx, img)
	if err != nil || len(dirs) == 0 {
		return map[string]string{}
	}
	out := map[string]string{"UpperDir": dirs[0]}
	if len(dirs) > 1 {
		out["LowerDir"] = strings.Join(dirs[1:], ":")
	}
	return out
}

// History tells how the image was made, newest step first.
func (s *Service) History(ctx context.Context, ref string, p *ocispec.Platform) ([]image.HistoryResponseItem, error) {
	img, err := s.Resolve(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	all, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	chain := img.chain
	n := len(img.Config.History)
	out := make([]image.HistoryResponseItem, n)
	next := 0
	for i, h := range img.Config.History {
		item := image.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment, Tags: []string{}}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && next < len(chain) {
			item.Size = s.layerSize(ctx, chain[next])
			next++
		}
		out[n-1-i] = item
	}
	if n > 0 {
		out[0].ID = img.ID.String()
		if e := all[img.ID]; e != nil {
			out[0].Tags = e.repoTags()
		}
	}
	return out, nil
}
