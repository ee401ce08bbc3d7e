package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const (
	// maxResumes is how often a download is taken up again without getting on,
	// unless told otherwise; the pauses before double from the first.
	maxResumes  = 4
	firstPause  = time.Second
	someBytes   = 64 << 10         // as many count as getting on
	maxPatience = 10 * time.Second // what a registry may ask us to wait
)

// resumer reads a blob to its end over connections that break, and past a
// registry that is away, or overwhelmed, for some seconds.
type resumer struct {
	ctx   context.Context //nolint:containedctx // of the download that it is
	open  func() (io.ReadCloser, error)
	pause time.Duration
	most  int // times it is taken up again without getting on
	told  func(err error, wait time.Duration)

	rc     io.ReadCloser
	offset int64
	failed int64 // the offset of the last failure
	fails  int   // since it last got on
	first  error // of them
}

func (r *resumer) Read(p []byte) (int, error) {
	for {
		n, err := r.rc.Read(p)
		r.offset += int64(n)
		if err == nil || err == io.EOF { //nolint:errorlint // that of a connection is wrapped, and no end
			return n, err
		}
		if err := r.again(err); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// again waits and opens the rest; else the failure stands.
func (r *resumer) again(err error) error {
	if r.offset-r.failed >= someBytes || r.fails == 0 {
		r.fails, r.first = 0, err
	}
	for r.failed = r.offset; r.fails < r.most && passing(err) && r.ctx.Err() == nil; {
		wait := r.pause << r.fails
		r.fails++
		r.told(err, wait)
		select {
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		case <-time.After(wait):
		}
		var rc io.ReadCloser
		if rc, err = r.open(); err != nil {
			continue
		}
		if s, ok := rc.(io.Seeker); ok {
			_, err = s.Seek(r.offset, io.SeekStart)
		} else {
			_, err = io.CopyN(io.Discard, rc, r.offset)
		}
		if err != nil {
			_ = rc.Close()
			continue
		}
		_ = r.rc.Close()
		r.rc = rc
		return nil
	}
	if r.ctx.Err() == nil && passing(err) {
		return r.first // what came after it is but its consequence
	}
	return err
}

func (r *resumer) Close() error { return r.rc.Close() }

// passing reports whether a failure may be over when asked again.
func passing(err error) bool {
	if s := registrySaid(err).status; s != 0 {
		return s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, docker.ErrInvalidAuthorization),
		errdefs.IsNotFound(err), errdefs.IsInvalidArgument(err), errdefs.IsFailedPrecondition(err), errdefs.IsUnauthorized(err),
		errdefs.IsPermissionDenied(err), errdefs.IsNotImplemented(err), errs.Is(err, errs.Invalid):
		return false
	}
	return true
}

// patient waits as long as a registry asks to that has too much to do: the
// library asks again at once. It is not as patient as to keep people waiting.
type patient struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.RoundTripper.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return resp, err
	}
	wait := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	if wait <= 0 || wait > maxPatience {
		return resp, nil
	}
	select {
	case <-r.Context().Done(): // the caller sees it, too
	case <-time.After(wait):
	}
	return resp, nil
}

// retryAfter reads seconds or a date; 0 is none.
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}
