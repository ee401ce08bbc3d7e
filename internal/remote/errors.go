package remote

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// said is what a registry answered: its first error, or its status.
type said struct {
	status  int
	code    string
	message string
}

func registrySaid(err error) (s said) {
	var st remoteerrors.ErrUnexpectedStatus
	if !errors.As(err, &st) {
		return s
	}
	s.status = st.StatusCode
	var body struct {
		Errors  []struct{ Code, Message string }
		Details any // of token servers: a text
	}
	if json.Unmarshal(st.Body, &body) == nil {
		s.message, _ = body.Details.(string)
		if len(body.Errors) > 0 {
			s.code, s.message = body.Errors[0].Code, body.Errors[0].Message
		}
	}
	return s
}

func (s said) text() string {
	switch {
	case s.code != "" && s.message != "":
		return strings.ToLower(strings.ReplaceAll(s.code, "_", " ")) + ": " + s.message
	case s.message != "":
		return s.message
	case s.status == http.StatusUnauthorized:
		return "unauthorized: authentication required"
	case s.status != 0:
		return "registry answered " + http.StatusText(s.status)
	}
	return ""
}

// denied is docker's sentence for a pull that found nothing it may see.
func denied(op string, named reference.Named, detail string) error {
	if detail == "" {
		detail = "denied: requested access to the resource is denied"
	}
	repo := reference.FamiliarName(named)
	if op == "pull" {
		return errs.Newf(errs.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %s", repo, detail)
	}
	if strings.HasPrefix(detail, "unauthorized") {
		return errs.New(errs.Unauthorized, detail)
	}
	return errs.New(errs.Denied, detail)
}

// explain puts a failure into docker's words. object is the tag or digest.
func explain(op string, named reference.Named, object string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if netErr := explainNetwork(named, err); netErr != nil {
		return netErr
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.Newf(errs.Unavailable, "%s %s: the registry broke off in the middle of an answer: %w", op, reference.FamiliarName(named), err)
	}
	s := registrySaid(err)
	switch {
	case errdefs.IsNotImplemented(err) && strings.Contains(err.Error(), schema1):
		return obsolete(named, object)
	case errdefs.IsNotFound(err) && strings.Contains(err.Error(), "rejecting "): // for its size, says the resolver
		return errs.Newf(errs.Invalid, "the manifest of %s is too big: more than %d bytes", familiar(named, object), docker.MaxManifestSize)
	case op == "push" && strings.Contains(err.Error(), "no basic auth credentials"):
		return errs.New(errs.Unauthorized, "no basic auth credentials")
	case errors.Is(err, docker.ErrInvalidAuthorization) && strings.Contains(err.Error(), "no basic auth credentials"):
		return errs.Newf(errs.Unauthorized, "Head %q: no basic auth credentials", manifestURL(named, object))
	case errors.Is(err, docker.ErrInvalidAuthorization), s.status == http.StatusUnauthorized:
		return denied(op, named, s.text())
	case s.status == http.StatusForbidden:
		return denied(op, named, s.text())
	case s.status == http.StatusTooManyRequests:
		return errs.Newf(errs.Unavailable, "toomanyrequests: %s", orText(s.message, "the registry limits the rate of requests; try again later"))
	case errdefs.IsNotFound(err), s.status == http.StatusNotFound:
		if op == "push" {
			return errs.Newf(errs.NotFound, "push to %s: %s", reference.FamiliarName(named), orText(s.text(), "repository does not exist"))
		}
		if s.code == "NAME_UNKNOWN" || s.code == "DENIED" {
			return denied(op, named, s.text())
		}
		return errs.Newf(errs.NotFound, "manifest for %s not found: manifest unknown: %s", familiar(named, object), orText(s.message, "manifest unknown"))
	case s.status >= 500:
		return errs.Newf(errs.Unavailable, "%s %s: received unexpected HTTP status: %d %s: %s", op, familiar(named, object), s.status, http.StatusText(s.status), s.text())
	case s.status >= 400:
		return errs.Newf(errs.Invalid, "%s %s: %s", op, familiar(named, object), s.text())
	}
	return err
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func familiar(named reference.Named, object string) string {
	if strings.Contains(object, ":") {
		return reference.FamiliarName(named) + "@" + object
	}
	return reference.FamiliarName(named) + ":" + object
}

func manifestURL(named reference.Named, object string) string {
	host := reference.Domain(named)
	if host == hub {
		host = hubHost
	}
	return "https://" + host + "/v2/" + reference.Path(named) + "/manifests/" + object
}

// explainNetwork recognises failures to reach the registry at all; Go's own
// text ("dial tcp …: connect: connection refused") is docker's too.
func explainNetwork(named reference.Named, err error) error {
	var ue *url.Error
	var oe *net.OpError
	var dns *net.DNSError
	if !errors.As(err, &oe) && !errors.As(err, &dns) && !errors.As(err, &ue) {
		return nil
	}
	host := reference.Domain(named)
	if host == hub {
		host = hubHost
	}
	var inner error
	switch {
	case oe != nil:
		inner = oe
	case dns != nil:
		inner = dns
	default:
		inner = ue.Err
	}
	if strings.Contains(inner.Error(), "server gave HTTP response to HTTPS client") {
		inner = errors.New("http: server gave HTTP response to HTTPS client")
	}
	return errs.Newf(errs.Unavailable, "Get %q: %w", "https://"+host+"/v2/", inner)
}
