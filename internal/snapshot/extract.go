package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/layer"
)

// Extracted is a layer's content in a directory, not yet a layer: it has no
// parent and no name. End it with [Store.CommitLayer], [Store.CommitMade] or
// Discard.
type Extracted struct {
	DiffID digest.Digest // of the archive that was read
	Size   int64         // of the archive that was read
	Bytes  int64         // of the files in it

	s    *Store
	key  string
	dir  string
	what layer.Applied
}

// Extract unpacks an uncompressed layer archive, needing nothing of the layers
// below. It reads r to its end and hashes what it reads. ctx should carry a lease.
func (s *Store) Extract(ctx context.Context, r io.Reader) (_ *Extracted, err error) {
	ctx = s.Context(ctx)
	key := "extract-" + ids.New()
	ms, err := s.Snapshotter.Prepare(ctx, key, "")
	if err != nil {
		return nil, fmt.Errorf("prepare a layer: %w", err)
	}
	ex := &Extracted{s: s, key: key, dir: ms[0].Source}
	defer func() {
		if err != nil {
			ex.Discard(ctx)
		}
	}()
	h := sha256.New()
	n := &counting{w: h}
	ex.what, err = layer.Apply(ctx, ex.dir, io.TeeReader(r, n), layer.Limits{})
	if err != nil {
		return nil, err
	}
	ex.DiffID, ex.Size, ex.Bytes = digest.NewDigest(digest.SHA256, h), n.n, ex.what.Bytes
	return ex, nil
}

// Discard removes what was extracted. After a commit it does nothing.
func (ex *Extracted) Discard(ctx context.Context) {
	if ex.key == "" {
		return
	}
	ctx = ex.s.Context(context.WithoutCancel(ctx))
	if err := ex.s.Snapshotter.Remove(ctx, ex.key); err != nil && !errdefs.IsNotFound(err) {
		ex.s.log.WarnContext(ctx, "cannot discard an extracted layer", "key", ex.key, "error", err)
	}
	ex.key = ""
	// The record is collected later; the bytes should go at once, above all
	// when the disk is full.
	if err := os.RemoveAll(ex.dir); err != nil {
		ex.s.log.WarnContext(ctx, "cannot discard an extracted layer", "path", ex.dir, "error", err)
	}
}

// HasLayer reports whether the layer is there, and adds it to the lease of ctx.
func (s *Store) HasLayer(ctx context.Context, chainID digest.Digest) bool {
	ctx = s.Context(ctx)
	if _, err := s.Snapshotter.Stat(ctx, chainID.String()); err != nil {
		return false
	}
	// Leased first and then looked for again: a collection between the two
	// cannot take it any more.
	if err := s.lease(ctx, chainID); err != nil {
		return false
	}
	_, err := s.Snapshotter.Stat(ctx, chainID.String())
	return err == nil
}

// CommitLayer makes ex the layer diffID on top of parent ("" for none). It is
// refused if the archive that was read is another one. The archive itself must
// be kept in the content store by the caller.
func (s *Store) CommitLayer(ctx context.Context, ex *Extracted, parent, diffID digest.Digest) (Layer, error) {
	if ex.DiffID != diffID {
		return Layer{}, fmt.Errorf("the layer's archive is %s, not %s as its image says: %w", ex.DiffID, diffID, errdefs.ErrFailedPrecondition)
	}
	return s.commitExtracted(ctx, ex, Layer{DiffID: diffID, Size: ex.Size}, parent, nil)
}

// CommitMade makes ex a layer on top of parent whose archive is not kept but
// made of the directory when asked for; its diffID is that archive's.
func (s *Store) CommitMade(ctx context.Context, ex *Extracted, parent digest.Digest) (Layer, error) {
	if err := s.inherit(ctx, ex, parent); err != nil {
		return Layer{}, err
	}
	h := sha256.New()
	n := &counting{w: h}
	if err := layer.Write(ctx, n, ex.dir); err != nil {
		return Layer{}, err
	}
	l := Layer{DiffID: digest.NewDigest(digest.SHA256, h), Size: n.n}
	l, err := s.commitExtracted(ctx, ex, l, parent, map[string]string{
		labelDiffID: l.DiffID.String(), labelSize: strconv.FormatInt(l.Size, 10),
	})
	if err == nil {
		err = s.markMade(ctx, l)
	}
	return l, err
}

