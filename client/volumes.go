package client

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/volume"
)

// VolumeList lists volumes.
func (c *Client) VolumeList(ctx context.Context, f Filters) (r volume.ListResponse, err error) {
	return r, c.call(ctx, request{method: http.MethodGet, path: "/volumes", query: query{}.filters(f).values()}, &r)
}

// VolumeCreate makes a volume.
func (c *Client) VolumeCreate(ctx context.Context, r volume.CreateRequest) (v volume.Volume, err error) {
	return v, c.call(ctx, request{method: http.MethodPost, path: "/volumes/create", json: r}, &v)
}

// VolumeInspect returns the daemon's own document of a volume.
func (c *Client) VolumeInspect(ctx context.Context, name string) (raw json.RawMessage, err error) {
	if name, err = segment("volume", name); err != nil {
		return nil, err
	}
	return raw, c.call(ctx, request{method: http.MethodGet, path: "/volumes/" + name}, &raw)
}

// VolumeRemove removes a volume.
func (c *Client) VolumeRemove(ctx context.Context, name string, force bool) error {
	name, err := segment("volume", name)
	if err != nil {
		return err
	}
	return c.call(ctx, request{method: http.MethodDelete, path: "/volumes/" + name, query: query{}.flag("force", force).values()}, nil)
}

// VolumePrune removes volumes that nobody uses: anonymous ones, or all.
func (c *Client) VolumePrune(ctx context.Context, all bool, f Filters) (r volume.PruneReport, err error) {
	f = f.Clone()
	if all {
		f.Add("all", "true")
	}
	return r, c.call(ctx, request{method: http.MethodPost, path: "/volumes/prune", query: query{}.filters(f).values()}, &r)
}
