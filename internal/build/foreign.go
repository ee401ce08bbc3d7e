package build

import (
	"context"
	"encoding/json"
	"strings"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/containerimage"
	srctypes "github.com/moby/buildkit/source/types"
	"github.com/moby/buildkit/util/resolver"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Resolve implements source.Source.
func (s localFirst) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, v solver.Vertex) (source.SourceInstance, error) {
	if img, ok := id.(*containerimage.ImageIdentifier); ok && img.ResolveMode == resolver.ResolveModePreferLocal &&
		foreign(ctx, s.ImageStore, s.ContentStore, img.Reference.String(), img.Platform) {
		img.ResolveMode = resolver.ResolveModeForcePull
	}
	return s.Source.Resolve(ctx, id, sm, v)
}

// imageOf is the image's reference in a source's identifier.
func imageOf(identifier string) (string, bool) {
	return strings.CutPrefix(identifier, srctypes.DockerImageScheme+"://")
}

// foreign reports whether the image of this name that is here is not for the
// platform: then its registry has to be asked. Without an answer it is not.
func foreign(ctx context.Context, is images.Store, cs ctdcontent.Provider, ref string, want *ocispec.Platform) bool {
	if want == nil || is == nil {
		return false
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	if c, ok := named.(reference.Canonical); ok { // its record is under the tag
		tagged, isTagged := named.(reference.Tagged)
		named = reference.TrimNamed(c)
		if isTagged {
			if named, err = reference.WithTag(named, tagged.Tag()); err != nil {
				return false
			}
		}
	}
	img, err := is.Get(ctx, reference.TagNameOnly(named).String())
	if err != nil {
		return false
	}
	have, err := platformsOf(ctx, cs, img.Target)
	if err != nil || len(have) == 0 {
		return false
	}
	m := platforms.Only(*want)
	for _, p := range have {
		if p.Architecture == "" || m.Match(p) { // imported ones may not tell
			return false
		}
	}
	return true
}

// platformsOf lists those of an image, or of an index's.
func platformsOf(ctx context.Context, cs ctdcontent.Provider, desc ocispec.Descriptor) ([]ocispec.Platform, error) {
	b, err := ctdcontent.ReadBlob(ctx, cs, desc)
	if err != nil {
		return nil, err
	}
	if images.IsIndexType(desc.MediaType) {
		var x ocispec.Index
		if err := json.Unmarshal(b, &x); err != nil {
			return nil, err
		}
		var out []ocispec.Platform
		for _, d := range x.Manifests {
			if d.Platform == nil {
				return nil, nil
			}
			out = append(out, *d.Platform)
		}
		return out, nil
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	p, err := images.ConfigPlatform(ctx, cs, m.Config)
	return []ocispec.Platform{p}, err
}
