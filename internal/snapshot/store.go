package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/skiff-containers/skiff/internal/content"
)

const (
	// Namespace is where everything in the metadata database lives. The
	// builder uses it too, or it could not share layers.
	Namespace = "skiff"
	// Name is the snapshotter's name in leases and references.
	Name = "overlayfs"
	// GCRef is the label of a blob (a config) that keeps a snapshot.
	GCRef = "containerd.io/gc.ref.snapshot." + Name
)

// Options of [Open].
type Options struct {
	Root string       // directory of everything; made with mode 0700
	Log  *slog.Logger // required
}

// Store is the layers, the blobs and the records of both. Contexts given to
// its parts must carry the namespace: see [Store.Context].
type Store struct {
	DB *metadata.DB
	// Content also yields the blobs of layers that exist only as directories.
	Content *content.Store
	// Snapshotter refuses commits under a digest; see [Store.Layers].
	Snapshotter snapshots.Snapshotter
	Leases      leases.Manager
	Images      images.Store

	root    string
	log     *slog.Logger
	bolt    *bolt.DB
	overlay *overlay
	names   *countedImages

	mu   sync.Mutex
	made map[digest.Digest]map[digest.Digest]int64 // diffID → chainIDs with the size of the archive; guarded by mu
	dirs map[digest.Digest][]string                // chainID → directories, topmost first; guarded by mu
	gen  int                                       // counts collections, which empty dirs; guarded by mu
}

// Open opens or makes the store.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	tmp := filepath.Join(o.Root, "tmp")
	// What a killed process was producing is of no use.
	if err := os.RemoveAll(tmp); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("open the layer store: %w", err)
	}
	if err := os.Chmod(o.Root, 0o700); err != nil {
		return nil, err
	}
	s := &Store{
		root: o.Root, log: o.Log,
		made: map[digest.Digest]map[digest.Digest]int64{}, dirs: map[digest.Digest][]string{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open the layer store in %s: %w", o.Root, err), s.Close())
		}
	}()
	cs, err := content.Open(filepath.Join(o.Root, "content"))
	if err != nil {
		return nil, err
	}
	if s.overlay, err = newOverlay(filepath.Join(o.Root, "layers"), o.Log); err != nil {
		return nil, err
	}
	// A second daemon on the same root must fail, not wait.
	s.bolt, err = bolt.Open(filepath.Join(o.Root, "metadata.db"), 0o600, &bolt.Options{Timeout: time.Second, NoStatistics: true})
	if err != nil {
		return nil, err
	}
	s.DB = metadata.NewDB(s.bolt, cs, map[string]snapshots.Snapshotter{Name: s.overlay})
	if err := s.DB.Init(ctx); err != nil {
		return nil, err
	}
	s.Snapshotter = &guarded{s.DB.Snapshotter(Name)}
	s.Content = content.WithMaker(s.DB.ContentStore(), s, tmp)
	s.Leases = metadata.NewLeaseManager(s.DB)
	s.names = &countedImages{Store: metadata.NewImageStore(s.DB)}
	s.Images = s.names
	return s, s.loadMade(s.Context(ctx))
}

// Context puts the store's namespace into ctx.
func (s *Store) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Tmp is a directory for temporary files, emptied when the store is opened.
func (s *Store) Tmp() string { return filepath.Join(s.root, "tmp") }

// RawContent is the content store without the blobs that are produced on demand.
func (s *Store) RawContent() ctdcontent.Store { return s.DB.ContentStore() }

// GarbageCollect removes blobs, snapshots and ingests that nothing refers to.
func (s *Store) GarbageCollect(ctx context.Context) error {
	_, err := s.DB.GarbageCollect(s.Context(ctx))
	if err == nil {
		// The database knows nothing of a directory whose snapshot a killed
		// process did not get to record.
		err = s.overlay.Cleanup(ctx)
	}
	s.mu.Lock()
	clear(s.dirs)
	s.gen++
	s.mu.Unlock()
	s.names.changes.Add(1) // names that expire go with it
	return err
}

// Close closes the databases.
func (s *Store) Close() error {
	var err error
	if s.overlay != nil {
		err = s.overlay.Close()
	}
	if s.bolt != nil {
		err = errors.Join(err, s.bolt.Close())
	}
	return err
}
