package images

import (
	"context"
	"strconv"

	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/oci"
)

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }

// Search looks for images in a registry.
func (s *Service) Search(ctx context.Context, term string, limit int, f filter.Set, a *registry.AuthConfig) ([]registry.SearchResult, error) {
	if err := f.Check("is-official", "is-automated", "stars"); err != nil {
		return nil, err
	}
	official, err := f.Bool("is-official", false)
	if err != nil {
		return nil, err
	}
	automated, err := f.Bool("is-automated", false)
	if err != nil {
		return nil, err
	}
	stars := 0
	for _, v := range f["stars"] {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "invalid filter 'stars=%s'", v)
		}
		stars = max(stars, n)
	}
	found, err := s.remote.Search(ctx, term, limit, a)
	if err != nil {
		return nil, err
	}
	out := []registry.SearchResult{}
	for _, r := range found {
		if f.Has("is-official") && r.IsOfficial != official || automated || r.StarCount < stars {
			continue // nothing is automated any more
		}
		out = append(out, r)
	}
	return out, nil
}

// Distribution tells what a reference names at its registry.
func (s *Service) Distribution(ctx context.Context, ref string, a *registry.AuthConfig) (*registry.DistributionInspect, error) {
	named, err := oci.ParseNamed(ref)
	if err != nil {
		return nil, err
	}
	return s.remote.Distribution(ctx, named, a)
}

// Login checks credentials with their registry.
func (s *Service) Login(ctx context.Context, a *registry.AuthConfig) (registry.AuthResponse, error) {
	return s.remote.Login(ctx, a)
}
