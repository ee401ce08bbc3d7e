package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strconv"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/layer"
)

// Labels of a snapshot whose archive is not kept, but can be made of it.
const (
	labelDiffID = "skiff.layer.diffid"
	labelSize   = "skiff.layer.size"
)

// Layer is a layer on top of its parents.
type Layer struct {
	ChainID digest.Digest // names the snapshot
	DiffID  digest.Digest // of the uncompressed archive
	Size    int64         // of the uncompressed archive
}

// ChainID is the name of the layer diffID on top of parent ("" for none).
func ChainID(parent, diffID digest.Digest) digest.Digest {
	if parent == "" {
		return diffID
	}
	return identity.ChainID([]digest.Digest{parent, diffID})
}

// Adopt makes the committed snapshot from, which may have any name, a layer on
// top of the layer parent ("" for none): the new snapshot, named by the
// chainID, has the same directory. Nothing is copied; the directory is read
// once for the diffID. Adopting again is cheap and gives the same answer. ctx
// should carry a lease, or the layer may be collected before an image refers to it.
func (s *Store) Adopt(ctx context.Context, from string, parent digest.Digest) (Layer, error) {
	ctx = s.Context(ctx)
	sn, _ := s.ForBuildKit()
	info, err := sn.Stat(withDirs(ctx), from)
	if err != nil {
		return Layer{}, fmt.Errorf("adopt %s: %w", from, err)
	}
	if info.Kind != snapshots.KindCommitted {
		return Layer{}, fmt.Errorf("adopt %s: snapshot is not committed: %w", from, errdefs.ErrFailedPrecondition)
	}
	dir := info.Labels[labelDir]
	h := sha256.New()
	n := &counting{w: h}
	if err := layer.Write(ctx, n, s.overlay.upper(dir)); err != nil {
		return Layer{}, fmt.Errorf("adopt %s: %w", from, err)
	}
	l := Layer{DiffID: digest.NewDigest(digest.SHA256, h), Size: n.n}
	l.ChainID = ChainID(parent, l.DiffID)
	usage, err := sn.Usage(ctx, from)
	if err != nil {
		return Layer{}, fmt.Errorf("adopt %s: %w", from, err)
	}
	ctx = withUsage(ctx, usage)
	err = s.commitAs(withAdoptedDir(ctx, dir), l, parent)
	if err != nil {
		return Layer{}, fmt.Errorf("adopt %s as %s: %w", from, l.ChainID, err)
	}
	return l, nil
}

// commitAs makes the snapshot l.ChainID with the directory that ctx names;
// the caller vouches for the diffID. One that exists is kept.
func (s *Store) commitAs(ctx context.Context, l Layer, parent digest.Digest) error {
	if s.HasLayer(ctx, l.ChainID) {
		return s.markMade(ctx, l)
	}
	key := "adopt-" + ids.New()
	if _, err := s.Snapshotter.Prepare(ctx, key, parent.String()); err != nil {
		return err
	}
	err := s.Snapshotter.Commit(withProof(ctx, l.ChainID), l.ChainID.String(), key, snapshots.WithLabels(map[string]string{
		labelDiffID: l.DiffID.String(), labelSize: strconv.FormatInt(l.Size, 10),
	}))
	if err != nil {
		_ = s.Snapshotter.Remove(context.WithoutCancel(ctx), key)
		if errdefs.IsAlreadyExists(err) {
			return s.markMade(ctx, l)
		}
		return err
	}
	s.remember(l)
	return nil
}

// lease adds the layer to the lease of ctx, if there is one.
func (s *Store) lease(ctx context.Context, chainID digest.Digest) error {
	id, ok := leases.FromContext(ctx)
	if !ok {
		return nil
	}
	return s.Leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: chainID.String(), Type: "snapshots/" + Name})
}

// LayerDirs returns the directories of the layer and those below it, topmost
// first: the lowerdirs of an overlay. Answers are cached: a container's start
// reads no database.
func (s *Store) LayerDirs(ctx context.Context, chainID digest.Digest) ([]string, error) {
	s.mu.Lock()
	dirs, ok := s.dirs[chainID]
	gen := s.gen
	s.mu.Unlock()
	if ok {
		return dirs, nil
	}
	ctx = s.Context(ctx)
	for name := chainID.String(); name != ""; {
		info, err := s.Snapshotter.Stat(withDirs(ctx), name)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		if info.Kind != snapshots.KindCommitted {
			return nil, fmt.Errorf("layer %s is not committed: %w", name, errdefs.ErrFailedPrecondition)
		}
		dirs = append(dirs, s.overlay.upper(info.Labels[labelDir]))
		name = info.Parent
	}
	s.mu.Lock()
	if gen == s.gen { // else what was read may be collected already
		s.dirs[chainID] = dirs
	}
	s.mu.Unlock()
	return dirs, nil
}

func (s *Store) remember(l Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made[l.DiffID] == nil {
		s.made[l.DiffID] = map[digest.Digest]int64{}
	}
	s.made[l.DiffID][l.ChainID] = l.Size
}

func (s *Store) loadMade(ctx context.Context) error {
	return s.Snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		l := Layer{ChainID: digest.Digest(info.Name), DiffID: digest.Digest(info.Labels[labelDiffID])}
		if l.DiffID == "" || info.Kind != snapshots.KindCommitted {
			return nil
		}
		l.Size, _ = strconv.ParseInt(info.Labels[labelSize], 10, 64)
		s.remember(l)
		return nil
	})
}

// madeIn finds a layer that still exists and has the diffID, and leases it.
func (s *Store) madeIn(ctx context.Context, diffID digest.Digest) (dir string, size int64, ok bool) {
	s.mu.Lock()
	chains := make(map[digest.Digest]int64, len(s.made[diffID]))
	for c, n := range s.made[diffID] {
		chains[c] = n
	}
	s.mu.Unlock()
	ctx = s.Context(ctx)
	for c, n := range chains {
		info, err := s.Snapshotter.Stat(withDirs(ctx), c.String())
		if _, leased := leases.FromContext(ctx); leased && err == nil {
			// As in HasLayer: looked for again, since a collection may have been between.
			if err = s.lease(ctx, c); err != nil {
				continue
			}
			info, err = s.Snapshotter.Stat(withDirs(ctx), c.String())
		}
		if err == nil && info.Labels[labelDiffID] == diffID.String() {
			return s.overlay.upper(info.Labels[labelDir]), n, true
		}
		if errdefs.IsNotFound(err) {
			s.mu.Lock()
			delete(s.made[diffID], c)
			s.mu.Unlock()
		}
	}
	return "", 0, false
}

// Made implements content.Maker.
func (s *Store) Made(ctx context.Context, diffID digest.Digest) (int64, bool) {
	_, size, ok := s.madeIn(ctx, diffID)
	return size, ok
}

// Make implements content.Maker.
func (s *Store) Make(ctx context.Context, diffID digest.Digest, w io.Writer) error {
	dir, _, ok := s.madeIn(ctx, diffID)
	if !ok {
		return fmt.Errorf("layer %s: %w", diffID, errdefs.ErrNotFound)
	}
	return layer.Write(ctx, w, dir)
}

type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
