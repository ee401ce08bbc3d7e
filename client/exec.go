package client

import (
	"context"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/container"
)

// ConsoleSize is a terminal's size, in characters.
type ConsoleSize struct{ Height, Width uint }

func (s ConsoleSize) query() query {
	return query{"h": {strconv.FormatUint(uint64(s.Height), 10)}, "w": {strconv.FormatUint(uint64(s.Width), 10)}}
}

// Pair is the size as API documents have it; nil if it is not known.
func (s ConsoleSize) Pair() *[2]uint {
	if s == (ConsoleSize{}) {
		return nil
	}
	return &[2]uint{s.Height, s.Width}
}

// ExecCreate prepares one more process in a container; it returns its ID.
func (c *Client) ExecCreate(ctx context.Context, name string, r container.ExecCreateRequest) (string, error) {
	var out container.ExecCreateResponse
	err := c.onContainer(ctx, http.MethodPost, name, "/exec", nil, r, &out)
	return out.ID, err
}

// ExecStart starts a prepared process in the background.
func (c *Client) ExecStart(ctx context.Context, id string, r container.ExecStartRequest) error {
	r.Detach = true
	return c.call(ctx, request{method: http.MethodPost, path: "/exec/" + id + "/start", json: r}, nil)
}

// ExecAttach starts a prepared process and joins its streams.
func (c *Client) ExecAttach(ctx context.Context, id string, r container.ExecStartRequest) (*Conn, error) {
	r.Detach = false
	return c.attach(ctx, "/exec/"+id+"/start", nil, r)
}

// ExecInspect describes a process.
func (c *Client) ExecInspect(ctx context.Context, id string) (r container.ExecInspectResponse, err error) {
	return r, c.call(ctx, request{method: http.MethodGet, path: "/exec/" + id + "/json"}, &r)
}

// ExecResize sets the size of a process's terminal.
func (c *Client) ExecResize(ctx context.Context, id string, s ConsoleSize) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/exec/" + id + "/resize", query: s.query().values()}, nil)
}
