// Package content keeps blobs by their digest. Blobs of layers that were made
// here (built, committed, imported) are not kept: their bytes are a function of
// the layer's directory, and [Store] produces them when they are asked for.
package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Open opens the store of files under dir.
func Open(dir string) (content.Store, error) {
	// The collector stops at a missing directory of blobs, before it gets to
	// what an interrupted download left.
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return nil, err
	}
	if err := dropTorn(filepath.Join(dir, "ingest")); err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	return local.NewStore(dir)
}

// dropTorn removes unfinished blobs without a name or a time: a daemon was
// killed while it began them. Nobody could go on with them, and the collector
// would stumble over them for ever.
func dropTorn(ingest string) error {
	ents, err := os.ReadDir(ingest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range ents {
		dir := filepath.Join(ingest, e.Name())
		for _, f := range []string{"ref", "startedat", "updatedat", "data"} {
			st, err := os.Stat(filepath.Join(dir, f))
			if err == nil && (st.Size() > 0 || f == "data") {
				continue
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// Maker produces the blobs that are not kept.
type Maker interface {
	// Made tells whether the blob can be produced, and its size.
	Made(ctx context.Context, d digest.Digest) (size int64, ok bool)
	// Make writes the blob's bytes; the caller verifies them.
	Make(ctx context.Context, d digest.Digest, w io.Writer) error
}

// Store is a content store whose readers also see what a Maker can produce.
type Store struct {
	content.Store
	maker Maker
	tmp   string
}

var _ content.Store = (*Store)(nil)

// WithMaker wraps cs. Blobs are produced into files under tmp, removed on Close.
func WithMaker(cs content.Store, m Maker, tmp string) *Store {
	return &Store{Store: cs, maker: m, tmp: tmp}
}

// Info implements content.InfoProvider.
func (s *Store) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	info, err := s.Store.Info(ctx, d)
	if errdefs.IsNotFound(err) {
		if size, ok := s.maker.Made(ctx, d); ok {
			return content.Info{Digest: d, Size: size}, nil
		}
	}
	return info, err
}

// ReaderAt implements content.Provider.
func (s *Store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := s.Store.ReaderAt(ctx, desc)
	if !errdefs.IsNotFound(err) {
		return r, err
	}
	if _, ok := s.maker.Made(ctx, desc.Digest); !ok {
		return nil, err
	}
	return s.materialise(ctx, desc.Digest)
}

// Stored reports whether the blob's bytes are kept as such.
func (s *Store) Stored(ctx context.Context, d digest.Digest) bool {
	_, err := s.Store.Info(ctx, d)
	return err == nil
}

// WriteTo streams the blob, kept or produced, and verifies what it produced.
func (s *Store) WriteTo(ctx context.Context, d digest.Digest, w io.Writer) (int64, error) {
	r, err := s.Store.ReaderAt(ctx, ocispec.Descriptor{Digest: d})
	if err == nil {
		defer func() { _ = r.Close() }()
		return io.Copy(w, content.NewReader(r))
	}
	if _, ok := s.maker.Made(ctx, d); !ok || !errdefs.IsNotFound(err) {
		return 0, err
	}
	v := d.Verifier()
	n := &counter{w: io.MultiWriter(w, v)}
	if err := s.maker.Make(ctx, d, n); err != nil {
		return n.n, err
	}
	if !v.Verified() {
		return n.n, changedError(d)
	}
	return n.n, nil
}

func changedError(d digest.Digest) error {
	return fmt.Errorf("layer %s: its directory has changed since the layer was made: %w", d, errdefs.ErrDataLoss)
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (s *Store) materialise(ctx context.Context, d digest.Digest) (_ content.ReaderAt, err error) {
	f, err := os.CreateTemp(s.tmp, "blob-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil { // open and nameless: gone with its last reader
		return nil, err
	}
	n, err := s.WriteTo(ctx, d, f)
	if err != nil {
		return nil, err
	}
	return &tempBlob{File: f, size: n}, nil
}

type tempBlob struct {
	*os.File
	size int64
}

func (t *tempBlob) Size() int64 { return t.size }

// ReadBlob reads a small blob (a manifest, a config) into memory.
func ReadBlob(ctx context.Context, p content.Provider, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, more than the %d allowed: %w", desc.Digest, desc.Size, limit, errdefs.ErrInvalidArgument)
	}
	r, err := p.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	if r.Size() > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, more than the %d allowed: %w", desc.Digest, r.Size(), limit, errdefs.ErrInvalidArgument)
	}
	b := make([]byte, r.Size())
	if n, err := r.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || n != len(b)) {
		return nil, fmt.Errorf("read blob %s: %w", desc.Digest, err)
	}
	return b, nil
}
