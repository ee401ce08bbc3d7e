package builds

import (
	"context"
	"fmt"
	"io"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/proto"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// Build makes an image: POST /build. The body is the context as a tar archive,
// unless the options name a remote one.
func (s *Service) Build(ctx context.Context, o Options, body io.Reader, p progress.Sink) (imageID string, err error) {
	req, names, err := request(o, s.conf.HostGateway)
	if err != nil {
		return "", err
	}
	ctx, leave, err := s.enter(ctx, o.BuildID)
	if err != nil {
		return "", err
	}
	defer leave()
	if o.Remote == "" {
		tar, err := build.OpenTar(ctx, body, s.conf.Tmp)
		if err != nil {
			return "", err
		}
		defer func() { _ = tar.Close() }()
		if o.SessionID == "" {
			if err := checkDockerfile(tar, req.Attrs["filename"]); err != nil {
				return "", err
			}
		}
		req.Context, req.SharedKey = tar, sharedKey(o)
	}
	show := newClassic(p)
	each := show.report
	if o.Version == "2" {
		each = func(r *controlapi.StatusResponse) { trace(r, p) }
	}
	resp, err := s.builder.Solve(ctx, req, each)
	if err != nil {
		return "", explain(ctx, err)
	}
	id := resp["containerimage.config.digest"]
	if id == "" {
		return "", nil // an output that is no image
	}
	if o.Version == "2" {
		p.Emit(progress.Event{ID: "moby.image.id", Aux: map[string]string{"ID": id}})
		return id, nil
	}
	show.finish(id, names)
	return id, nil
}

// trace passes on BuildKit's own progress.
func trace(r *controlapi.StatusResponse, p progress.Sink) {
	b, err := proto.Marshal(r)
	if err != nil {
		return // of our own making: cannot fail
	}
	p.Emit(progress.Event{ID: "moby.buildkit.trace", Aux: b})
}

// checkDockerfile answers with docker's words before BuildKit is asked.
func checkDockerfile(t *build.TarFS, name string) error {
	f, err := t.Open(name)
	if err != nil {
		if name == defaultDockerfile {
			if f, err = t.Open("dockerfile"); err == nil {
				return f.Close()
			}
		}
		return errs.Newf(errs.Invalid, "Cannot locate specified Dockerfile: %s", name)
	}
	defer func() { _ = f.Close() }()
	var one [1]byte
	if _, err := io.ReadFull(f, one[:]); err != nil {
		return errs.Newf(errs.Invalid, "the Dockerfile (%s) cannot be empty", name)
	}
	return nil
}

// sharedKey tells BuildKit which contexts are likely to be versions of one.
func sharedKey(o Options) string {
	return fmt.Sprintf("body:%s:%q", o.Dockerfile, o.Tags)
}
