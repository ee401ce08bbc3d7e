package build

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/sirupsen/logrus"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// newGRPCServer serves BuildKit's API: control, gateway, content, traces, health.
func newGRPCServer(ctl *control.Controller, log *logrus.Entry) *grpc.Server {
	s := grpc.NewServer(
		grpc.ChainUnaryInterceptor(logUnary(log), grpcerrors.UnaryServerInterceptor),
		grpc.ChainStreamInterceptor(logStream(log), grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
	)
	ctl.Register(s)
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	return s
}

// ServeConn answers BuildKit's API on a connection that speaks HTTP/2 from its
// first byte, until it ends.
func (b *Builder) ServeConn(ctx context.Context, conn io.ReadWriteCloser) error {
	k, err := b.start(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	s := &http2.Server{}
	s.ServeConn(asConn(conn), &http2.ServeConnOpts{Context: context.WithoutCancel(ctx), Handler: b.guarded(k)})
	return nil
}

// ServeSession lets BuildKit call a client back over the connection, until it
// ends. Header is that of the client's request: it has the session's id and methods.
func (b *Builder) ServeSession(ctx context.Context, conn io.ReadWriteCloser, header http.Header) error {
	if header.Get("X-Docker-Expose-Session-Uuid") == "" {
		return errs.New(errs.Invalid, "the request names no session")
	}
	k, err := b.start(ctx)
	if err != nil {
		return err
	}
	return k.sessions.HandleConn(ctx, asConn(conn), header)
}

// Handler answers BuildKit's API over HTTP/2 that the caller's server speaks.
func (b *Builder) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k, err := b.start(r.Context())
		if err != nil {
			b.log.ErrorContext(r.Context(), "cannot start the builder", "error", err)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		b.guarded(k).ServeHTTP(w, r)
	})
}

// solveMethod is the only call that makes layers.
const solveMethod = "/moby.buildkit.v1.Control/Solve"

// guarded is the API, with what a solve writes made durable when it ends.
func (b *Builder) guarded(k *kit) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == solveMethod {
			done, err := k.guard.enter()
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			defer func() {
				if err := done(); err != nil {
					b.log.ErrorContext(r.Context(), "cannot sync the layers of a build", "error", err)
				}
			}()
		}
		k.grpc.ServeHTTP(w, r)
	})
}

// asConn makes a net.Conn of any stream.
func asConn(c io.ReadWriteCloser) net.Conn {
	if nc, ok := c.(net.Conn); ok {
		return nc
	}
	return streamConn{c}
}

type streamConn struct{ io.ReadWriteCloser }

type streamAddr struct{}

func (streamAddr) Network() string { return "stream" }
func (streamAddr) String() string  { return "stream" }

// LocalAddr implements net.Conn.
func (streamConn) LocalAddr() net.Addr { return streamAddr{} }

// RemoteAddr implements net.Conn.
func (streamConn) RemoteAddr() net.Addr { return streamAddr{} }

// SetDeadline implements net.Conn.
func (streamConn) SetDeadline(time.Time) error { return errors.ErrUnsupported }

// SetReadDeadline implements net.Conn.
func (streamConn) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

// SetWriteDeadline implements net.Conn.
func (streamConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
