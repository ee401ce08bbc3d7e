package snapshot

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// What reaches the snapshotter through metadata.DB, whose interface has no room
// for it, travels in the context under keys that only this package has.
type (
	proofKey struct{}
	adoptKey struct{}
	usageKey struct{}
	dirsKey  struct{}
)

func withDirs(ctx context.Context) context.Context { return context.WithValue(ctx, dirsKey{}, true) }

func wantsDirs(ctx context.Context) bool { return ctx.Value(dirsKey{}) != nil }

func withProof(ctx context.Context, chainID digest.Digest) context.Context {
	return context.WithValue(ctx, proofKey{}, chainID)
}

func withAdoptedDir(ctx context.Context, dir string) context.Context {
	return context.WithValue(ctx, adoptKey{}, dir)
}

func adoptedDir(ctx context.Context) string {
	dir, _ := ctx.Value(adoptKey{}).(string)
	return dir
}

func withUsage(ctx context.Context, u snapshots.Usage) context.Context {
	return context.WithValue(ctx, usageKey{}, u)
}

func knownUsage(ctx context.Context) (snapshots.Usage, bool) {
	u, ok := ctx.Value(usageKey{}).(snapshots.Usage)
	return u, ok
}

// guarded refuses to commit a snapshot under a digest to whoever has not shown
// that its content was checked against it.
type guarded struct{ snapshots.Snapshotter }

func (g *guarded) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	if _, err := digest.Parse(name); err == nil {
		if proof, _ := ctx.Value(proofKey{}).(digest.Digest); proof.String() != name {
			return fmt.Errorf("commit %s under %s: its content was not verified: %w", key, name, errdefs.ErrFailedPrecondition)
		}
	}
	return g.Snapshotter.Commit(ctx, name, key, opts...)
}
