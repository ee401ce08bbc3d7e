package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/moby/moby/api/types/common"
)

// maxErrorBody bounds what is read of an error's text.
const maxErrorBody = 1 << 20

// request is one call of the API.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	json         any       // the body, encoded
	body         io.Reader // or as it is; it can be sent only once
}

// call sends a request and decodes the answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer drain(resp.Body)
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("reading the daemon's answer to %s %s: %w", r.method, r.path, err)
	}
	return nil
}

// drain reads what is left of a short answer, so that the connection can be
// used again.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 512)
	_ = body.Close()
}

// stream sends a request whose answer the caller reads and closes.
func (c *Client) stream(ctx context.Context, r request) (io.ReadCloser, error) {
	resp, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// do sends a request. The newest version is spoken until the daemon says that
// it is too new: most daemons know it, and asking first costs a round trip.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	if r.body != nil { // cannot be sent twice
		if err := c.agree(ctx); err != nil {
			return nil, err
		}
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	err = responseError(resp)
	if older := tooNew(err); older != "" && c.lower(older) {
		if resp, err = c.send(ctx, r); err != nil {
			return nil, err
		}
		err = responseError(resp)
	}
	if err != nil {
		return nil, err
	}
	c.agreed.Store(true)
	return resp, nil
}

func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return nil, c.connectError(err)
	}
	return resp, nil
}

func (c *Client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	body := r.body
	if r.json != nil {
		b, err := json.Marshal(r.json)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	u := url.URL{Scheme: c.scheme, Host: c.addr, Path: c.base + "/v" + c.APIVersion() + r.path, RawQuery: r.query.Encode()}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for k, v := range c.headers {
		req.Header.Set(k, v)
	}
	for k, v := range r.header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if r.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// A daemonError is the daemon's own words. errdefs tells its kind.
type daemonError struct {
	text string
	kind error
}

func (e *daemonError) Error() string { return e.text }
func (e *daemonError) Unwrap() error { return e.kind }

// responseError is nil for a success; else it has read and closed the body.
func responseError(resp *http.Response) error {
	if resp.StatusCode < 400 {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return err
	}
	var said common.ErrorResponse
	text := strings.TrimSpace(string(body))
	isJSON := strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json")
	switch {
	case len(body) == 0:
		text = fmt.Sprintf("request returned %s for API route and version %s, check if the server supports the requested API version", resp.Status, resp.Request.URL)
	case isJSON && json.Unmarshal(body, &said) == nil && said.Message != "":
		text = "Error response from daemon: " + strings.TrimSpace(said.Message)
	case isJSON:
		text = fmt.Sprintf("API returned a %d (%s) but provided no error-message", resp.StatusCode, http.StatusText(resp.StatusCode))
	default:
		text = "Error response from daemon: " + text
	}
	return &daemonError{text, errhttp.ToNative(resp.StatusCode)}
}

// ConnectionError says that no daemon answered.
type ConnectionError struct{ Err error }

func (e *ConnectionError) Error() string { return e.Err.Error() }
func (e *ConnectionError) Unwrap() error { return e.Err }

// connectError says in plain words why no answer came.
func (c *Client) connectError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	text := err.Error()
	var op *net.OpError
	switch {
	case c.scheme == "http" && strings.Contains(text, "malformed HTTP response"):
		err = fmt.Errorf("%w.\n* Are you trying to connect to a TLS-enabled daemon without TLS?", err)
	case c.scheme == "https" && (strings.Contains(text, "handshake failure") || strings.Contains(text, "bad certificate") || strings.Contains(text, "certificate required")):
		err = fmt.Errorf("the server probably has client authentication (--tlsverify) enabled; check your TLS client certification settings: %w", err)
	case errors.Is(err, os.ErrPermission):
		err = fmt.Errorf("permission denied while trying to connect to the API at %s: %w", c.host, os.ErrPermission)
	case errors.As(err, &op) && op.Op == "dial":
		err = fmt.Errorf("failed to connect to the API at %s: %w", c.host, op)
	default:
		err = fmt.Errorf("error during connect: %w", err)
	}
	return &ConnectionError{err}
}

// IsConnectionFailed reports whether err says that no daemon answered.
func IsConnectionFailed(err error) bool {
	var ce *ConnectionError
	var op *net.OpError
	return errors.As(err, &ce) || errors.As(err, &op) && op.Op == "dial"
}

// notFound is the answer for an empty name, which would be another route.
func notFound(kind, name string) error {
	return &daemonError{fmt.Sprintf("Error: No such %s: %s", kind, name), errdefs.ErrNotFound}
}

// segment makes a name a part of a path. Names have no slashes, but for images.
func segment(kind, name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return "", &daemonError{fmt.Sprintf("invalid %s name or ID: value is empty", kind), errdefs.ErrInvalidArgument}
	}
	return name, nil
}
