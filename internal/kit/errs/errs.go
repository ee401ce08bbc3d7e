// Package errs gives errors a kind, so that each door (HTTP, CLI, CRI) can
// translate a failure once, without looking at its text.
//
// Make the kind where the fact is known, wrap with %w on the way up, and call
// [KindOf] at the door:
//
//	return errs.Newf(errs.NotFound, "No such container: %s", id)
package errs

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// Kind says what sort of failure an error is.
type Kind uint8

// The kinds, with the HTTP status that the API door gives each.
const (
	Internal     Kind = iota // 500: ours; also every error without a kind
	Invalid                  // 400: the request is wrong
	Unauthorized             // 401: who are you
	Denied                   // 403: known, and not allowed
	NotFound                 // 404: no such object
	Conflict                 // 409: the object's state does not allow it
	Unsupported              // 501: understood, and not offered
	Unavailable              // 503: a dependency does not answer now
	Unchanged                // 304: already so (start of a running container)
	Canceled                 // 499: the caller went away
)

func (k Kind) String() string {
	switch k {
	case Invalid:
		return "invalid"
	case Unauthorized:
		return "unauthorized"
	case Denied:
		return "denied"
	case NotFound:
		return "not found"
	case Conflict:
		return "conflict"
	case Unsupported:
		return "unsupported"
	case Unavailable:
		return "unavailable"
	case Unchanged:
		return "unchanged"
	case Canceled:
		return "canceled"
	case Internal:
		return "internal"
	}
	return "internal"
}

type kindError struct {
	kind Kind
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

// New returns an error of the kind with the text.
func New(k Kind, text string) error { return &kindError{k, errors.New(text)} }

// Newf is [New] with formatting; %w wraps as in [fmt.Errorf].
func Newf(k Kind, format string, args ...any) error {
	return &kindError{k, fmt.Errorf(format, args...)}
}

// With gives err the kind, whatever kind it had. With(k, nil) is nil.
func With(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kindError{k, err}
}

// KindOf returns the outermost kind in err's chain. Errors of containerd's and
// BuildKit's libraries, which carry errdefs classes, and cancelled contexts are
// translated; anything else is [Internal].
func KindOf(err error) Kind {
	var ke *kindError
	if errors.As(err, &ke) {
		return ke.kind
	}
	switch {
	case err == nil:
		return Internal
	case errors.Is(err, context.Canceled):
		return Canceled
	case errdefs.IsNotFound(err):
		return NotFound
	case errdefs.IsInvalidArgument(err), errdefs.IsOutOfRange(err):
		return Invalid
	case errdefs.IsAlreadyExists(err), errdefs.IsConflict(err), errdefs.IsFailedPrecondition(err):
		return Conflict
	case errdefs.IsUnauthorized(err):
		return Unauthorized
	case errdefs.IsPermissionDenied(err):
		return Denied
	case errdefs.IsUnavailable(err):
		return Unavailable
	case errdefs.IsNotImplemented(err):
		return Unsupported
	case errdefs.IsNotModified(err):
		return Unchanged
	}
	return Internal
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
