package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// opener gives a layer's blob, from a registry or an archive.
type opener func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)

// words are what is reported of a layer; those of a pull, or of a load.
type words struct{ waiting, reading, read, done, exists string }

var pullWords = words{"Pulling fs layer", "Downloading", "Download complete", "Pull complete", "Already exists"}

// fetchLayers brings the layers in, each in one pass: while the blob is stored
// it is hashed, decompressed, hashed again and unpacked. Layers go side by
// side; they are committed in order. blobs[i] is the archive of diffIDs[i].
func (s *Service) fetchLayers(ctx context.Context, blobs []ocispec.Descriptor, diffIDs []digest.Digest, open opener, w words, p progress.Sink) error {
	if len(blobs) != len(diffIDs) {
		return errs.Newf(errs.Invalid, "layers from manifest don't match image configuration: %d layers, %d diff ids", len(blobs), len(diffIDs))
	}
	first := s.presentLayers(ctx, blobs, diffIDs, w, p)
	for _, b := range blobs[first:] {
		p.Emit(progress.Event{ID: ids.Short(b.Digest.String()), Status: w.waiting})
	}
	got := make([]chan *snapshot.Extracted, len(blobs))
	g, gctx := errgroup.WithContext(ctx)
	for i := first; i < len(blobs); i++ {
		got[i] = make(chan *snapshot.Extracted, 1)
		g.Go(func() error {
			ex, err := s.fetchLayer(gctx, blobs[i], diffIDs[i], open, w, p)
			if err != nil {
				return err
			}
			got[i] <- ex
			return nil
		})
	}
	g.Go(func() error {
		var parent digest.Digest
		for i := range blobs {
			if i >= first {
				if err := s.commitLayer(gctx, got[i], parent, diffIDs[i]); err != nil {
					return err
				}
				p.Emit(progress.Event{ID: ids.Short(blobs[i].Digest.String()), Status: w.done})
			}
			parent = snapshot.ChainID(parent, diffIDs[i])
		}
		return nil
	})
	err := g.Wait()
	if err != nil {
		for _, c := range got {
			if c == nil {
				continue
			}
			select {
			case ex := <-c:
				ex.Discard(ctx)
			default:
			}
		}
		s.kick()
	}
	return diskFull(err)
}

// presentLayers counts the layers, from the bottom, that are here with their
// archives.
func (s *Service) presentLayers(ctx context.Context, blobs []ocispec.Descriptor, diffIDs []digest.Digest, w words, p progress.Sink) int {
	var chain digest.Digest
	for i, d := range diffIDs {
		chain = snapshot.ChainID(chain, d)
		if !s.store.HasLayer(ctx, chain) || !s.hasBlob(ctx, blobs[i].Digest) {
			return i
		}
		p.Emit(progress.Event{ID: ids.Short(blobs[i].Digest.String()), Status: w.exists})
	}
	return len(diffIDs)
}

// hasBlob reports whether the blob is stored or can be made, and leases it.
func (s *Service) hasBlob(ctx context.Context, d digest.Digest) bool {
	if _, ok := s.store.Made(ctx, d); ok {
		return true
	}
	if !s.store.Content.Stored(ctx, d) {
		return false
	}
	// Opening a writer for what exists adds it to the lease.
	w, err := s.store.RawContent().Writer(ctx, ctdcontent.WithRef("have-"+ids.New()), ctdcontent.WithDescriptor(ocispec.Descriptor{Digest: d}))
	if err == nil { // collected meanwhile
		s.endWriter(ctx, w, context.Canceled)
	}
	return errdefs.IsAlreadyExists(err)
}

