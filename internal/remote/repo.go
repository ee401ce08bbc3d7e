package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const (
	// maxManifest bounds manifests and indexes, and each page of a list.
	maxManifest = 4 << 20
	// maxTags bounds a repository's list of tags, in bytes of memory, whatever the
	// registry makes up: it is some hundred thousand tags.
	maxTags = 16 << 20
)

// Repository is one repository of a registry, with the credentials of one
// request. Keep it for one verb: it holds tokens.
type Repository struct {
	c        *Client
	named    reference.Named
	hosts    docker.RegistryHosts
	resolver remotes.Resolver
}

// Repository opens a repository; auth may be nil.
func (c *Client) Repository(named reference.Named, auth *registry.AuthConfig) *Repository {
	named = reference.TrimNamed(named)
	domain := reference.Domain(named)
	// One set of hosts for the life of the Repository: tokens are shared.
	list, err := c.Hosts(func(host string) *registry.AuthConfig {
		if host != domain {
			return nil
		}
		return auth
	})(domain)
	hosts := func(string) ([]docker.RegistryHost, error) { return list, err }
	return &Repository{
		c: c, named: named, hosts: hosts,
		resolver: docker.NewResolver(docker.ResolverOptions{Hosts: hosts}),
	}
}

// Named is the repository's name.
func (r *Repository) Named() reference.Named { return r.named }

// ref is the form that containerd's resolver takes.
func (r *Repository) ref(object string) string {
	if strings.Contains(object, ":") {
		return r.named.Name() + "@" + object
	}
	return r.named.Name() + ":" + object
}

// Resolve asks what a tag or digest names.
func (r *Repository) Resolve(ctx context.Context, object string) (ocispec.Descriptor, error) {
	_, desc, err := r.resolver.Resolve(ctx, r.ref(object))
	if errdefs.IsNotFound(err) {
		// The answer to HEAD has no body that says what was not found.
		scope := docker.WithScope(ctx, "repository:"+reference.Path(r.named)+":pull")
		if _, gerr := r.getJSON(scope, "/"+reference.Path(r.named)+"/manifests/"+object, new(any)); registrySaid(gerr).status == http.StatusNotFound {
			err = gerr
		}
	}
	if err != nil {
		return desc, explain("pull", r.named, object, err)
	}
	if strings.HasPrefix(desc.MediaType, schema1) {
		return desc, obsolete(r.named, object)
	}
	return desc, nil
}

// schema1 begins the media types of docker's first manifests.
const schema1 = "application/vnd.docker.distribution.manifest.v1+"

func obsolete(named reference.Named, object string) error {
	return errs.Newf(errs.Invalid, "%s has a manifest of the obsolete schema 1, which is not supported: push the image again with a current client", familiar(named, object))
}

// Manifest resolves a tag or digest and fetches its manifest or index, verified.
func (r *Repository) Manifest(ctx context.Context, object string) (ocispec.Descriptor, []byte, error) {
	desc, err := r.Resolve(ctx, object)
	if err != nil {
		return desc, nil, err
	}
	body, err := r.Bytes(ctx, desc, maxManifest)
	return desc, body, err
}

// Bytes fetches a small blob or manifest and verifies it.
func (r *Repository) Bytes(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, errs.Newf(errs.Invalid, "%s of %s has %d bytes, more than the %d allowed", desc.Digest, reference.FamiliarName(r.named), desc.Size, limit)
	}
	why := r.Explain
	if images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType) {
		why = func(err error) error { return explain("pull", r.named, desc.Digest.String(), err) }
	}
	rc, err := r.fetch(ctx, desc)
	if err != nil {
		return nil, why(err)
	}
	defer func() { _ = rc.Close() }()
	b, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, why(fmt.Errorf("fetch %s: %w", desc.Digest, err))
	}
	if int64(len(b)) > limit {
		return nil, errs.Newf(errs.Invalid, "%s of %s has more than the %d bytes allowed", desc.Digest, reference.FamiliarName(r.named), limit)
	}
	if got := desc.Digest.Algorithm().FromBytes(b); got != desc.Digest {
		return nil, errs.Newf(errs.Invalid, "%s of %s: the registry sent other content, with digest %s", desc.Digest, reference.FamiliarName(r.named), got)
	}
	return b, nil
}

