package client

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/network"
)

func (c *Client) onNetwork(ctx context.Context, method, name, verb string, q query, in, out any) error {
	name, err := segment("network", name)
	if err != nil {
		return err
	}
	return c.call(ctx, request{method: method, path: "/networks/" + name + verb, query: q.values(), json: in}, out)
}

// NetworkList lists networks.
func (c *Client) NetworkList(ctx context.Context, f Filters) (list []network.Summary, err error) {
	return list, c.call(ctx, request{method: http.MethodGet, path: "/networks", query: query{}.filters(f).values()}, &list)
}

// NetworkCreate makes a network.
func (c *Client) NetworkCreate(ctx context.Context, r network.CreateRequest) (out network.CreateResponse, err error) {
	return out, c.call(ctx, request{method: http.MethodPost, path: "/networks/create", json: r}, &out)
}

// NetworkInspect returns the daemon's own document of a network.
func (c *Client) NetworkInspect(ctx context.Context, name string, verbose bool) (raw json.RawMessage, err error) {
	q := query{}
	if verbose {
		q.text("verbose", "true")
	}
	return raw, c.onNetwork(ctx, http.MethodGet, name, "", q, nil, &raw)
}

// NetworkRemove removes a network.
func (c *Client) NetworkRemove(ctx context.Context, name string) error {
	return c.onNetwork(ctx, http.MethodDelete, name, "", nil, nil, nil)
}

// NetworkConnect connects a container to a network.
func (c *Client) NetworkConnect(ctx context.Context, name string, r network.ConnectRequest) error {
	if _, err := segment("container", r.Container); err != nil {
		return err
	}
	return c.onNetwork(ctx, http.MethodPost, name, "/connect", nil, r, nil)
}

// NetworkDisconnect takes a container off a network.
func (c *Client) NetworkDisconnect(ctx context.Context, name string, r network.DisconnectRequest) error {
	if _, err := segment("container", r.Container); err != nil {
		return err
	}
	return c.onNetwork(ctx, http.MethodPost, name, "/disconnect", nil, r, nil)
}

// NetworkPrune removes networks that nobody uses.
func (c *Client) NetworkPrune(ctx context.Context, f Filters) (r network.PruneReport, err error) {
	return r, c.call(ctx, request{method: http.MethodPost, path: "/networks/prune", query: query{}.filters(f).values()}, &r)
}
