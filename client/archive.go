package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"

	"github.com/moby/moby/api/types/container"
)

// ContainerStatPath describes a file of a container.
func (c *Client) ContainerStatPath(ctx context.Context, name, path string) (container.PathStat, error) {
	resp, err := c.archive(ctx, request{method: http.MethodHead, query: query{}.text("path", filepath.ToSlash(path)).values()}, name)
	if err != nil {
		return container.PathStat{}, err
	}
	defer drain(resp.Body)
	return pathStat(resp.Header)
}

// CopyFromContainer reads a file or directory of a container as a tar archive.
func (c *Client) CopyFromContainer(ctx context.Context, name, path string) (io.ReadCloser, container.PathStat, error) {
	resp, err := c.archive(ctx, request{method: http.MethodGet, query: query{}.text("path", filepath.ToSlash(path)).values()}, name)
	if err != nil {
		return nil, container.PathStat{}, err
	}
	st, err := pathStat(resp.Header)
	if err != nil {
		_ = resp.Body.Close()
		return nil, st, err
	}
	return resp.Body, st, nil
}

// CopyToContainerOptions say where an archive is extracted, and how.
type CopyToContainerOptions struct {
	Path       string
	Content    io.Reader // a tar archive
	CopyUIDGID bool      // owners are the archive's, not the container's user
}

// CopyToContainer extracts a tar archive in a directory of a container. A
// directory is never replaced by a file, nor the other way round.
func (c *Client) CopyToContainer(ctx context.Context, name string, o CopyToContainerOptions) error {
	q := query{}.text("path", filepath.ToSlash(o.Path)).text("noOverwriteDirNonDir", "true")
	if o.CopyUIDGID {
		q.text("copyUIDGID", "true")
	}
	body := o.Content
	if body == nil {
		body = http.NoBody
	}
	resp, err := c.archive(ctx, request{method: http.MethodPut, query: q.values(), body: body}, name)
	if err == nil {
		drain(resp.Body)
	}
	return err
}

func (c *Client) archive(ctx context.Context, r request, name string) (*http.Response, error) {
	name, err := segment("container", name)
	if err != nil {
		return nil, err
	}
	r.path = "/containers/" + name + "/archive"
	return c.do(ctx, r)
}

func pathStat(h http.Header) (st container.PathStat, err error) {
	b, err := base64.StdEncoding.DecodeString(h.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		err = fmt.Errorf("the daemon described the path badly: %w", err)
	}
	return st, err
}
