package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/sockets"
)

// Options configure a [Server]. Backends are required.
type Options struct {
	Backends Backends
	Version  string // the engine's own, told in the Server header
	// Experimental is told to clients, which then show more commands.
	Experimental bool
	MinAPI       string       // oldest API version served; "" is [DefaultMinAPIVersion]
	Log          *slog.Logger // nil is silence
	// Fetch opens the URL of an image to import; nil refuses URLs.
	Fetch func(ctx context.Context, url string) (io.ReadCloser, error)
	// AllowedHosts are further host names under which TCP clients may call; this
	// host's name, localhost and plain addresses always may.
	AllowedHosts []string
	// Peer describes a new connection's other end for the log, and says what it
	// may do at most; nil tells the process and allows what the listener does.
	Peer func(net.Conn) (description string, most Access)
}

// Server is the Docker Engine API, an [http.Handler].
type Server struct {
	Backends
	o      Options
	log    *slog.Logger
	routes *table
	min    apiVersion
	max    apiVersion
	hosts  map[string]bool

	closing  context.Context //nolint:containedctx // the server's life, not a request's: done once Shutdown began
	shut     context.CancelCauseFunc
	hijacked sync.WaitGroup

	mu   sync.Mutex // guards http and shutDown
	http []*http.Server
	done bool
}

// errShutdown is why endless requests end when the server does.
var errShutdown = errs.New(errs.Unavailable, "the daemon is shutting down")

// New returns a server; call [Server.Serve] to let it listen.
func New(o Options) *Server {
	if o.MinAPI == "" {
		o.MinAPI = DefaultMinAPIVersion
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{Backends: o.Backends, o: o, log: o.Log, routes: newTable(allRoutes()), hosts: map[string]bool{"localhost": true}}
	s.min, _ = parseVersion(o.MinAPI) // a bad one serves everything there is
	s.max, _ = parseVersion(MaxAPIVersion)
	if name, err := os.Hostname(); err == nil {
		s.hosts[strings.ToLower(name)] = true
	}
	for _, h := range o.AllowedHosts {
		s.hosts[strings.ToLower(h)] = true
	}
	s.closing, s.shut = context.WithCancelCause(context.Background())
	return s
}

// Limit makes everything that is called through l read-only, or [Full].
func Limit(l net.Listener, a Access) net.Listener { return &limited{l, a} }

type limited struct {
	net.Listener
	access Access
}

// caller is what is known of a connection; in its context.
type caller struct {
	access Access
	local  bool // over a unix socket
	peer   string
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	if c, ok := ctx.Value(callerKey{}).(caller); ok {
		return c
	}
	return caller{access: Full, local: true} // called as a plain handler
}

// Serve answers requests on all listeners until [Server.Shutdown], when it
// returns nil, until one of them fails, or until ctx ends, which cancels every
// request. It closes the listeners.
func (s *Server) Serve(ctx context.Context, ls ...net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errShutdown)
	var g errgroup.Group
	for _, l := range ls {
		h := s.httpServer(ctx, l)
		if !s.register(h) {
			_ = l.Close()
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = h.Close() })
		defer stop()
		g.Go(func() error {
			if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				cancel(err)
				return err
			}
			return nil
		})
	}
	err := g.Wait()
	if err == nil && s.closing.Err() != nil { // Shutdown lets requests finish: keep their context until then
		s.wait()
	}
	return err
}

func (s *Server) httpServer(ctx context.Context, l net.Listener) *http.Server {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true) // BuildKit's clients speak gRPC on the API's socket
	base := caller{access: Full, local: l.Addr().Network() == "unix"}
	if lim, ok := l.(*limited); ok {
		base.access = lim.access
	}
	return &http.Server{
		Handler:           s,
		Protocols:         &p,
		ReadHeaderTimeout: time.Minute,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			who := base
			most := Full
			if s.o.Peer != nil {
				who.peer, most = s.o.Peer(c)
			} else {
				who.peer = describePeer(c)
			}
			who.access = min(who.access, most)
			return context.WithValue(ctx, callerKey{}, who)
		},
	}
}

func describePeer(c net.Conn) string {
	if p, ok := sockets.Peer(c); ok {
		return fmt.Sprintf("pid %d, uid %d", p.Pid, p.Uid)
	}
	return c.RemoteAddr().String()
}

func (s *Server) register(h *http.Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.http = append(s.http, h)
	}
	return !s.done
}

// Shutdown stops listening, ends the requests that would never end (events,
// followed logs, attached streams), and lets the others finish. Those still
// running when ctx ends are cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.done = true
	servers := s.http
	s.mu.Unlock()
	s.shut(errShutdown)
	var g errgroup.Group
	for _, h := range servers {
		g.Go(func() error {
			err := h.Shutdown(ctx)
			if err != nil {
				_ = h.Close()
			}
			return err
		})
	}
	err := g.Wait()
	idle := make(chan struct{})
	go func() { s.hijacked.Wait(); close(idle) }()
	select {
	case <-idle:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// wait blocks until no http.Server has an open request: Serve's context is
// theirs, and must outlive them.
func (s *Server) wait() {
	s.mu.Lock()
	servers := s.http
	s.mu.Unlock()
	for _, h := range servers {
		_ = h.Shutdown(context.Background()) // returns when idle; Shutdown's own Close ends it too
	}
}
