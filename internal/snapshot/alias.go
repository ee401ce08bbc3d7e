package snapshot

import (
	"context"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	bksnapshot "github.com/moby/buildkit/snapshot"
	"github.com/opencontainers/go-digest"
)

// ForBuildKit returns the views of the store that BuildKit's worker gets. It
// names layers that come from blobs by a prefix of its own; here that name and
// the chainID are the same snapshot. This is sound because BuildKit compares
// what it applied with the diffID before it commits (cache/refs.go), except
// with lazy snapshotters, which must never be used on this store.
func (s *Store) ForBuildKit() (snapshots.Snapshotter, leases.Manager) {
	return &aliasSnapshotter{s.Snapshotter}, &aliasLeases{s.Leases}
}

// realName translates a name of BuildKit's; verified tells that it is one of
// those that BuildKit commits only after checking.
func realName(name string) (real string, verified bool) {
	if id, ok := bksnapshot.ParseLayerSnapshotID(name); ok {
		return id.String(), true
	}
	return name, false
}

type aliasSnapshotter struct{ snapshots.Snapshotter }

func (a *aliasSnapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	real, _ := realName(key)
	info, err := a.Snapshotter.Stat(ctx, real)
	info.Name = key
	return info, err
}

func (a *aliasSnapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
	key := info.Name
	info.Name, _ = realName(key)
	info, err := a.Snapshotter.Update(ctx, info, fieldpaths...)
	info.Name = key
	return info, err
}

func (a *aliasSnapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	key, _ = realName(key)
	return a.Snapshotter.Usage(ctx, key)
}

func (a *aliasSnapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	key, _ = realName(key)
	return a.Snapshotter.Mounts(ctx, key)
}

func (a *aliasSnapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	parent, _ = realName(parent)
	return a.Snapshotter.Prepare(ctx, key, parent, opts...)
}

func (a *aliasSnapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	parent, _ = realName(parent)
	return a.Snapshotter.View(ctx, key, parent, opts...)
}

func (a *aliasSnapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	real, verified := realName(name)
	if verified {
		ctx = withProof(ctx, digest.Digest(real))
	}
	return a.Snapshotter.Commit(ctx, real, key, opts...)
}

func (a *aliasSnapshotter) Remove(ctx context.Context, key string) error {
	key, _ = realName(key)
	return a.Snapshotter.Remove(ctx, key)
}

type aliasLeases struct{ leases.Manager }

func realResource(r leases.Resource) leases.Resource {
	if strings.HasPrefix(r.Type, "snapshots/") {
		r.ID, _ = realName(r.ID)
	}
	return r
}

func (a *aliasLeases) AddResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	return a.Manager.AddResource(ctx, l, realResource(r))
}

func (a *aliasLeases) DeleteResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	return a.Manager.DeleteResource(ctx, l, realResource(r))
}
