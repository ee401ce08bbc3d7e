//go:build root

package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	contentsuite "github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/errdefs"
	bksnapshot "github.com/moby/buildkit/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/content"
	"github.com/skiff-containers/skiff/internal/layer"
)

func TestSnapshotterSuite(t *testing.T) {
	testsuite.SnapshotterSuite(t, "overlayfs", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		o, err := newOverlay(root, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, nil, err
		}
		return o, o.Close, nil
	})
}

func TestSnapshotterSuiteThroughTheDatabase(t *testing.T) {
	testsuite.SnapshotterSuite(t, "overlayfs", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		s, err := Open(ctx, Options{Root: root, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, nil, err
		}
		sn, _ := s.ForBuildKit()
		return sn, s.Close, nil
	})
}

func TestContentSuite(t *testing.T) {
	contentsuite.ContentSuite(t, "store", func(ctx context.Context, root string) (context.Context, ctdcontent.Store, func() error, error) {
		s, err := Open(ctx, Options{Root: root, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, nil, nil, err
		}
		return s.Context(ctx), s.Content, s.Close, nil
	})
}

func openTest(t *testing.T, root string) (context.Context, *Store) {
	t.Helper()
	s, err := Open(t.Context(), Options{Root: root, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.Context(t.Context()), s
}

var keep = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "2026-01-01T00:00:00Z"})

// build makes a committed snapshot with a name of its own, as BuildKit does.
func build(t *testing.T, ctx context.Context, s *Store, name, parent string, write func(root string)) {
	t.Helper()
	sn, _ := s.ForBuildKit()
	ms, err := sn.Prepare(ctx, name+"-rw", parent, keep)
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.WithTempMount(ctx, ms, func(root string) error { write(root); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := sn.Commit(ctx, name, name+"-rw", keep); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func diskBytes(t *testing.T, root string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(root, "layers", "dirs"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			fi, err := d.Info()
			if err != nil {
				return err
			}
			n += fi.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRunAndBuildShareLayersOnDisk(t *testing.T) {
	root := t.TempDir()
	ctx, s := openTest(t, root)
	big := strings.Repeat("x", 1<<20)
	build(t, ctx, s, "base", "", func(r string) { write(t, r+"/a", big); write(t, r+"/gone", "") })
	build(t, ctx, s, "step", "base", func(r string) { write(t, r+"/b", big); _ = os.Remove(r + "/gone") })
	before := diskBytes(t, root)
	if before != 2<<20 {
		t.Fatalf("two layers of 1 MiB take %d bytes", before)
	}

	l1, err := s.Adopt(ctx, "base", "")
	if err != nil {
		t.Fatal(err)
	}
	l2, err := s.Adopt(ctx, "step", l1.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Adopt(ctx, "step", l1.ChainID); err != nil || again != l2 {
		t.Errorf("second adoption: %v %v", again, err)
	}
	if after := diskBytes(t, root); after != before {
		t.Errorf("adoption took %d bytes", after-before)
	}

	// The builder finds them under its names for the same chain.
	sn, _ := s.ForBuildKit()
	name := bksnapshot.LayerSnapshotID(l2.ChainID)
	if info, err := sn.Stat(ctx, name); err != nil || info.Name != name {
		t.Errorf("stat under BuildKit's name: %+v %v", info, err)
	}
	build(t, ctx, s, "next", name, func(r string) {
		if b, err := os.ReadFile(r + "/b"); err != nil || string(b) != big {
			t.Errorf("child of an adopted layer: %v", err)
		}
		if _, err := os.Stat(r + "/gone"); err == nil {
			t.Error("a removed file is back")
		}
	})
	dirs, err := s.LayerDirs(ctx, l2.ChainID)
	if err != nil || len(dirs) != 2 {
		t.Fatalf("dirs %v, %v", dirs, err)
	}
	if _, err := os.Stat(dirs[0] + "/b"); err != nil {
		t.Error("topmost directory is not first")
	}

	// The archive is produced from the directory, also after the builder's
	// own snapshot has been collected, also after a restart.
	if err := sn.Remove(ctx, "next"); err != nil {
		t.Fatal(err)
	}
	if err := sn.Remove(ctx, "step"); err != nil {
		t.Fatal(err)
	}
	if err := s.overlay.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	ctx, s = openTest(t, root)
	b, err := content.ReadBlob(ctx, s.Content, ocispec.Descriptor{Digest: l2.DiffID}, 1<<30)
	if err != nil || int64(len(b)) != l2.Size || digest.FromBytes(b) != l2.DiffID {
		t.Errorf("archive of %d bytes, want %d: %v", len(b), l2.Size, err)
	}
	if !bytes.Contains(b, []byte(".wh.gone")) {
		t.Error("no whiteout in the archive")
	}
	if info, err := s.Content.Info(ctx, l2.DiffID); err != nil || info.Size != l2.Size {
		t.Errorf("info %+v %v", info, err)
	}
	if err := os.WriteFile(dirs[0]+"/b", []byte("tampered"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: l2.DiffID}); err == nil {
		t.Error("a changed directory gave an archive")
	}

	// Who asked for the layer's archive under a lease still finds it after a
	// collection.
	lease, err := s.Leases.Create(ctx, leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Made(leases.WithLease(ctx, lease.ID), l2.DiffID); !ok {
		t.Fatal("the layer is not there")
	}
	if err := s.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Made(ctx, l2.DiffID); !ok {
		t.Error("a leased layer was collected")
	}
	if err := s.Leases.Delete(ctx, lease); err != nil {
		t.Fatal(err)
	}

	// With no name left, the directory goes.
	if err := s.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshotter.Stat(ctx, l2.ChainID.String()); !errdefs.IsNotFound(err) {
		t.Errorf("unreferenced layer: %v", err)
	}
	if n := diskBytes(t, root); n != 1<<20 { // "base", which build keeps
		t.Errorf("%d bytes left", n)
	}
	if ents, _ := os.ReadDir(s.Tmp()); len(ents) != 0 {
		t.Errorf("temporary files left: %v", ents)
	}
}

func TestOnlyVerifiedContentGetsAChainID(t *testing.T) {
	ctx, s := openTest(t, t.TempDir())
	sn, _ := s.ForBuildKit()
	id := digest.FromString("x")
	if _, err := sn.Prepare(ctx, "k", "", keep); err != nil {
		t.Fatal(err)
	}
	if err := sn.Commit(ctx, id.String(), "k"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("unverified commit: %v", err)
	}
	if err := sn.Commit(ctx, bksnapshot.LayerSnapshotID(id), "k"); err != nil {
		t.Errorf("BuildKit's verified commit: %v", err)
	}
	if _, err := s.Snapshotter.Stat(ctx, id.String()); err != nil {
		t.Errorf("not found under the chainID: %v", err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	ctx, s := openTest(t, t.TempDir())
	if _, err := s.Adopt(ctx, "nothing", ""); !errdefs.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
	sn, _ := s.ForBuildKit()
	if _, err := sn.Prepare(ctx, "active", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Adopt(ctx, "active", ""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("active: %v", err)
	}
}

func TestArchiveIsAFunctionOfTheTree(t *testing.T) {
	ctx, s := openTest(t, t.TempDir())
	build(t, ctx, s, "one", "", func(r string) {
		_ = os.Mkdir(r+"/d", 0o750)
		write(t, r+"/d/f", "text")
		_ = os.Link(r+"/d/f", r+"/d/g")
		_ = os.Symlink("f", r+"/d/l")
	})
	info, _ := s.Snapshotter.Stat(withDirs(ctx), "one")
	var sums [2]digest.Digest
	for i := range sums {
		h := sha256.New()
		if err := layer.Write(ctx, h, s.overlay.upper(info.Labels[labelDir])); err != nil {
			t.Fatal(err)
		}
		sums[i] = digest.NewDigest(digest.SHA256, h)
	}
	if sums[0] != sums[1] {
		t.Error("two archives of one tree differ")
	}
}

func TestSecondOpenFails(t *testing.T) {
	root := t.TempDir()
	openTest(t, root)
	if s, err := Open(t.Context(), Options{Root: root, Log: slog.New(slog.DiscardHandler)}); err == nil {
		_ = s.Close()
		t.Error("two stores on one directory")
	}
}
