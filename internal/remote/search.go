package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Search limits, as docker's.
const (
	searchLimit    = 25
	maxSearchLimit = 100
)

// Search looks for repositories on docker.io, or on the registry that term
// begins with ("host:port/term"). A registry without search is asked for its
// catalogue.
func (c *Client) Search(ctx context.Context, term string, limit int, auth *registry.AuthConfig) ([]registry.SearchResult, error) {
	if limit == 0 {
		limit = searchLimit
	}
	if limit < 1 || limit > maxSearchLimit {
		return nil, errs.Newf(errs.Invalid, "limit %d is outside the range of [1, %d]", limit, maxSearchLimit)
	}
	if strings.Contains(term, "://") {
		return nil, errs.Newf(errs.Invalid, "invalid repository name: repository name (%s) should not have a scheme", term)
	}
	host, rest, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = hub, term
	}
	scheme, at := "https", host
	if host == hub || host == "index.docker.io" {
		at = strings.TrimPrefix(hubWeb, "https://")
		rest = strings.TrimPrefix(rest, "library/")
	}
	h, err := c.host(scheme, at, auth)
	if err != nil {
		return nil, err
	}
	q := url.Values{"q": {rest}, "n": {strconv.Itoa(limit)}}
	var found registry.SearchResults
	err = c.ask(ctx, h, "/v1/search?"+q.Encode(), auth, &found)
	if err != nil && host != hub {
		return c.catalog(ctx, h, rest, limit, err)
	}
	if err != nil {
		return nil, errs.Newf(errs.Unavailable, "search %s: %w", at, err)
	}
	return found.Results, nil
}

func (c *Client) ask(ctx context.Context, h docker.RegistryHost, path string, auth *registry.AuthConfig, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+path, nil)
	if err != nil {
		return err
	}
	if auth != nil && auth.Username != "" {
		req.SetBasicAuth(auth.Username, auth.Password)
	}
	resp, err := h.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return unexpected(resp)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, maxManifest)).Decode(into)
}

func (c *Client) catalog(ctx context.Context, h docker.RegistryHost, term string, limit int, first error) ([]registry.SearchResult, error) {
	ctx = docker.WithScope(ctx, "registry:catalog:*")
	var out []registry.SearchResult
	next := "/_catalog?n=1000"
	for range 100 {
		resp, err := get(ctx, h, h.Path+next)
		if err != nil {
			return nil, errs.Newf(errs.Unavailable, "search %s: %w", h.Host, first)
		}
		var page struct{ Repositories []string }
		err = json.NewDecoder(io.LimitReader(resp.Body, maxManifest)).Decode(&page)
		_ = resp.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("search %s: %w", h.Host, err)
		}
		for _, name := range page.Repositories {
			if strings.Contains(name, term) {
				out = append(out, registry.SearchResult{Name: h.Host + "/" + name})
			}
			if len(out) == limit {
				return out, nil
			}
		}
		if next = nextPage(resp.Header.Get("Link"), h.Path); next == "" {
			break
		}
	}
	return out, nil
}

// Distribution tells what a reference names at its registry, without pulling.
func (c *Client) Distribution(ctx context.Context, named reference.Named, auth *registry.AuthConfig) (*registry.DistributionInspect, error) {
	object := "latest"
	if d, ok := named.(reference.Digested); ok {
		object = d.Digest().String()
	} else if t, ok := named.(reference.Tagged); ok {
		object = t.Tag()
	}
	repo := c.Repository(named, auth)
	desc, body, err := repo.Manifest(ctx, object)
	if err != nil {
		return nil, err
	}
	out := &registry.DistributionInspect{Descriptor: desc}
	var doc struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    *ocispec.Descriptor  `json:"config"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, errs.Newf(errs.Invalid, "manifest of %s: %w", reference.FamiliarString(named), err)
	}
	for _, m := range doc.Manifests {
		if m.Platform != nil {
			out.Platforms = append(out.Platforms, *m.Platform)
		}
	}
	if doc.Config != nil && len(doc.Manifests) == 0 {
		conf, err := repo.Bytes(ctx, *doc.Config, maxManifest)
		if err != nil {
			return nil, err
		}
		var p ocispec.Platform
		if json.Unmarshal(conf, &p) == nil && p.OS != "" {
			out.Platforms = append(out.Platforms, p)
		}
	}
	return out, nil
}