func (s *Store) inherit(ctx context.Context, ex *Extracted, parent digest.Digest) error {
	if parent == "" || len(ex.what.Implicit) == 0 {
		return nil
	}
	lowers, err := s.LayerDirs(ctx, parent)
	if err != nil {
		return err
	}
	return layer.Inherit(ex.dir, ex.what.Implicit, lowers)
}

func (s *Store) commitExtracted(ctx context.Context, ex *Extracted, l Layer, parent digest.Digest, labels map[string]string) (Layer, error) {
	ctx = s.Context(ctx)
	l.ChainID = ChainID(parent, l.DiffID)
	if s.HasLayer(ctx, l.ChainID) {
		ex.Discard(ctx)
		return l, nil
	}
	if err := s.inherit(ctx, ex, parent); err != nil {
		return Layer{}, err
	}
	opts := []snapshots.Opt{snapshots.WithLabels(labels)}
	if parent != "" {
		opts = append(opts, snapshots.WithParent(parent.String()))
	}
	ctx = withUsage(withProof(ctx, l.ChainID), snapshots.Usage{Size: ex.Bytes, Inodes: ex.what.Entries})
	err := s.Snapshotter.Commit(ctx, l.ChainID.String(), ex.key, opts...)
	if errdefs.IsAlreadyExists(err) {
		ex.Discard(ctx)
		return l, s.lease(ctx, l.ChainID)
	}
	if err != nil {
		return Layer{}, fmt.Errorf("commit layer %s: %w", l.ChainID, err)
	}
	ex.key = ""
	return l, nil
}

// markMade records that the layer's archive can be made, also if the layer was
// there before under the promise that its archive is kept.
func (s *Store) markMade(ctx context.Context, l Layer) error {
	ctx = s.Context(ctx)
	info, err := s.Snapshotter.Stat(ctx, l.ChainID.String())
	if err != nil {
		return err
	}
	if info.Labels[labelDiffID] == "" {
		info.Labels = map[string]string{labelDiffID: l.DiffID.String(), labelSize: strconv.FormatInt(l.Size, 10)}
		_, err := s.Snapshotter.Update(ctx, info, "labels."+labelDiffID, "labels."+labelSize)
		if err != nil {
			return err
		}
	}
	s.remember(l)
	return nil
}

// LayerSize is the size of the layer's files, without the layers below.
func (s *Store) LayerSize(ctx context.Context, chainID digest.Digest) (int64, error) {
	u, err := s.Snapshotter.Usage(s.Context(ctx), chainID.String())
	return u.Size, err
}

// Sync writes everything of the store to the disk: one call before an image is
// acknowledged, instead of one a file.
func (s *Store) Sync() error {
	d, err := os.Open(s.root)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", s.root, err)
	}
	return nil
}

// TryMade finds out whether the layer's directory gives back its archive, so
// that this need not be kept, and if so records it.
func (s *Store) TryMade(ctx context.Context, chainID, diffID digest.Digest) error {
	ctx = s.Context(ctx)
	info, err := s.Snapshotter.Stat(withDirs(ctx), chainID.String())
	if err != nil {
		return err
	}
	if info.Labels[labelDiffID] != "" {
		return nil
	}
	h := sha256.New()
	n := &counting{w: h}
	if err := layer.Write(ctx, n, s.overlay.upper(info.Labels[labelDir])); err != nil {
		return err
	}
	if digest.NewDigest(digest.SHA256, h) != diffID {
		return nil
	}
	return s.markMade(ctx, Layer{ChainID: chainID, DiffID: diffID, Size: n.n})
}
