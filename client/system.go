package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
)

// Info describes the daemon and its host.
func (c *Client) Info(ctx context.Context) (r system.Info, err error) {
	return r, c.call(ctx, request{method: http.MethodGet, path: "/info"}, &r)
}

// ServerVersion tells the daemon's versions.
func (c *Client) ServerVersion(ctx context.Context) (r system.VersionResponse, err error) {
	return r, c.call(ctx, request{method: http.MethodGet, path: "/version"}, &r)
}

// RegistryLogin checks credentials with a registry.
func (c *Client) RegistryLogin(ctx context.Context, a registry.AuthConfig) (r registry.AuthResponse, err error) {
	return r, c.call(ctx, request{method: http.MethodPost, path: "/auth", json: a}, &r)
}

// EventsOptions say which events are wanted. Since and Until are as in
// [Timestamp].
type EventsOptions struct {
	Since, Until string
	Filters      Filters
}

// Events delivers events until ctx ends or the daemon does; then one error,
// io.EOF at the end of what was asked for. It returns once the daemon listens.
func (c *Client) Events(ctx context.Context, o EventsOptions) (<-chan events.Message, <-chan error) {
	messages, failed := make(chan events.Message), make(chan error, 1)
	q := query{}.filters(o.Filters)
	if err := q.span(o.Since, o.Until, time.Now()); err != nil {
		failed <- err
		return messages, failed
	}
	body, err := c.stream(ctx, request{method: http.MethodGet, path: "/events", query: q.values()})
	if err != nil {
		failed <- err
		return messages, failed
	}
	go func() {
		defer func() { _ = body.Close() }()
		for dec := json.NewDecoder(body); ; {
			var m events.Message
			if err := dec.Decode(&m); err != nil {
				failed <- err
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	return messages, failed
}
