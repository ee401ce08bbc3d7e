package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

// onContainer is a call of /containers/NAME/…
func (c *Client) onContainer(ctx context.Context, method, name, verb string, q query, in, out any) error {
	name, err := segment("container", name)
	if err != nil {
		return err
	}
	return c.call(ctx, request{method: method, path: "/containers/" + name + verb, query: q.values(), json: in}, out)
}

// ContainerListOptions say which containers are listed, and with what.
type ContainerListOptions struct {
	All, Size bool
	Limit     int
	Filters   Filters
}

// ContainerList lists containers.
func (c *Client) ContainerList(ctx context.Context, o ContainerListOptions) (list []container.Summary, err error) {
	q := query{}.flag("all", o.All).flag("size", o.Size).number("limit", int64(max(o.Limit, 0))).filters(o.Filters)
	return list, c.call(ctx, request{method: http.MethodGet, path: "/containers/json", query: q.values()}, &list)
}

// ContainerCreateOptions describe a container.
type ContainerCreateOptions struct {
	Name             string
	Platform         *ocispec.Platform
	Config           *container.Config
	HostConfig       *container.HostConfig
	NetworkingConfig *network.NetworkingConfig
}

// ContainerCreate makes a container.
func (c *Client) ContainerCreate(ctx context.Context, o ContainerCreateOptions) (r container.CreateResponse, err error) {
	if o.Config == nil || o.Config.Image == "" {
		return r, errors.New("no image was given")
	}
	in := container.CreateRequest{Config: o.Config, HostConfig: o.HostConfig, NetworkingConfig: o.NetworkingConfig}
	if h := o.HostConfig; h != nil {
		h := *h
		h.CapAdd, h.CapDrop = capabilities(h.CapAdd), capabilities(h.CapDrop)
		in.HostConfig = &h
	}
	q := query{}.text("name", o.Name).text("platform", platformText(o.Platform))
	return r, c.call(ctx, request{method: http.MethodPost, path: "/containers/create", query: q.values(), json: in}, &r)
}

