package builds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/engine/events"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Builder is what the service needs of the build room.
type Builder interface {
	Solve(ctx context.Context, r build.Request, progress func(*controlapi.StatusResponse)) (map[string]string, error)
	ServeConn(ctx context.Context, conn io.ReadWriteCloser) error
	ServeSession(ctx context.Context, conn io.ReadWriteCloser, header http.Header) error
	Handler() http.Handler
	DiskUsage(ctx context.Context, filters []string) ([]*build.CacheRecord, error)
	Prune(ctx context.Context, o build.PruneOptions) ([]build.CacheRecord, error)
}

var _ Builder = (*build.Builder)(nil)

// Config of [New].
type Config struct {
	Tmp         string // for contexts while they are used
	HostGateway net.IP // what "host-gateway" means in ExtraHosts; nil: unknown
	Events      *events.Bus
	Log         *slog.Logger
}

// Service is the engine's side of builds.
type Service struct {
	builder Builder
	conf    Config

	mu      sync.Mutex
	running map[string]context.CancelCauseFunc // by the client's build id; guarded by mu
}

// New returns the service.
func New(b Builder, c Config) *Service {
	return &Service{builder: b, conf: c, running: map[string]context.CancelCauseFunc{}}
}

// errCancelled is why a build ended that POST /build/cancel named.
var errCancelled = errs.With(errs.Canceled, errors.New("build cancelled"))

// Cancel ends the build that the client started with this id.
func (s *Service) Cancel(_ context.Context, id string) error {
	s.mu.Lock()
	cancel := s.running[id]
	s.mu.Unlock()
	if cancel == nil {
		return nil // as docker: it may have ended just now
	}
	cancel(errCancelled)
	return nil
}

// enter registers a build under the client's id, if it has one.
func (s *Service) enter(ctx context.Context, id string) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	if id == "" {
		return ctx, func() { cancel(nil) }, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[id] != nil {
		cancel(nil)
		return nil, nil, errs.Newf(errs.Conflict, "build ID %s is in use", id)
	}
	s.running[id] = cancel
	return ctx, func() {
		s.mu.Lock()
		delete(s.running, id)
		s.mu.Unlock()
		cancel(nil)
	}, nil
}

func (s *Service) publish(a apievents.Action, attrs map[string]string) {
	if s.conf.Events != nil {
		s.conf.Events.Publish(apievents.BuilderEventType, a, "", attrs)
	}
}

// ServeGRPC answers BuildKit's API on a hijacked connection.
func (s *Service) ServeGRPC(ctx context.Context, conn io.ReadWriteCloser, _ http.Header) error {
	return s.builder.ServeConn(ctx, conn)
}

// ServeSession lets the builder call a client back.
func (s *Service) ServeSession(ctx context.Context, conn io.ReadWriteCloser, header http.Header) error {
	return s.builder.ServeSession(ctx, conn, header)
}

// GRPCHandler answers BuildKit's API over native HTTP/2.
func (s *Service) GRPCHandler() http.Handler { return s.builder.Handler() }
