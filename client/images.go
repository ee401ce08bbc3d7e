package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

// auth is the header that carries credentials, encoded; "" for none.
func auth(encoded string) http.Header {
	if encoded == "" {
		return nil
	}
	return http.Header{registry.AuthHeader: {encoded}}
}

// ImageListOptions say which images are listed.
type ImageListOptions struct {
	All     bool
	Filters Filters
}

// ImageList lists images.
func (c *Client) ImageList(ctx context.Context, o ImageListOptions) (list []image.Summary, err error) {
	q := query{}.flag("all", o.All).filters(o.Filters)
	return list, c.call(ctx, request{method: http.MethodGet, path: "/images/json", query: q.values()}, &list)
}

// ImageInspect returns the daemon's own document of an image.
func (c *Client) ImageInspect(ctx context.Context, name string, p *ocispec.Platform) (raw json.RawMessage, err error) {
	if name == "" {
		return nil, notFound("image", name)
	}
	q := query{}
	if p != nil {
		if err := c.needs(ctx, "1.49", "platform"); err != nil {
			return nil, err
		}
		q.document("platform", p)
	}
	return raw, c.call(ctx, request{method: http.MethodGet, path: "/images/" + name + "/json", query: q.values()}, &raw)
}

// ImageHistory lists the steps that an image was made of.
func (c *Client) ImageHistory(ctx context.Context, name string, p *ocispec.Platform) (list []image.HistoryResponseItem, err error) {
	q := query{}
	if p != nil {
		if err := c.needs(ctx, "1.48", "platform"); err != nil {
			return nil, err
		}
		q.document("platform", p)
	}
	return list, c.call(ctx, request{method: http.MethodGet, path: "/images/" + name + "/history", query: q.values()}, &list)
}

// ImagePullOptions say what of a repository is pulled, and as whom.
type ImagePullOptions struct {
	All      bool
	Auth     string // encoded credentials
	Platform *ocispec.Platform
}

// ImagePull pulls an image; the stream is its progress, [jsonstream.Message]s.
func (c *Client) ImagePull(ctx context.Context, name string, o ImagePullOptions) (io.ReadCloser, error) {
	ref, err := imageref.Parse(name)
	if err != nil {
		return nil, err
	}
	q := query{}.text("fromImage", ref.Name()).text("platform", platformText(o.Platform))
	switch {
	case o.All:
	case ref.Digest != "":
		q.text("tag", ref.Digest)
	default:
		q.text("tag", ref.Tagged().Tag)
	}
	return c.stream(ctx, request{method: http.MethodPost, path: "/images/create", query: q.values(), header: auth(o.Auth)})
}

// ImagePushOptions say what of a repository is pushed, and as whom.
type ImagePushOptions struct {
	All      bool
	Auth     string
	Platform *ocispec.Platform
}

// ImagePush pushes an image; the stream is its progress.
func (c *Client) ImagePush(ctx context.Context, name string, o ImagePushOptions) (io.ReadCloser, error) {
	ref, err := imageref.Parse(name)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return nil, errors.New("cannot push a digest reference")
	}
	q := query{}
	if !o.All {
		q.text("tag", ref.Tagged().Tag)
	}
	if o.Platform != nil {
		if err := c.needs(ctx, "1.46", "platform"); err != nil {
			return nil, err
		}
		q.document("platform", o.Platform)
	}
	h := auth(o.Auth)
	if h == nil {
		h = http.Header{registry.AuthHeader: {""}} // old daemons want it
	}
	return c.stream(ctx, request{method: http.MethodPost, path: "/images/" + ref.Name() + "/push", query: q.values(), header: h})
}

