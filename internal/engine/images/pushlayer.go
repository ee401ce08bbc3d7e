package images

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/remote"
)

// pushLayer makes sure that the registry has the layer compressed, and returns
// as what. A client that reads slowly is told when nobody waits for this.
func (s *Service) pushLayer(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor, diffID digest.Digest, p progress.Sink) (ocispec.Descriptor, error) {
	blob, got, err := s.upload(ctx, repo, desc, diffID, p)
	if err == nil {
		report(p, ids.Short(diffID.String()), blob.Size, got)
	}
	return blob, err
}

// upload takes the cheapest way: a compressed blob that is stored; one that the
// registry is known to have; else the layer is compressed now.
func (s *Service) upload(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor, diffID digest.Digest, p progress.Sink) (ocispec.Descriptor, remote.Pushed, error) {
	var got remote.Pushed
	id := ids.Short(diffID.String())
	uploads := s.limits.Load().uploads
	if err := uploads.Acquire(ctx, 1); err != nil {
		return desc, got, context.Cause(ctx)
	}
	defer uploads.Release(1)
	if desc.Digest != diffID && s.store.Content.Stored(s.store.Context(ctx), desc.Digest) {
		got, err := s.sendStored(ctx, repo, desc, id, s.mounts(repo, diffID, desc.Digest), p)
		return desc, got, err
	}
	c := &compressed{s: s, diffID: diffID}
	defer c.close()
	host := reference.Domain(repo.Named()) + "/"
	for _, o := range s.origins(diffID) {
		known := false
		for _, r := range o.Repos {
			known = known || strings.HasPrefix(r, host)
		}
		if !known {
			continue
		}
		got, err := repo.PushBlob(ctx, o.Blob, s.mounts(repo, diffID, o.Blob.Digest), func() (io.ReadCloser, error) {
			return c.openAs(ctx, o.Blob.Digest)
		}, nil)
		if err == nil {
			return o.Blob, got, nil
		}
		if !errors.Is(err, errOtherBlob) {
			return desc, got, err
		}
	}
	blob, err := c.desc(ctx)
	if err != nil {
		return desc, got, err
	}
	blob.Annotations = desc.Annotations
	m := &sent{id: id, total: blob.Size, sink: p}
	got, err = repo.PushBlob(ctx, blob, nil, func() (io.ReadCloser, error) { m.reset(); return c.open() }, m.add)
	if err != nil {
		return desc, got, err
	}
	return blob, got, nil
}

// pushStored sends a blob that is in the content store (or is made by it).
func (s *Service) pushStored(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor, id string, from []string, p progress.Sink) error {
	got, err := s.sendStored(ctx, repo, desc, id, from, p)
	if err == nil {
		report(p, id, desc.Size, got)
	}
	return err
}

func (s *Service) sendStored(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor, id string, from []string, p progress.Sink) (remote.Pushed, error) {
	m := &sent{id: id, total: desc.Size, sink: p}
	return repo.PushBlob(ctx, desc, from, func() (io.ReadCloser, error) {
		m.reset()
		ra, err := s.store.Content.ReaderAt(s.store.Context(ctx), desc)
		if err != nil {
			return nil, err
		}
		return readerAtCloser{ctdcontent.NewReader(ra), ra}, nil
	}, m.add)
}

func report(p progress.Sink, id string, size int64, got remote.Pushed) {
	status := "Pushed"
	switch {
	case got.MountedFrom != "":
		name := got.MountedFrom
		if n, err := reference.ParseNormalizedNamed(name); err == nil {
			name = reference.Path(n)
		}
		status = "Mounted from " + name
	case got.Exists:
		status = "Layer already exists"
	case id != "":
		p.Emit(progress.Event{ID: id, Status: "Pushing", Current: size, Total: size})
	}
	p.Emit(progress.Event{ID: id, Status: status})
}

var errOtherBlob = errors.New("the layer compresses to another blob than it once did")

// compressed is a layer's archive, compressed into a nameless file once needed.
type compressed struct {
	s      *Service
	diffID digest.Digest
	file   *os.File
	blob   ocispec.Descriptor
}

func (c *compressed) close() {
	if c.file != nil {
		_ = c.file.Close()
	}
}

func (c *compressed) desc(ctx context.Context) (ocispec.Descriptor, error) {
	if c.file != nil {
		return c.blob, nil
	}
	f, err := os.CreateTemp(c.s.store.Tmp(), "push-")
	if err != nil {
		return c.blob, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return c.blob, err
	}
	h := sha256.New()
	zw := layer.NewGzipWriter(io.MultiWriter(f, h))
	_, err = c.s.store.Content.WriteTo(c.s.store.Context(ctx), c.diffID, zw)
	if cerr := zw.Close(); err == nil {
		err = cerr
	}
	var size int64
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		_ = f.Close()
		if isMissing(err) {
			err = fmt.Errorf("layer %s: its archive is not here: pull the image again: %w", c.diffID, err)
		}
		return c.blob, err
	}
	c.file = f
	c.blob = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.NewDigest(digest.SHA256, h), Size: size}
	return c.blob, nil
}

func (c *compressed) open() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(c.file, 0, c.blob.Size)), nil
}

func (c *compressed) openAs(ctx context.Context, want digest.Digest) (io.ReadCloser, error) {
	d, err := c.desc(ctx)
	if err != nil {
		return nil, err
	}
	if d.Digest != want {
		return nil, errOtherBlob
	}
	return c.open()
}

// sent reports how much of a blob is uploaded, short of all of it.
type sent struct {
	id    string
	total int64
	n     atomic.Int64
	last  time.Time
	sink  progress.Sink
}

func (m *sent) reset() { m.n.Store(0) }

func (m *sent) add(n int) {
	sum := m.n.Add(int64(n))
	if now := time.Now(); m.id != "" && now.Sub(m.last) > meterEvery && sum < m.total {
		m.last = now
		m.sink.Emit(progress.Event{ID: m.id, Status: "Pushing", Current: sum, Total: m.total})
	}
}
