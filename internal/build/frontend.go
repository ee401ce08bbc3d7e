package build

import (
	"context"
	"maps"
	"regexp"

	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
)

// builtinSyntax matches the stable releases of the Dockerfile frontend. The
// linked one is newer and understands all they do.
var builtinSyntax = regexp.MustCompile(`^(docker\.io/)?docker/dockerfile(:(1(\.\d+){0,2}|latest))?$`)

// buildDockerfile is the Dockerfile frontend. A "# syntax=docker/dockerfile:1"
// line does not make it fetch and run an image of itself.
func buildDockerfile(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
	return dockerfile.Build(ctx, &builtinClient{Client: c})
}

// builtinClient answers the request for an official Dockerfile frontend by the
// linked one.
type builtinClient struct {
	gwclient.Client
	opts map[string]string // of a forwarded request; nil: the client's
}

// BuildOpts implements client.Client.
func (c *builtinClient) BuildOpts() gwclient.BuildOpts {
	o := c.Client.BuildOpts()
	if c.opts != nil {
		o.Opts = maps.Clone(c.opts)
	}
	o.Opts = nameNetwork(o.Opts)
	return o
}

// Solve implements client.Client.
func (c *builtinClient) Solve(ctx context.Context, r gwclient.SolveRequest) (*gwclient.Result, error) {
	if r.Frontend == "gateway.v0" && builtinSyntax.MatchString(r.FrontendOpt["source"]) {
		opts := maps.Clone(r.FrontendOpt)
		delete(opts, "source")
		return dockerfile.Build(ctx, &builtinClient{Client: c.Client, opts: opts})
	}
	return c.Client.Solve(ctx, r)
}