// ImageTag gives an image one more name.
func (c *Client) ImageTag(ctx context.Context, source, target string) error {
	const bad = "error parsing reference: %q is not a valid repository/tag: %w"
	if _, err := imageref.Parse(source); err != nil && !imageref.IsID(source) {
		return fmt.Errorf(bad, source, err)
	}
	if _, err := imageref.Parse(target); err != nil {
		return fmt.Errorf(bad, target, err)
	}
	ref, err := tagReference(target)
	if err != nil {
		return err
	}
	q := query{}.text("repo", ref.Name()).text("tag", ref.Tag)
	return c.call(ctx, request{method: http.MethodPost, path: "/images/" + source + "/tag", query: q.values()}, nil)
}

// ImageRemoveOptions say what of an image is removed.
type ImageRemoveOptions struct {
	Force     bool
	NoPrune   bool // keep parents without names
	Platforms []ocispec.Platform
}

// ImageRemove removes a name of an image, and the image with its last one.
func (c *Client) ImageRemove(ctx context.Context, name string, o ImageRemoveOptions) (list []image.DeleteResponse, err error) {
	q := query{}.flag("force", o.Force).flag("noprune", o.NoPrune).platforms("platforms", o.Platforms)
	return list, c.call(ctx, request{method: http.MethodDelete, path: "/images/" + name, query: q.values()}, &list)
}

// ImagePrune removes images that nobody uses.
func (c *Client) ImagePrune(ctx context.Context, f Filters) (r image.PruneReport, err error) {
	return r, c.call(ctx, request{method: http.MethodPost, path: "/images/prune", query: query{}.filters(f).values()}, &r)
}

// ImageSave reads images as a tar archive.
func (c *Client) ImageSave(ctx context.Context, names []string, platforms []ocispec.Platform) (io.ReadCloser, error) {
	if len(platforms) > 0 {
		if err := c.needs(ctx, "1.48", "platform"); err != nil {
			return nil, err
		}
	}
	q := query{}.texts("names", names).platforms("platform", platforms)
	return c.stream(ctx, request{method: http.MethodGet, path: "/images/get", query: q.values()})
}

// ImageLoad loads images from a tar archive; the stream is its progress.
func (c *Client) ImageLoad(ctx context.Context, in io.Reader, quiet bool, platforms []ocispec.Platform) (io.ReadCloser, error) {
	if len(platforms) > 0 {
		if err := c.needs(ctx, "1.48", "platform"); err != nil {
			return nil, err
		}
	}
	q := query{"quiet": {"0"}}.flag("quiet", quiet).platforms("platform", platforms)
	return c.stream(ctx, request{
		method: http.MethodPost, path: "/images/load", query: q.values(), body: in, header: http.Header{"Content-Type": {"application/x-tar"}},
	})
}

// ImageImportOptions describe an image to make of an archive of files.
type ImageImportOptions struct {
	Source    io.Reader // the archive, if From is "-"
	From      string    // an address to fetch it from, or "-"
	Reference string
	Message   string
	Changes   []string
	Platform  *ocispec.Platform
}

// ImageImport makes an image; the stream is its progress.
func (c *Client) ImageImport(ctx context.Context, o ImageImportOptions) (io.ReadCloser, error) {
	if o.Reference != "" {
		if _, err := imageref.Parse(o.Reference); err != nil {
			return nil, err
		}
	}
	q := query{}.text("fromSrc", o.From).text("repo", o.Reference).text("message", o.Message).
		text("platform", platformText(o.Platform)).texts("changes", o.Changes)
	return c.stream(ctx, request{method: http.MethodPost, path: "/images/create", query: q.values(), body: o.Source})
}

// ImageSearchOptions narrow a search down.
type ImageSearchOptions struct {
	Auth    string
	Filters Filters
	Limit   int
}

// ImageSearch asks a registry for images.
func (c *Client) ImageSearch(ctx context.Context, term string, o ImageSearchOptions) (list []registry.SearchResult, err error) {
	q := query{"term": {term}}.number("limit", int64(max(o.Limit, 0))).filters(o.Filters)
	return list, c.call(ctx, request{method: http.MethodGet, path: "/images/search", query: q.values(), header: auth(o.Auth)}, &list)
}