// capabilities writes names the one way that all daemons know.
func capabilities(names []string) []string {
	out := slices.Clone(names)
	for i, n := range out {
		if n = strings.ToUpper(n); n != "ALL" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		out[i] = n
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ContainerInspect describes a container; raw is the daemon's own document.
func (c *Client) ContainerInspect(ctx context.Context, name string, size bool) (r container.InspectResponse, raw json.RawMessage, err error) {
	err = c.onContainer(ctx, http.MethodGet, name, "/json", query{}.flag("size", size), nil, &raw)
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	return r, raw, err
}

// ContainerStartOptions name a checkpoint to start from.
type ContainerStartOptions struct{ CheckpointID, CheckpointDir string }

// ContainerStart starts a container.
func (c *Client) ContainerStart(ctx context.Context, name string, o ContainerStartOptions) error {
	q := query{}.text("checkpoint", o.CheckpointID).text("checkpoint-dir", o.CheckpointDir)
	return c.onContainer(ctx, http.MethodPost, name, "/start", q, nil, nil)
}

// ContainerStopOptions say how a container is asked to end.
type ContainerStopOptions struct {
	Signal  string
	Timeout *int // seconds until it is killed; nil: the container's own
}

func (o ContainerStopOptions) query() query {
	q := query{}.text("signal", o.Signal)
	if o.Timeout != nil {
		q.text("t", strconv.Itoa(*o.Timeout)) // 0 counts
	}
	return q
}

// ContainerStop ends a container.
func (c *Client) ContainerStop(ctx context.Context, name string, o ContainerStopOptions) error {
	return c.onContainer(ctx, http.MethodPost, name, "/stop", o.query(), nil, nil)
}

// ContainerRestart ends and starts a container.
func (c *Client) ContainerRestart(ctx context.Context, name string, o ContainerStopOptions) error {
	return c.onContainer(ctx, http.MethodPost, name, "/restart", o.query(), nil, nil)
}

// ContainerKill sends a signal; "" is SIGKILL.
func (c *Client) ContainerKill(ctx context.Context, name, signal string) error {
	return c.onContainer(ctx, http.MethodPost, name, "/kill", query{}.text("signal", signal), nil, nil)
}

// ContainerPause freezes a container.
func (c *Client) ContainerPause(ctx context.Context, name string) error {
	return c.onContainer(ctx, http.MethodPost, name, "/pause", nil, nil, nil)
}

// ContainerUnpause thaws a container.
func (c *Client) ContainerUnpause(ctx context.Context, name string) error {
	return c.onContainer(ctx, http.MethodPost, name, "/unpause", nil, nil, nil)
}

// ContainerRename gives a container another name.
func (c *Client) ContainerRename(ctx context.Context, name, to string) error {
	return c.onContainer(ctx, http.MethodPost, name, "/rename", query{}.text("name", to), nil, nil)
}

// ContainerRemoveOptions say what goes with a container.
type ContainerRemoveOptions struct{ Force, RemoveVolumes, RemoveLinks bool }

// ContainerRemove removes a container.
func (c *Client) ContainerRemove(ctx context.Context, name string, o ContainerRemoveOptions) error {
	q := query{}.flag("force", o.Force).flag("v", o.RemoveVolumes).flag("link", o.RemoveLinks)
	return c.onContainer(ctx, http.MethodDelete, name, "", q, nil, nil)
}

// ContainerUpdate changes limits and the restart policy; it returns warnings.
func (c *Client) ContainerUpdate(ctx context.Context, name string, u container.UpdateConfig) ([]string, error) {
	var r container.UpdateResponse
	err := c.onContainer(ctx, http.MethodPost, name, "/update", nil, u, &r)
	return r.Warnings, err
}

// ContainerTop lists a container's processes, as ps with these arguments does.
func (c *Client) ContainerTop(ctx context.Context, name string, args []string) (r container.TopResponse, err error) {
	return r, c.onContainer(ctx, http.MethodGet, name, "/top", query{}.text("ps_args", strings.Join(args, " ")), nil, &r)
}

// ContainerDiff lists what a container has changed of its image.
func (c *Client) ContainerDiff(ctx context.Context, name string) (r []container.FilesystemChange, err error) {
	return r, c.onContainer(ctx, http.MethodGet, name, "/changes", nil, nil, &r)
}

// ContainerResize sets the size of a container's terminal.
func (c *Client) ContainerResize(ctx context.Context, name string, s ConsoleSize) error {
	return c.onContainer(ctx, http.MethodPost, name, "/resize", s.query(), nil, nil)
}

// ContainerPrune removes containers that have ended.
func (c *Client) ContainerPrune(ctx context.Context, f Filters) (r container.PruneReport, err error) {
	return r, c.call(ctx, request{method: http.MethodPost, path: "/containers/prune", query: query{}.filters(f).values()}, &r)
}

// ContainerCommitOptions describe the image to make of a container.
type ContainerCommitOptions struct {
	Reference, Comment, Author string
	Changes                    []string
	NoPause                    bool
}

// ContainerCommit makes an image of a container; it returns the image's ID.
func (c *Client) ContainerCommit(ctx context.Context, name string, o ContainerCommitOptions) (string, error) {
	name, err := segment("container", name)
	if err != nil {
		return "", err
	}
	q := query{}.text("container", name).text("comment", o.Comment).text("author", o.Author).texts("changes", o.Changes)
	if o.NoPause {
		q.text("pause", "0")
	}
	if o.Reference != "" {
		ref, err := tagReference(o.Reference)
		if err != nil {
			return "", err
		}
		q.text("repo", ref.Name()).text("tag", ref.Tag)
	}
	var r container.CommitResponse
	err = c.call(ctx, request{method: http.MethodPost, path: "/commit", query: q.values()}, &r)
	return r.ID, err
}

// tagReference is a name that an image can get.
func tagReference(s string) (imageref.Ref, error) {
	ref, err := imageref.Parse(s)
	if err != nil {
		return ref, err
	}
	if ref.Digest != "" {
		return ref, errors.New("refusing to create a tag with a digest reference")
	}
	return ref.Tagged(), nil
}

// ContainerExport reads a container's files as a tar archive.
func (c *Client) ContainerExport(ctx context.Context, name string) (io.ReadCloser, error) {
	return c.read(ctx, name, "/export", nil)
}

// read is a stream of /containers/NAME/…
func (c *Client) read(ctx context.Context, name, verb string, q query) (io.ReadCloser, error) {
	name, err := segment("container", name)
	if err != nil {
		return nil, err
	}
	return c.stream(ctx, request{method: http.MethodGet, path: "/containers/" + name + verb, query: q.values()})
}

// ContainerLogsOptions say which lines are wanted. Since and Until are times or
// ages as in [Timestamp].
type ContainerLogsOptions struct {
	ShowStdout, ShowStderr, Timestamps, Follow, Details bool
	Since, Until, Tail                                  string
}

// ContainerLogs reads what a container printed.
func (c *Client) ContainerLogs(ctx context.Context, name string, o ContainerLogsOptions) (io.ReadCloser, error) {
	q := query{}.flag("stdout", o.ShowStdout).flag("stderr", o.ShowStderr).flag("timestamps", o.Timestamps).
		flag("follow", o.Follow).flag("details", o.Details)
	if o.Tail != "all" {
		q.text("tail", o.Tail)
	}
	if err := q.span(o.Since, o.Until, time.Now()); err != nil {
		return nil, err
	}
	return c.read(ctx, name, "/logs", q)
}

// ContainerStatsOptions choose one sample or a stream of them.
type ContainerStatsOptions struct {
	Stream                bool
	IncludePreviousSample bool // one sample: with the one before, to compare with
}

// ContainerStats reads documents of [container.StatsResponse].
func (c *Client) ContainerStats(ctx context.Context, name string, o ContainerStatsOptions) (io.ReadCloser, error) {
	q := query{}.text("stream", "false")
	switch {
	case o.Stream:
		q.text("stream", "true")
	case !o.IncludePreviousSample:
		q.text("one-shot", "true")
	}
	return c.read(ctx, name, "/stats", q)
}

// ContainerWait waits for a container's end. It returns once the daemon has
// noted that, and delivers one answer or one error.
func (c *Client) ContainerWait(ctx context.Context, name string, until container.WaitCondition) (<-chan container.WaitResponse, <-chan error) {
	result, failed := make(chan container.WaitResponse, 1), make(chan error, 1)
	name, err := segment("container", name)
	if err != nil {
		failed <- err
		return result, failed
	}
	body, err := c.stream(ctx, request{
		method: http.MethodPost, path: "/containers/" + name + "/wait", query: query{}.text("condition", string(until)).values(),
	})
	if err != nil {
		failed <- err
		return result, failed
	}
	go func() {
		defer func() { _ = body.Close() }()
		var r container.WaitResponse
		if err := json.NewDecoder(body).Decode(&r); err != nil {
			failed <- err
			return
		}
		result <- r
	}()
	return result, failed
}

// ContainerAttachOptions say which streams are wanted.
type ContainerAttachOptions struct {
	Stdin, Stdout, Stderr, Logs bool
	DetachKeys                  string
}

// ContainerAttach joins a container's streams.
func (c *Client) ContainerAttach(ctx context.Context, name string, o ContainerAttachOptions) (*Conn, error) {
	name, err := segment("container", name)
	if err != nil {
		return nil, err
	}
	q := query{}.flag("stream", true).flag("stdin", o.Stdin).flag("stdout", o.Stdout).flag("stderr", o.Stderr).
		flag("logs", o.Logs).text("detachKeys", o.DetachKeys)
	return c.attach(ctx, "/containers/"+name+"/attach", q.values(), nil)
}
