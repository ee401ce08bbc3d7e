package client

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/checkpoint"
)

// CheckpointCreate saves a running container to disk.
func (c *Client) CheckpointCreate(ctx context.Context, name string, o checkpoint.CreateRequest) error {
	return c.onContainer(ctx, http.MethodPost, name, "/checkpoints", nil, o, nil)
}

// CheckpointList lists a container's checkpoints; dir "" is where they are kept
// unless another place was named.
func (c *Client) CheckpointList(ctx context.Context, name, dir string) (list []checkpoint.Summary, err error) {
	return list, c.onContainer(ctx, http.MethodGet, name, "/checkpoints", query{}.text("dir", dir), nil, &list)
}

// CheckpointRemove removes a checkpoint.
func (c *Client) CheckpointRemove(ctx context.Context, name, dir, id string) error {
	id, err := segment("checkpoint", id)
	if err != nil {
		return err
	}
	return c.onContainer(ctx, http.MethodDelete, name, "/checkpoints/"+id, query{}.text("dir", dir), nil, nil)
}
