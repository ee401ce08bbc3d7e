package build

import (
	"context"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	ctdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/util/db"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/skiff-containers/skiff/internal/snapshot"
)

// historyNamespace is where BuildKit keeps what it records of finished builds.
const historyNamespace = snapshot.Namespace + "_history"

// history is a store of its own for records of finished builds: their logs and
// provenance. They are worth no sync and shall not make the engine's database,
// which syncs, write a dozen times a build.
type history struct {
	records db.DB // BuildKit's queue
	refs    db.DB // of the blobs
	meta    *ctdmetadata.DB
}

func openHistory(ctx context.Context, root string) (_ *history, err error) {
	h := &history{}
	defer func() {
		if err != nil {
			_ = h.close()
		}
	}()
	open := func(name string) (db.DB, error) {
		// SafeOpen starts anew should the file be damaged.
		return boltutil.SafeOpen(filepath.Join(root, name), 0o600, &bolt.Options{
			NoSync: true, FreelistType: bolt.FreelistMapType, NoFreelistSync: true, Timeout: time.Second,
		})
	}
	if h.records, err = open("history.db"); err != nil {
		return nil, err
	}
	if h.refs, err = open("history-refs.db"); err != nil {
		return nil, err
	}
	cs, err := local.NewStore(filepath.Join(root, "history"))
	if err != nil {
		return nil, err
	}
	h.meta = ctdmetadata.NewDB(h.refs, cs, nil)
	return h, h.meta.Init(ctx)
}

// close closes what BuildKit does not.
func (h *history) close() error {
	var err error
	if h.refs != nil {
		err = h.refs.Close()
	}
	return err
}

func (h *history) collect(ctx context.Context) error {
	_, err := h.meta.GarbageCollect(ctx)
	return err
}

// stores are BuildKit's stores with the history's namespace in the history.
func (h *history) stores(main content.Store, lm leases.Manager) (*ctdsnapshot.Store, *leaseutil.Manager) {
	return ctdsnapshot.NewContentStore(&splitContent{Store: main, history: h.meta.ContentStore()}, snapshot.Namespace),
		leaseutil.WithNamespace(&splitLeases{main: lm, history: ctdmetadata.NewLeaseManager(h.meta)}, snapshot.Namespace)
}

func ofHistory(ctx context.Context) bool {
	ns, _ := namespaces.Namespace(ctx)
	return ns == historyNamespace
}

// splitContent chooses a content store by the context's namespace.
type splitContent struct {
	content.Store
	history content.Store
}

func (s *splitContent) of(ctx context.Context) content.Store {
	if ofHistory(ctx) {
		return s.history
	}
	return s.Store
}

// Info implements content.Store.
func (s *splitContent) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	return s.of(ctx).Info(ctx, d)
}

// Update implements content.Store.
func (s *splitContent) Update(ctx context.Context, i content.Info, fieldpaths ...string) (content.Info, error) {
	return s.of(ctx).Update(ctx, i, fieldpaths...)
}

// Walk implements content.Store.
func (s *splitContent) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	return s.of(ctx).Walk(ctx, fn, filters...)
}

// Delete implements content.Store.
func (s *splitContent) Delete(ctx context.Context, d digest.Digest) error {
	return s.of(ctx).Delete(ctx, d)
}

// ReaderAt implements content.Store.
func (s *splitContent) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	return s.of(ctx).ReaderAt(ctx, d)
}

// Status implements content.Store.
func (s *splitContent) Status(ctx context.Context, ref string) (content.Status, error) {
	return s.of(ctx).Status(ctx, ref)
}

// ListStatuses implements content.Store.
func (s *splitContent) ListStatuses(ctx context.Context, filters ...string) ([]content.Status, error) {
	return s.of(ctx).ListStatuses(ctx, filters...)
}

// Abort implements content.Store.
func (s *splitContent) Abort(ctx context.Context, ref string) error {
	return s.of(ctx).Abort(ctx, ref)
}

// Writer implements content.Store.
func (s *splitContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	return s.of(ctx).Writer(ctx, opts...)
}

// splitLeases chooses a lease manager by the context's namespace.
type splitLeases struct{ main, history leases.Manager }

func (s *splitLeases) of(ctx context.Context) leases.Manager {
	if ofHistory(ctx) {
		return s.history
	}
	return s.main
}

// Create implements leases.Manager.
func (s *splitLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	return s.of(ctx).Create(ctx, opts...)
}

// Delete implements leases.Manager.
func (s *splitLeases) Delete(ctx context.Context, l leases.Lease, opts ...leases.DeleteOpt) error {
	return s.of(ctx).Delete(ctx, l, opts...)
}

// List implements leases.Manager.
func (s *splitLeases) List(ctx context.Context, filters ...string) ([]leases.Lease, error) {
	return s.of(ctx).List(ctx, filters...)
}

// AddResource implements leases.Manager.
func (s *splitLeases) AddResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	return s.of(ctx).AddResource(ctx, l, r)
}

// DeleteResource implements leases.Manager.
func (s *splitLeases) DeleteResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	return s.of(ctx).DeleteResource(ctx, l, r)
}

// ListResources implements leases.Manager.
func (s *splitLeases) ListResources(ctx context.Context, l leases.Lease) ([]leases.Resource, error) {
	return s.of(ctx).ListResources(ctx, l)
}

var (
	_ content.Store  = (*splitContent)(nil)
	_ leases.Manager = (*splitLeases)(nil)
)
