package build

import (
	"context"
	"errors"
	"maps"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/util/bklog"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc/metadata"
)

// Request is one build.
type Request struct {
	Ref          string            // names the build; "" for a new name
	Attrs        map[string]string // options of the Dockerfile frontend
	Outputs      []Output
	CacheFrom    []string // references of images that carry build cache
	Entitlements []string

	// Context, if not nil, is where the frontend's "context" and "dockerfile" are.
	Context fsutil.FS
	// SharedKey tells contexts that are likely to be alike from others: of the
	// same key, only what has changed is copied.
	SharedKey string
	// Credentials of registries by host; nil for none. Asked if there is no Session.
	Credentials func(host string) (user, secret string)
	// Session is the id of a client's session, "" for none.
	Session string
}

// Output is an exporter with its options.
type Output struct {
	Type  string
	Attrs map[string]string
}

// ImageOutput is the output that leaves an image in the engine's store.
func ImageOutput(names string) Output {
	return Output{Type: exporterName, Attrs: map[string]string{"name": names}}
}

// statusGrace is how long the progress of a failed build may outlast it.
const statusGrace = 500 * time.Millisecond

// Solve runs a build. Progress, if not nil, is called with each report, by one
// goroutine at a time, and not after Solve has returned.
func (b *Builder) Solve(ctx context.Context, r Request, progress func(*controlapi.StatusResponse)) (map[string]string, error) {
	k, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	if r.Ref == "" {
		r.Ref = identity.NewID()
	}
	ctx, cancel := context.WithCancelCause(bklog.WithLogger(ctx, k.entry))
	defer cancel(nil)
	unhook := context.AfterFunc(k.life, func() { cancel(context.Cause(k.life)) })
	defer unhook()
	req := &controlapi.SolveRequest{
		Ref: r.Ref, Session: r.Session, Frontend: "dockerfile.v0", Entitlements: r.Entitlements,
		FrontendAttrs: maps.Clone(r.Attrs), Cache: &controlapi.CacheOptions{},
	}
	if req.FrontendAttrs == nil {
		req.FrontendAttrs = map[string]string{}
	}
	for _, o := range r.Outputs {
		req.Exporters = append(req.Exporters, &controlapi.Exporter{Type: o.Type, Attrs: o.Attrs})
	}
	for _, ref := range r.CacheFrom {
		req.Cache.Imports = append(req.Cache.Imports, &controlapi.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
	}
	if r.Context != nil || r.Session == "" {
		s, err := k.openSession(ctx, r)
		if err != nil {
			return nil, err
		}
		defer s.close()
		if r.Session == "" {
			req.Session = s.id
		} else {
			req.FrontendAttrs["local-sessionid:context"] = s.id
			req.FrontendAttrs["local-sessionid:dockerfile"] = s.id
		}
	}
	done, err := k.guard.enter()
	if err != nil {
		return nil, err
	}
	watching := make(chan struct{})
	watchCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		defer close(watching)
		if progress == nil {
			return
		}
		// Its only failure is that there is nothing (more) to tell.
		_ = k.control.Status(&controlapi.StatusRequest{Ref: r.Ref}, &statusStream{ctx: watchCtx, each: progress})
	}()
	resp, err := k.control.Solve(ctx, req)
	err = errors.Join(err, done())
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	grace := statusGrace
	if err == nil {
		grace = 10 * statusGrace // all of it is worth seeing
	}
	select {
	case <-watching:
	case <-time.After(grace):
		stop(nil)
		<-watching
	}
	if err != nil {
		return nil, err
	}
	return resp.ExporterResponse, nil
}

// statusStream receives progress in place of a gRPC client.
type statusStream struct {
	ctx  context.Context
	each func(*controlapi.StatusResponse)
}

var _ controlapi.Control_StatusServer = (*statusStream)(nil)

// Send implements Control_StatusServer.
func (s *statusStream) Send(r *controlapi.StatusResponse) error { s.each(r); return s.ctx.Err() }

// SendMsg implements grpc.ServerStream.
func (s *statusStream) SendMsg(m any) error {
	if r, ok := m.(*controlapi.StatusResponse); ok {
		return s.Send(r)
	}
	return errors.New("not a status")
}

// Context implements grpc.ServerStream.
func (s *statusStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *statusStream) RecvMsg(any) error { return errors.New("nothing to receive") }

// SetHeader implements grpc.ServerStream.
func (s *statusStream) SetHeader(metadata.MD) error { return nil }

// SendHeader implements grpc.ServerStream.
func (s *statusStream) SendHeader(metadata.MD) error { return nil }

// SetTrailer implements grpc.ServerStream.
func (s *statusStream) SetTrailer(metadata.MD) {}
