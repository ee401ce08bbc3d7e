package apiserver

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/moby/moby/api/types/common"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// statusClientGone is nginx's code for a client that did not wait; only logged.
const statusClientGone = 499

// status is the one place where a failure becomes an HTTP status.
func status(err error) int {
	switch errs.KindOf(err) {
	case errs.Invalid:
		return http.StatusBadRequest
	case errs.Unauthorized:
		return http.StatusUnauthorized
	case errs.Denied:
		return http.StatusForbidden
	case errs.NotFound:
		return http.StatusNotFound
	case errs.Conflict:
		return http.StatusConflict
	case errs.Unsupported:
		return http.StatusNotImplemented
	case errs.Unavailable:
		return http.StatusServiceUnavailable
	case errs.Unchanged:
		return http.StatusNotModified
	case errs.Canceled:
		return statusClientGone
	case errs.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// fail answers with docker's error body. If an answer has begun already, the
// connection is cut, so that the client does not take it for complete.
func (s *Server) fail(w *response, r *http.Request, log *slog.Logger, err error) {
	code := status(err)
	if code == statusClientGone && r.Context().Err() == nil {
		code = http.StatusInternalServerError // something of ours was cancelled, not the request
	}
	level := slog.LevelDebug
	if code == http.StatusInternalServerError {
		level = slog.LevelError
	}
	log.Log(r.Context(), level, "request failed", "status", code, "err", err)
	switch {
	case w.hijacked:
	case w.status != 0:
		panic(http.ErrAbortHandler)
	case code == http.StatusNotModified || code == statusClientGone:
		w.WriteHeader(code)
	default:
		drain(w, r)
		if version, _ := splitVersion(r.URL.Path); version != "" {
			if v, ok := parseVersion(version); ok && v.before(24) { // such clients show the body as it is
				http.Error(w, err.Error(), code)
				return
			}
		}
		h := w.Header()
		h.Del("Content-Encoding")
		_ = writeJSON(w, code, common.ErrorResponse{Message: err.Error()})
	}
}

// drain reads a refused request's body, up to a limit, where net/http does not:
// with "Connection: close" it would hang up at once, and a client that is still
// sending would be told of a broken pipe instead of the reason.
func drain(w http.ResponseWriter, r *http.Request) {
	if !r.Close || r.Header.Get("Expect") != "" {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainPatience)) // HTTP/2 and tests have none
	_, _ = io.CopyN(io.Discard, r.Body, maxDrained)
}

const (
	drainPatience = time.Second
	maxDrained    = 256 << 10 // as net/http
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// buffer lends one; done takes it back.
func buffer() (b *bytes.Buffer, done func()) {
	b, _ = buffers.Get().(*bytes.Buffer)
	b.Reset()
	return b, func() {
		if b.Cap() <= 4<<20 {
			buffers.Put(b)
		}
	}
}

// okBytes answers with the JSON that add appends.
func okBytes(w http.ResponseWriter, add func([]byte) ([]byte, error)) error {
	b, done := buffer()
	defer done()
	out, err := add(b.AvailableBuffer())
	if err != nil {
		return err
	}
	*b = *bytes.NewBuffer(append(out, '\n')) // which keeps what it grew to
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b.Bytes()) // a client that went away is not our failure
	return nil
}

// writeJSON answers with a value.
func writeJSON(w http.ResponseWriter, code int, v any) error {
	b, done := buffer()
	defer done()
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // a client that went away is not our failure
	return nil
}

func ok(w http.ResponseWriter, v any) error { return writeJSON(w, http.StatusOK, v) }

// answer is [ok], or the error.
func answer[T any](w http.ResponseWriter, v T, err error) error {
	if err != nil {
		return err
	}
	return ok(w, v)
}

// done answers with no content, or the error.
func done(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// list makes an empty JSON array of nil.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}
