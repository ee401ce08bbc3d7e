// Package registryd is Skiff's registry server: distribution's, on a directory.
//
//	s, err := registryd.New(registryd.Options{Dir: dir, Addr: "127.0.0.1:5000", Log: log})
//	go s.Serve(ctx)
//	fmt.Println("push to", s.Addr())
package registryd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // chosen by name in the configuration

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Options of [New].
type Options struct {
	Dir  string // where blobs and tags are kept
	Addr string // "host:port"; port 0 takes a free one
	// Cert and Key are files of PEM; without them the registry speaks plain HTTP.
	Cert, Key string
	// Htpasswd is a file of "user:bcrypt-hash" lines; "" lets everybody in. It
	// is read again when it changes.
	Htpasswd string
	// ReadOnly refuses pushes, NoDelete refuses to delete manifests and blobs.
	ReadOnly, NoDelete bool
	Log                *slog.Logger
}

// Server is a registry, listening since [New].
type Server struct {
	app  *handlers.App
	ln   net.Listener
	http *http.Server
	log  *slog.Logger
	tls  bool
	stop context.CancelFunc
}

// New opens the directory and the address.
func New(o Options) (_ *Server, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, errs.New(errs.Invalid, "registry: a certificate and its key are needed together")
	}
	if o.Dir == "" {
		return nil, errs.New(errs.Invalid, "registry: no directory to keep images in")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{log: o.Log, stop: stop}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	if s.app, err = newApp(ctx, o); err != nil {
		return nil, err
	}
	var h http.Handler = s.app
	if o.Htpasswd != "" {
		if h, err = newHtpasswd(o.Htpasswd, h); err != nil {
			return nil, err
		}
	}
	if s.ln, err = net.Listen("tcp", o.Addr); err != nil {
		return nil, errs.Newf(errs.Unavailable, "registry: %w", err)
	}
	if o.Cert != "" {
		cert, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			_ = s.ln.Close()
			return nil, errs.Newf(errs.Invalid, "registry: %w", err)
		}
		s.tls = true
		s.ln = tls.NewListener(s.ln, &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"},
		})
	}
	s.http = &http.Server{
		Handler: s.logged(h), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// newApp turns distribution's panics about its configuration into errors.
func newApp(ctx context.Context, o Options) (app *handlers.App, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("registry: %v", p)
		}
	}()
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	conf := &configuration.Configuration{
		Version: "0.1",
		Storage: configuration.Storage{
			"filesystem": {"rootdirectory": dir},
			"delete":     {"enabled": !o.NoDelete},
			"cache":      {"blobdescriptor": "inmemory"},
			"redirect":   {"disable": true},
			"maintenance": {
				"uploadpurging": map[any]any{"enabled": true, "age": "24h", "interval": "24h", "dryrun": false},
				"readonly":      map[any]any{"enabled": o.ReadOnly},
			},
		},
		Catalog: configuration.Catalog{MaxEntries: 1000},
		Tags:    configuration.Tags{MaxTags: 1000},
	}
	conf.Log.AccessLog.Disabled = true
	conf.HTTP.Secret = rand.Text() // uploads do not outlive the process
	conf.HTTP.RelativeURLs = true
	// A platform's image may be pushed without the others of its index.
	conf.Validation.Manifests.Indexes.Platforms = "none"
	return handlers.NewApp(ctx, conf), nil
}

// Addr is the address to reach the registry at, "host:port".
func (s *Server) Addr() string { return s.ln.Addr().String() }

// TLS reports whether it answers with a certificate.
func (s *Server) TLS() bool { return s.tls }

// Handler answers the registry's API, also without the listener.
func (s *Server) Handler() http.Handler { return s.http.Handler }

// Serve answers until ctx ends, then lets requests finish for a short while.
func (s *Server) Serve(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(s.ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(grace)
	if err != nil {
		err = s.http.Close()
	}
	<-done
	return errors.Join(err, s.Close())
}

// Close stops at once.
func (s *Server) Close() error {
	err := s.http.Close()
	if cerr := s.ln.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	s.stop()
	return errors.Join(err, s.app.Shutdown())
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	w.status = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (s *Server) logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.log.Enabled(r.Context(), slog.LevelDebug) {
			h.ServeHTTP(w, r)
			return
		}
		sw := &statusWriter{w, http.StatusOK}
		start := time.Now()
		h.ServeHTTP(sw, r)
		s.log.DebugContext(r.Context(), "registry request", "method", r.Method, "path", r.URL.Path, "status", sw.status, "from", r.RemoteAddr, "took", time.Since(start))
	})
}