func (s *Service) commitLayer(ctx context.Context, got <-chan *snapshot.Extracted, parent, diffID digest.Digest) error {
	var ex *snapshot.Extracted
	select {
	case ex = <-got:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, err := s.store.CommitLayer(ctx, ex, parent, diffID)
	if err != nil {
		ex.Discard(ctx)
	}
	return err
}

// fetchLayer stores and unpacks a layer. What a client must be told waits until
// nobody else waits for this: it may read slowly, or not at all.
func (s *Service) fetchLayer(ctx context.Context, blob ocispec.Descriptor, diffID digest.Digest, open opener, w words, p progress.Sink) (*snapshot.Extracted, error) {
	ex, err := s.download(ctx, blob, diffID, open, w, p)
	if err != nil {
		return nil, err
	}
	id := ids.Short(blob.Digest.String())
	p.Emit(progress.Event{ID: id, Status: w.reading, Current: blob.Size, Total: blob.Size})
	p.Emit(progress.Event{ID: id, Status: w.read})
	return ex, nil
}

func (s *Service) download(ctx context.Context, blob ocispec.Descriptor, diffID digest.Digest, open opener, w words, p progress.Sink) (_ *snapshot.Extracted, err error) {
	downloads := s.limits.Load().downloads
	if err := downloads.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer downloads.Release(1)
	// Two pulls of one blob: the second finds the blob stored, and unpacks it.
	unlock, err := s.locks.lock(ctx, blob.Digest)
	if err != nil {
		return nil, err
	}
	defer unlock()

	stored := s.hasBlob(ctx, blob.Digest)
	var rc io.ReadCloser
	if stored {
		ra, err := s.store.Content.ReaderAt(ctx, blob)
		if err != nil {
			return nil, err
		}
		rc = readerAtCloser{ctdcontent.NewReader(ra), ra}
	} else if rc, err = open(ctx, blob); err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()

	var cw ctdcontent.Writer
	in := io.Reader(rc)
	if !stored {
		cw, err = ctdcontent.OpenWriter(ctx, s.store.RawContent(), ctdcontent.WithRef("layer-"+ids.New()), sized(blob.Size))
		if err != nil {
			return nil, err
		}
		defer func() { s.endWriter(ctx, cw, err) }()
		in = io.TeeReader(rc, writerOnly{cw})
	}
	ex, err := s.unpack(ctx, in, blob, diffID, w, p)
	if err != nil {
		return nil, err
	}
	if cw != nil {
		err = cw.Commit(ctx, blob.Size, blob.Digest)
		if err != nil && !errdefs.IsAlreadyExists(err) {
			ex.Discard(ctx)
			return nil, blobError(blob, err)
		}
		err = nil
	}
	return ex, nil
}

// sized starts an ingest without saying its digest, which is checked on commit:
// content that is about to be collected would be taken for its beginning.
func sized(n int64) ctdcontent.WriterOpt {
	return ctdcontent.WithDescriptor(ocispec.Descriptor{Size: n})
}

// endWriter closes the ingest; a failed one leaves nothing.
func (s *Service) endWriter(ctx context.Context, cw ctdcontent.Writer, err error) {
	st, serr := cw.Status()
	_ = cw.Close()
	if err != nil && serr == nil {
		ctx = s.store.Context(context.WithoutCancel(ctx))
		if aerr := s.store.RawContent().Abort(ctx, st.Ref); aerr != nil && !errdefs.IsNotFound(aerr) {
			s.log.WarnContext(ctx, "cannot abort an ingest", "ref", st.Ref, "error", aerr)
		}
	}
}

type readerAtCloser struct {
	io.Reader
	io.Closer
}

type writerOnly struct{ io.Writer }

// unpack decompresses and extracts what in gives, and reads it to its end.
func (s *Service) unpack(ctx context.Context, in io.Reader, blob ocispec.Descriptor, diffID digest.Digest, w words, p progress.Sink) (*snapshot.Extracted, error) {
	v := blob.Digest.Verifier()
	m := &meter{r: io.TeeReader(in, v), id: ids.Short(blob.Digest.String()), status: w.reading, total: blob.Size, sink: p}
	// What is behind a failure matters more than how the decoder names it: a
	// broken connection, or content that is not what was asked for.
	fail := func(err error) error {
		if m.err != nil {
			return fmt.Errorf("read layer %s: %w", blob.Digest, m.err)
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, syscall.ENOSPC) {
			return err
		}
		if _, rerr := io.Copy(io.Discard, io.LimitReader(m, blob.Size+1)); rerr != nil {
			return rerr
		}
		if m.n.Load() != blob.Size || !v.Verified() {
			return mismatch(blob)
		}
		return err
	}
	plain, _, err := layer.Decompress(m)
	if err != nil {
		return nil, fail(fmt.Errorf("layer %s: %w", blob.Digest, err))
	}
	defer func() { _ = plain.Close() }()
	ex, err := s.store.Extract(ctx, plain)
	if err != nil {
		return nil, fail(fmt.Errorf("failed to register layer: %w", err))
	}
	if _, err := io.Copy(io.Discard, m); err != nil { // what follows the last frame
		ex.Discard(ctx)
		return nil, err
	}
	switch {
	case m.n.Load() != blob.Size || !v.Verified():
		err = mismatch(blob)
	case ex.DiffID != diffID:
		err = errs.Newf(errs.Invalid, "layers from manifest don't match image configuration: layer %s unpacks to %s, not %s", blob.Digest, ex.DiffID, diffID)
	}
	if err != nil {
		ex.Discard(ctx)
		return nil, err
	}
	return ex, nil
}

func mismatch(blob ocispec.Descriptor) error {
	return errs.Newf(errs.Invalid, "filesystem layer verification failed for digest %s", blob.Digest)
}

func blobError(blob ocispec.Descriptor, err error) error {
	if errdefs.IsFailedPrecondition(err) {
		return mismatch(blob)
	}
	return fmt.Errorf("store layer %s: %w", blob.Digest, err)
}

// diskFull says what to do about a full disk, in place of where it was met.
func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return errs.Newf(errs.Unavailable, "no space left on device: the image does not fit on the disk of the data root; nothing of it was kept: %w", err)
	}
	if errors.Is(err, syscall.EDQUOT) {
		return errs.Newf(errs.Unavailable, "disk quota exceeded: the image does not fit; nothing of it was kept: %w", err)
	}
	return err
}

// meter reports how much was read, now and then, short of all of it, and keeps
// the error that reading met.
type meter struct {
	r      io.Reader
	id     string
	status string
	total  int64
	sink   progress.Sink
	n      atomic.Int64
	last   time.Time
	err    error
}

const meterEvery = 100 * time.Millisecond

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	sum := m.n.Add(int64(n))
	if err != nil && err != io.EOF {
		m.err = err
	}
	if now := time.Now(); now.Sub(m.last) > meterEvery && sum < m.total {
		m.last = now
		m.sink.Emit(progress.Event{ID: m.id, Status: m.status, Current: sum, Total: m.total})
	}
	return n, err
}
