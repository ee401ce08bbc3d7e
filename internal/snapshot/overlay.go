package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// labelDir is added to every Info that is asked for under withDirs: the name of
// the directory that holds the snapshot's own changes. Computed, never stored.
const labelDir = "skiff.dir"

// bucketDirs maps a snapshot's id to the name of its directory. It lives in the
// bookkeeping database of the snapshots, so that both change in one transaction.
var bucketDirs = []byte("skiff-dirs")

// overlay is a snapshotter on overlayfs. It differs from containerd's in that
// the directory of a snapshot may be that of another one: what a directory is
// kept for is decided by looking for any snapshot that has it.
type overlay struct {
	root    string
	ms      *storage.MetaStore
	options []string
	log     *slog.Logger

	mu      sync.Mutex
	pending map[string]bool // directories made and not yet recorded; guarded by mu
}

var _ snapshots.Cleaner = (*overlay)(nil)

func newOverlay(root string, log *slog.Logger) (*overlay, error) {
	if err := os.MkdirAll(filepath.Join(root, "dirs"), 0o700); err != nil {
		return nil, err
	}
	if ok, err := fs.SupportsDType(root); err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("the file system of %s has no d_type, which overlayfs needs (xfs: make it with ftype=1)", root)
	}
	ms, err := storage.NewMetaStore(filepath.Join(root, "snapshots.db"))
	if err != nil {
		return nil, err
	}
	return &overlay{root: root, ms: ms, options: mountOptions(), log: log, pending: map[string]bool{}}, nil
}

// mountOptions keeps upper directories such that a layer can be made from them
// (no redirects, no metadata-only copies), whatever the kernel's defaults are.
func mountOptions() []string {
	var out []string
	on := func(p string) bool {
		b, err := os.ReadFile("/sys/module/overlay/parameters/" + p)
		return err == nil && len(b) > 0 && b[0] == 'Y'
	}
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		out = append(out, "index=off")
	}
	if on("redirect_dir") {
		out = append(out, "redirect_dir=off")
	}
	if on("metacopy") {
		out = append(out, "metacopy=off")
	}
	return out
}

func (o *overlay) upper(dir string) string { return filepath.Join(o.root, "dirs", dir, "fs") }
func (o *overlay) work(dir string) string  { return filepath.Join(o.root, "dirs", dir, "work") }

// txn runs f in a transaction of the bookkeeping database.
func (o *overlay) txn(ctx context.Context, writable bool, f func(ctx context.Context, tx *bolt.Tx) error) error {
	ctx, t, err := o.ms.TransactionContext(ctx, writable)
	if err != nil {
		return err
	}
	tx, ok := t.(*bolt.Tx)
	if !ok {
		return errors.Join(fmt.Errorf("the snapshot database is no bbolt: %T", t), t.Rollback())
	}
	if err := f(ctx, tx); err != nil || !writable {
		return errors.Join(err, t.Rollback())
	}
	return t.Commit()
}

func dirOf(tx *bolt.Tx, id string) string {
	if b := tx.Bucket(bucketDirs); b != nil {
		if v := b.Get([]byte(id)); v != nil {
			return string(v)
		}
	}
	return "missing-" + id // a path that is not there fails where it is used
}

func setDir(tx *bolt.Tx, id, dir string) error {
	b, err := tx.CreateBucketIfNotExists(bucketDirs)
	if err != nil {
		return err
	}
	return b.Put([]byte(id), []byte(dir))
}

func (o *overlay) info(ctx context.Context, tx *bolt.Tx, key string) (snapshots.Info, error) {
	id, info, _, err := storage.GetInfo(ctx, key)
	if err != nil || !wantsDirs(ctx) {
		return info, err
	}
	if info.Labels == nil {
		info.Labels = map[string]string{}
	}
	info.Labels[labelDir] = dirOf(tx, id)
	return info, nil
}

// Stat implements snapshots.Snapshotter.
func (o *overlay) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	err = o.txn(ctx, false, func(ctx context.Context, tx *bolt.Tx) error {
		info, err = o.info(ctx, tx, key)
		return err
	})
	return info, err
}

