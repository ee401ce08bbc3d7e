package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Pushed tells how a blob got to be in the repository.
type Pushed struct {
	Exists      bool   // it was there
	MountedFrom string // it was taken from this repository of the same registry
}

// labelSource is how containerd's pusher learns where a blob may be mounted from.
const labelSource = "containerd.io/distribution.source."

// PushBlob makes sure that the repository has the blob: it asks, tries to mount
// it from one of the repositories from ("library/debian") of the same registry,
// and else uploads what open gives. read is told of each piece sent.
func (r *Repository) PushBlob(ctx context.Context, desc ocispec.Descriptor, from []string, open func() (io.ReadCloser, error), read func(n int)) (Pushed, error) {
	if len(from) > 0 {
		host := reference.Domain(r.named)
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h // as the pusher spells it
		}
		desc.Annotations = map[string]string{labelSource + host: strings.Join(from, ",")}
	} else {
		desc.Annotations = nil
	}
	done, err := r.push(ctx, "", desc, open, read)
	if err != nil {
		return done, explain("push", r.named, desc.Digest.String(), err)
	}
	return done, nil
}

// PushManifest stores a manifest or index, under a tag or (object "") by digest.
func (r *Repository) PushManifest(ctx context.Context, object string, desc ocispec.Descriptor, body []byte) error {
	desc.Annotations = nil
	_, err := r.push(ctx, object, desc, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(body))), nil
	}, nil)
	if err != nil {
		return explain("push", r.named, object, err)
	}
	return nil
}

func (r *Repository) push(ctx context.Context, object string, desc ocispec.Descriptor, open func() (io.ReadCloser, error), read func(int)) (Pushed, error) {
	ref := r.ref(desc.Digest.String())
	if object != "" && !strings.Contains(object, ":") {
		ref = r.named.Name() + ":" + object + "@" + desc.Digest.String()
	}
	// The pusher sends a digest once per tracker; a manifest may have many tags.
	tracker := docker.NewInMemoryTracker()
	p, err := docker.NewResolver(docker.ResolverOptions{Hosts: r.hosts, Tracker: tracker}).Pusher(ctx, ref)
	if err != nil {
		return Pushed{}, err
	}
	w, err := p.Push(ctx, desc)
	if errdefs.IsAlreadyExists(err) {
		st, serr := tracker.GetStatus(remotes.MakeRefKey(ctx, desc))
		if serr != nil {
			return Pushed{Exists: true}, nil
		}
		return Pushed{Exists: st.MountedFrom == "", MountedFrom: st.MountedFrom}, nil
	}
	if err != nil {
		return Pushed{}, err
	}
	defer func() { _ = w.Close() }()
	return Pushed{}, send(ctx, w, desc, open, read)
}

func send(ctx context.Context, w content.Writer, desc ocispec.Descriptor, open func() (io.ReadCloser, error), read func(int)) error {
	const attempts = 5
	for try := 0; ; try++ {
		err := sendOnce(ctx, w, desc, open, read)
		if err == nil {
			err = w.Commit(ctx, desc.Size, desc.Digest)
			if errdefs.IsAlreadyExists(err) {
				err = nil
			}
		}
		// The pusher asks for the content again after an answer such as a
		// challenge, or a broken connection.
		if !errors.Is(err, content.ErrReset) || try == attempts {
			return err
		}
	}
}

func sendOnce(ctx context.Context, w io.Writer, desc ocispec.Descriptor, open func() (io.ReadCloser, error), read func(int)) error {
	rc, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = rc.Close() }()
	buf := make([]byte, 128<<10)
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		m, rerr := rc.Read(buf)
		if m > 0 {
			if _, err := w.Write(buf[:m]); err != nil {
				return err
			}
			n += int64(m)
			if read != nil {
				read(m)
			}
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	if n != desc.Size {
		return fmt.Errorf("blob %s has %d bytes, not %d", desc.Digest, n, desc.Size)
	}
	return nil
}
