package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// Names under which BuildKit's cache keeps what it knows of a record.
const (
	keySnapshot  = "cache.snapshot"
	keyChainID   = "cache.chainID"
	keyDiffID    = "cache.diffID"
	keyBlob      = "cache.blob"
	keyBlobSize  = "cache.blobsize"
	keyMediaType = "cache.mediatype"
)

// keyAdopted is ours: the layer that a record became, so that a cached build
// need not read the directory again.
const keyAdopted = "skiff.layer"

// builtLayer is one layer of a result.
type builtLayer struct {
	snapshot.Layer
	Blob        ocispec.Descriptor // as in the manifest
	Description string             // of a layer that the configuration has no history for
	Created     int64              // Unix nanoseconds
}

// adopted is what keyAdopted holds.
type adopted struct {
	Parent digest.Digest `json:"parent,omitempty"`
	snapshot.Layer
}

// adopt makes every layer of ref, bottom first, one of the engine's. They are
// protected by the lease in ctx.
func (w *engineWorker) adopt(ctx context.Context, ref cache.ImmutableRef) ([]builtLayer, error) {
	if ref == nil {
		return nil, nil // scratch
	}
	// Lazy layers of a base that nothing has touched must be here, too.
	if err := ref.Extract(ctx, nil); err != nil {
		return nil, err
	}
	if err := ref.Finalize(ctx); err != nil {
		return nil, err
	}
	chain := ref.LayerChain()
	defer func() { _ = chain.Release(context.WithoutCancel(ctx)) }()
	// The topmost layer keeps those below it. Between finding it and leasing it
	// a collection may take it: then it is made again.
	for range maxAdoptTries {
		out, err := w.adoptChain(ctx, chain)
		if err != nil || len(out) == 0 {
			return out, err
		}
		if ok, err := w.lease(ctx, out[len(out)-1].ChainID); err != nil || ok {
			return out, err
		}
	}
	return nil, errors.New("export layers: they are collected as soon as they are made")
}

const maxAdoptTries = 3

func (w *engineWorker) adoptChain(ctx context.Context, chain cache.RefList) ([]builtLayer, error) {
	out := make([]builtLayer, 0, len(chain))
	parent := digest.Digest("")
	for _, r := range chain {
		l, err := w.adoptOne(ctx, r, parent)
		if err != nil {
			return nil, fmt.Errorf("export layer %q: %w", r.GetDescription(), err)
		}
		parent = l.ChainID
		out = append(out, l)
	}
	return out, nil
}

func (w *engineWorker) adoptOne(ctx context.Context, r cache.ImmutableRef, parent digest.Digest) (builtLayer, error) {
	if err := r.Extract(ctx, nil); err != nil {
		return builtLayer{}, err
	}
	if err := r.Finalize(ctx); err != nil {
		return builtLayer{}, err
	}
	l := builtLayer{Description: r.GetDescription(), Created: r.GetCreatedAt().UnixNano()}
	// A layer that came from a blob, on the parent it came with, is the
	// engine's already.
	if diffID := digest.Digest(r.GetString(keyDiffID)); diffID != "" && r.GetString(keyBlob) != "" {
		l.Layer = snapshot.Layer{DiffID: diffID, ChainID: snapshot.ChainID(parent, diffID)}
		l.Blob = blobOf(r)
		if digest.Digest(r.GetString(keyChainID)) == l.ChainID && w.has(ctx, l.ChainID) {
			return l, nil
		}
	}
	if b, err := r.GetExternal(keyAdopted); err == nil {
		var a adopted
		if json.Unmarshal(b, &a) == nil && a.Parent == parent && w.has(ctx, a.ChainID) {
			l.Layer = a.Layer
			l.Blob = tarOf(a.Layer)
			return l, nil
		}
	}
	got, err := w.opt.Store.Adopt(ctx, snapshotOf(r), parent)
	if err != nil {
		return builtLayer{}, err
	}
	l.Layer, l.Blob = got, tarOf(got)
	b, err := json.Marshal(adopted{Parent: parent, Layer: got})
	if err != nil {
		return builtLayer{}, err
	}
	return l, r.SetExternal(keyAdopted, b)
}

// has reports whether the layer exists.
func (w *engineWorker) has(ctx context.Context, chainID digest.Digest) bool {
	_, err := w.opt.Store.Snapshotter.Stat(inNamespace(ctx), chainID.String())
	return err == nil
}

// lease protects the layer, and reports whether it was in time.
func (w *engineWorker) lease(ctx context.Context, chainID digest.Digest) (bool, error) {
	ctx = inNamespace(ctx)
	id, ok := leases.FromContext(ctx)
	if !ok {
		return false, errors.New("export layers: no lease")
	}
	r := leases.Resource{ID: chainID.String(), Type: "snapshots/" + snapshot.Name}
	if err := w.opt.Store.Leases.AddResource(ctx, leases.Lease{ID: id}, r); err != nil {
		return false, err
	}
	return w.has(ctx, chainID), nil
}

func snapshotOf(r cache.ImmutableRef) string {
	if s := r.GetString(keySnapshot); s != "" {
		return s
	}
	return r.ID()
}

// blobOf describes the blob that a layer came from.
func blobOf(r cache.ImmutableRef) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: r.GetString(keyMediaType), Digest: digest.Digest(r.GetString(keyBlob))}
	if v := r.Get(keyBlobSize); v != nil {
		_ = v.Unmarshal(&d.Size)
	}
	return d
}

// tarOf describes the blob that can be made of a layer's directory.
func tarOf(l snapshot.Layer) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID, Size: l.Size}
}

// single returns the only file system of a result, nil for scratch.
func single(src *exporter.Source) (cache.ImmutableRef, *exptypes.Platform, error) {
	ps, err := exptypes.ParsePlatforms(src.Metadata)
	if err != nil {
		return nil, nil, err
	}
	if len(ps.Platforms) > 1 {
		return nil, nil, errs.New(errs.Invalid, "cannot export several platforms as one image")
	}
	if len(ps.Platforms) == 1 {
		p := ps.Platforms[0]
		r, ok := src.FindRef(p.ID)
		if !ok && len(src.Refs) > 0 {
			return nil, nil, errs.Newf(errs.Internal, "the build has no result for platform %s", p.ID)
		}
		return r, &p, nil
	}
	return src.Ref, nil, nil
}

// platformResult is what a build has for one platform.
type platformResult struct {
	match platforms.MatchComparer
	ref   cache.ImmutableRef // nil: nothing but a configuration
	runs  bool               // here
}

// results lists what a build has by platform; one that does not tell is for
// here.
func (w *engineWorker) results(src *exporter.Source) ([]platformResult, error) {
	ps, err := exptypes.ParsePlatforms(src.Metadata)
	if err != nil {
		return nil, err
	}
	here := platforms.Only(w.Platforms(false)[0])
	if len(ps.Platforms) == 0 {
		return []platformResult{{here, src.Ref, true}}, nil
	}
	var out []platformResult
	for _, p := range ps.Platforms {
		r, _ := src.FindRef(p.ID)
		out = append(out, platformResult{platforms.OnlyStrict(p.Platform), r, here.Match(p.Platform)})
	}
	return out, nil
}