// Update implements snapshots.Snapshotter.
func (o *overlay) Update(ctx context.Context, in snapshots.Info, fieldpaths ...string) (info snapshots.Info, err error) {
	err = o.txn(ctx, true, func(ctx context.Context, tx *bolt.Tx) error {
		if _, err := storage.UpdateInfo(ctx, in, fieldpaths...); err != nil {
			return err
		}
		info, err = o.info(ctx, tx, in.Name)
		return err
	})
	return info, err
}

// Usage implements snapshots.Snapshotter. A directory that several snapshots
// share is counted for each.
func (o *overlay) Usage(ctx context.Context, key string) (u snapshots.Usage, err error) {
	var dir string
	err = o.txn(ctx, false, func(ctx context.Context, tx *bolt.Tx) error {
		id, info, usage, err := storage.GetInfo(ctx, key)
		if err != nil {
			return err
		}
		u = usage
		if info.Kind == snapshots.KindActive {
			dir = dirOf(tx, id)
		}
		return nil
	})
	if err != nil || dir == "" {
		return u, err
	}
	du, err := fs.DiskUsage(ctx, o.upper(dir))
	return snapshots.Usage(du), err
}

// Prepare implements snapshots.Snapshotter.
func (o *overlay) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return o.create(ctx, snapshots.KindActive, key, parent, opts)
}

// View implements snapshots.Snapshotter.
func (o *overlay) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return o.create(ctx, snapshots.KindView, key, parent, opts)
}

func (o *overlay) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) (ms []mount.Mount, err error) {
	dir := adoptedDir(ctx)
	adopted := dir != ""
	if !adopted {
		// Made before the transaction: directories cost more than the record.
		if dir, err = o.mkdirs(kind); err != nil {
			return nil, err
		}
		defer o.settle(dir, &err)
	}
	err = o.txn(ctx, true, func(ctx context.Context, tx *bolt.Tx) error {
		if adopted {
			if used, err := usedDirs(ctx, tx); err != nil {
				return err
			} else if !used[dir] {
				return fmt.Errorf("directory %s of a layer: %w", dir, errdefs.ErrNotFound)
			}
		}
		s, err := storage.CreateSnapshot(ctx, kind, key, parent, opts...)
		if err != nil {
			return err
		}
		if err := setDir(tx, s.ID, dir); err != nil {
			return err
		}
		if !adopted && len(s.ParentIDs) > 0 {
			if err := o.chownAs(dir, dirOf(tx, s.ParentIDs[0])); err != nil {
				return err
			}
		}
		ms = o.mounts(tx, s)
		return nil
	})
	return ms, err
}

// mkdirs makes the directories of a snapshot under a name never used before,
// which Cleanup leaves alone until settle.
func (o *overlay) mkdirs(kind snapshots.Kind) (string, error) {
	name := strings.ToLower(rand.Text()[:12])
	o.mu.Lock()
	o.pending[name] = true
	o.mu.Unlock()
	path := filepath.Join(o.root, "dirs", name)
	err := os.Mkdir(path, 0o700)
	if err == nil {
		err = os.Mkdir(o.upper(name), 0o755)
	}
	if err == nil {
		err = os.Chmod(o.upper(name), 0o755) // whatever the umask
	}
	if err == nil && kind == snapshots.KindActive {
		err = os.Mkdir(o.work(name), 0o711)
	}
	if err != nil {
		o.settle(name, &err)
		return "", err
	}
	return name, nil
}

// settle ends the protection of a new directory, and removes it if *err tells
// that no snapshot has it.
func (o *overlay) settle(name string, err *error) {
	if *err != nil {
		_ = os.RemoveAll(filepath.Join(o.root, "dirs", name))
	}
	o.mu.Lock()
	delete(o.pending, name)
	o.mu.Unlock()
}

// chownAs gives the root of dir the owner that the parent's has.
func (o *overlay) chownAs(dir, parent string) error {
	st, err := os.Stat(o.upper(parent))
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && (sys.Uid != 0 || sys.Gid != 0) {
		return os.Lchown(o.upper(dir), int(sys.Uid), int(sys.Gid))
	}
	return nil
}

