package build

import (
	"context"
	"slices"
	"strings"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/content"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// layerContent is the engine's content store as BuildKit uses it.
type layerContent struct{ *content.Store }

// Update implements content.Manager. A blob that is made on demand has no record
// to put labels on. Where BuildKit links another compression of it, which it
// finds again by those labels, the blob is kept from then on; other labels (where
// it was fetched from) are of no use to it.
func (s layerContent) Update(ctx context.Context, info ctdcontent.Info, fieldpaths ...string) (ctdcontent.Info, error) {
	// Every resolving of a base sets labels that it has; a write costs a sync.
	if now, err := s.Info(ctx, info.Digest); err == nil && labelled(now, info, fieldpaths) {
		return now, nil
	}
	out, err := s.Store.Update(ctx, info, fieldpaths...)
	if !errdefs.IsNotFound(err) {
		return out, err
	}
	made, ierr := s.Info(ctx, info.Digest)
	if ierr != nil {
		return out, err
	}
	if !slices.ContainsFunc(fieldpaths, func(f string) bool { return strings.HasPrefix(f, variantLabel) }) {
		return made, nil
	}
	if err := s.keep(ctx, made); err != nil {
		return out, err
	}
	return s.Store.Update(ctx, info, fieldpaths...)
}

// labelled reports whether an update of labels would change nothing.
func labelled(now, want ctdcontent.Info, fieldpaths []string) bool {
	for _, f := range fieldpaths {
		k, ok := strings.CutPrefix(f, "labels.")
		if !ok || now.Labels[k] != want.Labels[k] {
			return false
		}
	}
	return len(fieldpaths) > 0
}

// variantLabel begins the fields by which BuildKit links compressions of a layer.
const variantLabel = "labels.containerd.io/gc.ref.content.blob-"

// keep stores a blob that was made on demand so far.
func (s layerContent) keep(ctx context.Context, made ctdcontent.Info) error {
	w, err := ctdcontent.OpenWriter(ctx, s.Store, ctdcontent.WithRef("keep-"+made.Digest.String()),
		ctdcontent.WithDescriptor(ocispec.Descriptor{Digest: made.Digest, Size: made.Size}))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if err := w.Truncate(0); err != nil {
		return err
	}
	if _, err := s.WriteTo(ctx, made.Digest, w); err != nil {
		return err
	}
	if err := w.Commit(ctx, made.Size, made.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// collector adapts the store's garbage collector to BuildKit's type.
func collector(st *snapshot.Store) func(context.Context) (gc.Stats, error) {
	return func(ctx context.Context) (gc.Stats, error) { return nil, st.GarbageCollect(ctx) }
}

// namespacedImages is an image store that BuildKit calls without a namespace.
type namespacedImages struct{ images.Store }

func inNamespace(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, snapshot.Namespace)
}

// Get implements images.Store.
func (s namespacedImages) Get(ctx context.Context, name string) (images.Image, error) {
	return s.Store.Get(inNamespace(ctx), name)
}

// List implements images.Store.
func (s namespacedImages) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return s.Store.List(inNamespace(ctx), filters...)
}

// Create implements images.Store.
func (s namespacedImages) Create(ctx context.Context, img images.Image) (images.Image, error) {
	return s.Store.Create(inNamespace(ctx), img)
}

// Update implements images.Store.
func (s namespacedImages) Update(ctx context.Context, img images.Image, fieldpaths ...string) (images.Image, error) {
	return s.Store.Update(inNamespace(ctx), img, fieldpaths...)
}

// Delete implements images.Store.
func (s namespacedImages) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	return s.Store.Delete(inNamespace(ctx), name, opts...)
}

// claim takes the mounts of a snapshot out of BuildKit's hands. BuildKit would
// mount a writable overlay in the host's mount table and give the executor a
// bind of it; an executor that puts a claim into the context learns the
// overlay's directories and leaves the mounting to the launcher.
type claim struct{ mounts []mount.Mount }

type claimKey struct{}

func withClaim(ctx context.Context) (context.Context, *claim) {
	c := &claim{}
	return context.WithValue(ctx, claimKey{}, c), c
}

// claims is a snapshotter that answers claims, and tells the guard of writes.
type claims struct {
	snapshots.Snapshotter
	guard *guard
}

// Prepare implements snapshots.Snapshotter.
func (s claims) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	s.guard.touch()
	return s.Snapshotter.Prepare(ctx, key, parent, opts...)
}

// Mounts implements snapshots.Snapshotter.
func (s claims) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	ms, err := s.Snapshotter.Mounts(ctx, key)
	if c, ok := ctx.Value(claimKey{}).(*claim); ok && err == nil {
		c.mounts = slices.Clone(ms)
	}
	return ms, err
}

// rootfsOf translates the mounts of a snapshot; ok is false if the launcher
// could not make them itself.
func rootfsOf(ms []mount.Mount) (r Rootfs, ok bool) {
	if len(ms) != 1 || ms[0].Target != "" {
		return r, false
	}
	switch m := ms[0]; m.Type {
	case "bind":
		return Rootfs{Bind: m.Source}, true
	case "overlay":
		for _, o := range m.Options {
			k, v, _ := strings.Cut(o, "=")
			switch k {
			case "lowerdir":
				r.Lower = strings.Split(v, ":")
			case "upperdir":
				r.Upper = v
			case "workdir":
				r.Work = v
			case "index", "redirect_dir", "metacopy", "ro", "rw":
			default:
				return Rootfs{}, false
			}
		}
		return r, len(r.Lower) > 0
	}
	return r, false
}