// Blob streams a blob or manifest; the caller verifies what it reads. A broken
// connection is taken up again where it broke.
func (r *Repository) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := r.fetch(ctx, desc)
	if err != nil {
		return nil, explain("pull", r.named, desc.Digest.String(), err)
	}
	return &resumer{
		ctx: ctx, rc: rc, pause: r.c.opts.Pause, most: r.c.set.Load().resumes,
		open: func() (io.ReadCloser, error) { return r.fetch(ctx, desc) },
		told: func(err error, wait time.Duration) {
			r.c.opts.Log.InfoContext(ctx, "a download is taken up again", "digest", desc.Digest.String(), "after", wait, "error", err)
		},
	}, nil
}

// fetch opens a blob or manifest; the registry is asked when it is read.
func (r *Repository) fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, errs.Newf(errs.Invalid, "digest %q: %w", desc.Digest, err)
	}
	// Addresses that a manifest names are not followed: they would let an
	// image make this host send requests anywhere.
	desc.URLs = nil
	f, err := r.resolver.Fetcher(ctx, r.ref(desc.Digest.String()))
	if err != nil {
		return nil, err
	}
	return f.Fetch(ctx, desc)
}

// Explain puts an error met while reading a [Repository.Blob] into docker's words.
func (r *Repository) Explain(err error) error {
	if s := registrySaid(err); errdefs.IsNotFound(err) || s.status == http.StatusNotFound {
		return errs.Newf(errs.NotFound, "pull %s: unknown blob: %w", reference.FamiliarName(r.named), err)
	}
	return explain("pull", r.named, "", err)
}

// Tags lists the repository's tags.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	ctx = docker.WithScope(ctx, "repository:"+reference.Path(r.named)+":pull")
	var all []string
	size := 0
	next := "/" + reference.Path(r.named) + "/tags/list?n=1000"
	for range 1000 {
		var page struct{ Tags []string }
		link, err := r.getJSON(ctx, next, &page)
		if err != nil {
			return nil, explain("pull", r.named, "", err)
		}
		all = append(all, page.Tags...)
		for _, t := range page.Tags {
			size += len(t) + 16 // and what a string is itself
		}
		if size > maxTags {
			return nil, errs.Newf(errs.Invalid, "%s: its list of tags is larger than %d bytes", reference.FamiliarName(r.named), maxTags)
		}
		if link == "" {
			return all, nil
		}
		next = link
	}
	return nil, errs.Newf(errs.Invalid, "%s: the list of tags does not end", reference.FamiliarName(r.named))
}

// getJSON asks the registry's API and returns the path of the next page.
func (r *Repository) getJSON(ctx context.Context, path string, into any) (next string, err error) {
	hosts, err := r.hosts(reference.Domain(r.named))
	if err != nil {
		return "", err
	}
	h := hosts[len(hosts)-1]
	resp, err := get(ctx, h, h.Path+path)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxManifest)).Decode(into); err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", h.Host, err)
	}
	return nextPage(resp.Header.Get("Link"), h.Path), nil
}

// nextPage reads a Link header, `</v2/…?last=x>; rel="next"`: only its path is
// taken, so that it leads to the same host.
func nextPage(link, base string) string {
	target, rel, ok := strings.Cut(link, ";")
	if !ok || !strings.Contains(rel, "next") {
		return ""
	}
	u, err := url.Parse(strings.Trim(strings.TrimSpace(target), "<>"))
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(u.RequestURI(), base)
}

// get asks with the host's credentials, once more after a challenge.
func get(ctx context.Context, h docker.RegistryHost, path string) (*http.Response, error) {
	var responses []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+path, nil)
		if err != nil {
			return nil, err
		}
		for k, v := range h.Header {
			req.Header[k] = v
		}
		if h.Authorizer != nil {
			if err := h.Authorizer.Authorize(ctx, req); err != nil {
				return nil, err
			}
		}
		resp, err := h.Client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 300 {
			return resp, nil
		}
		answer := unexpected(resp)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || h.Authorizer == nil || len(responses) >= 2 {
			return nil, answer
		}
		responses = append(responses, resp)
		if err := h.Authorizer.AddResponses(ctx, responses); err != nil {
			if errdefs.IsNotImplemented(err) {
				return nil, answer
			}
			return nil, errors.Join(err, answer)
		}
	}
}

// unexpected is the error of an answer, with what the registry said.
func unexpected(resp *http.Response) error {
	return remoteerrors.NewUnexpectedStatusErr(resp)
}