// Mounts implements snapshots.Snapshotter.
func (o *overlay) Mounts(ctx context.Context, key string) (ms []mount.Mount, err error) {
	err = o.txn(ctx, false, func(ctx context.Context, tx *bolt.Tx) error {
		s, err := storage.GetSnapshot(ctx, key)
		if err != nil {
			return err
		}
		ms = o.mounts(tx, s)
		return nil
	})
	return ms, err
}

func (o *overlay) mounts(tx *bolt.Tx, s storage.Snapshot) []mount.Mount {
	own := dirOf(tx, s.ID)
	bind := func(dir, mode string) []mount.Mount {
		return []mount.Mount{{Type: "bind", Source: o.upper(dir), Options: []string{mode, "rbind"}}}
	}
	lowers := make([]string, len(s.ParentIDs))
	for i, p := range s.ParentIDs {
		lowers[i] = o.upper(dirOf(tx, p))
	}
	var options []string
	switch {
	case len(lowers) == 0 && s.Kind == snapshots.KindView:
		return bind(own, "ro")
	case len(lowers) == 0:
		return bind(own, "rw")
	case s.Kind == snapshots.KindActive:
		options = []string{"workdir=" + o.work(own), "upperdir=" + o.upper(own)}
	case len(lowers) == 1:
		return bind(dirOf(tx, s.ParentIDs[0]), "ro")
	}
	options = append(options, "lowerdir="+strings.Join(lowers, ":"))
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append(options, o.options...)}}
}

// Commit implements snapshots.Snapshotter.
func (o *overlay) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	usage, known := knownUsage(ctx)
	if !known {
		// Walk the tree before the write transaction, not under its lock.
		var err error
		if usage, err = o.Usage(ctx, key); err != nil {
			return err
		}
	}
	return o.txn(ctx, true, func(ctx context.Context, _ *bolt.Tx) error {
		_, err := storage.CommitActive(ctx, key, name, usage, opts...)
		return err
	})
}

// Remove implements snapshots.Snapshotter. The directory goes in Cleanup.
func (o *overlay) Remove(ctx context.Context, key string) error {
	return o.txn(ctx, true, func(ctx context.Context, tx *bolt.Tx) error {
		id, _, err := storage.Remove(ctx, key)
		if err != nil {
			return err
		}
		if b := tx.Bucket(bucketDirs); b != nil {
			return b.Delete([]byte(id))
		}
		return nil
	})
}

// Walk implements snapshots.Snapshotter.
func (o *overlay) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return o.txn(ctx, false, func(ctx context.Context, tx *bolt.Tx) error {
		return storage.WalkInfo(ctx, func(ctx context.Context, info snapshots.Info) error {
			info, err := o.info(ctx, tx, info.Name)
			if err != nil {
				return err
			}
			return fn(ctx, info)
		}, filters...)
	})
}

// usedDirs is the set of directories that some snapshot has.
func usedDirs(ctx context.Context, tx *bolt.Tx) (map[string]bool, error) {
	ids, err := storage.IDMap(ctx)
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool, len(ids))
	for id := range ids {
		used[dirOf(tx, id)] = true
	}
	return used, nil
}

// Cleanup removes the directories that no snapshot has. Names are never used
// again, so that the deletion needs no lock.
func (o *overlay) Cleanup(ctx context.Context) error {
	var gone []string
	err := o.txn(ctx, true, func(ctx context.Context, tx *bolt.Tx) error {
		used, err := usedDirs(ctx, tx)
		if err != nil && !errdefs.IsNotFound(err) { // not found: no snapshot was ever made
			return err
		}
		ents, err := os.ReadDir(filepath.Join(o.root, "dirs"))
		if err != nil {
			return err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, e := range ents {
			if !used[e.Name()] && !o.pending[e.Name()] {
				gone = append(gone, filepath.Join(o.root, "dirs", e.Name()))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range gone {
		if err := os.RemoveAll(p); err != nil {
			o.log.WarnContext(ctx, "cannot remove a layer's directory", "path", p, "error", err)
		}
	}
	return nil
}

// Close implements snapshots.Snapshotter.
func (o *overlay) Close() error { return o.ms.Close() }
