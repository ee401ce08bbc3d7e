package apiserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// request is one call, after the path was understood.
type request struct {
	*http.Request
	query
	v         apiVersion
	name, sub string // what the path's variables stand for
	log       *slog.Logger
	rc        *http.ResponseController // of its connection
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	start := time.Now()
	rw := &response{ResponseWriter: w}
	who := callerOf(hr.Context())
	log := s.log.With("request", requestID(), "method", hr.Method, "path", hr.URL.Path)
	defer func() {
		p := recover()
		if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // a panic's value, compared as net/http does
			log.ErrorContext(hr.Context(), "request panicked", "panic", p, "stack", string(debug.Stack()))
			s.fail(rw, hr, log, errs.New(errs.Internal, "internal error: the daemon's log tells more"))
		}
		log.DebugContext(hr.Context(), "request", "status", rw.status, "took", time.Since(start),
			"peer", who.peer, "agent", hr.UserAgent())
		if p != nil {
			panic(http.ErrAbortHandler) // whatever was sent is not complete
		}
	}()
	if err := s.serve(rw, hr, who, log); err != nil {
		s.fail(rw, hr, log, err)
	}
}

func (s *Server) serve(w *response, hr *http.Request, who caller, log *slog.Logger) error {
	h := w.Header()
	h.Set("Server", "Skiff/"+s.o.Version+" ("+runtime.GOOS+")")
	h.Set("Api-Version", MaxAPIVersion)
	h.Set("Docker-Experimental", strconv.FormatBool(s.o.Experimental))
	h.Set("Ostype", runtime.GOOS)
	if !who.local {
		if err := s.checkBrowser(hr); err != nil {
			return err
		}
	}
	if hr.ProtoMajor == 2 && strings.HasPrefix(hr.Header.Get("Content-Type"), "application/grpc") {
		if who.access < Full {
			return errReadOnly
		}
		s.Builds.GRPCHandler().ServeHTTP(w, hr)
		return nil
	}
	version, path := splitVersion(hr.URL.Path)
	v, err := s.negotiate(version, path)
	if err != nil {
		return err
	}
	if hr.Method == http.MethodOptions { // as docker: allowed, and nothing is told
		w.WriteHeader(http.StatusOK)
		return nil
	}
	rt, name, sub := s.routes.find(hr.Method, path)
	if rt == nil {
		return errNoPage
	}
	if v.before(rt.since) {
		return errs.Newf(errs.Invalid, "%s %s requires minimum API version 1.%d", rt.method, rt.path, rt.since)
	}
	if who.access < rt.traits.needs() {
		return errReadOnly
	}
	q, err := url.ParseQuery(hr.URL.RawQuery)
	if err != nil {
		return errs.Newf(errs.Invalid, "invalid query: %w", err)
	}
	r := &request{hr, query(q), v, strings.TrimPrefix(name, "/"), sub, log, http.NewResponseController(w)} // docker shows names of containers with a slash
	if rt.traits&endless != 0 {
		ctx, cancel := context.WithCancelCause(hr.Context())
		defer cancel(nil)
		defer context.AfterFunc(s.closing, func() { cancel(errShutdown) })()
		r.Request = hr.WithContext(ctx)
	}
	return rt.handle(s, w, r)
}

var (
	errNoPage   = errs.New(errs.NotFound, "page not found")
	errReadOnly = errs.New(errs.Denied, "this connection may only read")
)

// carriesImage reports whether path is of those that copy images out and in, the
// same since 1.22, which the docker-daemon transport of skopeo and podman asks for.
func carriesImage(path string) bool {
	rest, ok := strings.CutPrefix(path, "/images/")
	return ok && (rest == "load" || rest == "get" || strings.HasSuffix(rest, "/get") || strings.HasSuffix(rest, "/json"))
}

func (s *Server) negotiate(version, path string) (apiVersion, error) {
	if version == "" {
		return s.max, nil
	}
	v, ok := parseVersion(version)
	switch {
	case !ok:
		return v, errs.Newf(errs.Invalid, "invalid API version %q in the path", version)
	case v.less(s.min) && !(s.min.String() == DefaultMinAPIVersion && carriesImage(path) && !v.before(22)):
		return v, errs.Newf(errs.Invalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, s.min)
	case s.max.less(v):
		return v, errs.Newf(errs.Invalid, "client version %s is too new. Maximum supported API version is %s", version, s.max)
	}
	return v, nil
}

// checkBrowser refuses what a web page could send to a TCP address behind its
// user's back: a foreign Origin, or a host name that was made to resolve here.
func (s *Server) checkBrowser(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if _, err := netip.ParseAddr(host); err != nil && !s.hosts[host] && r.TLS == nil {
		return errs.Newf(errs.Denied, "host %q is not allowed", r.Host)
	}
	if o := r.Header.Get("Origin"); o != "" {
		if u, err := url.Parse(o); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return errs.Newf(errs.Denied, "origin %q is not allowed", o)
		}
	}
	return nil
}

func requestID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}

// response remembers what was sent.
type response struct {
	http.ResponseWriter
	status   int
	hijacked bool
}

func (w *response) WriteHeader(code int) {
	if w.status == 0 || w.status < 200 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Flush makes it an [http.Flusher], which gRPC asks for.
func (w *response) Flush() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap lets [http.ResponseController] at the rest.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
