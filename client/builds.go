package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageBuildOptions are the parameters of POST /build.
type ImageBuildOptions struct {
	Version                                           build.BuilderVersion
	Tags, CacheFrom, SecurityOpt, ExtraHosts          []string
	RemoteContext, Dockerfile, Target                 string
	SuppressOutput, NoCache, PullParent, Squash       bool
	Remove, ForceRemove                               bool // containers of steps
	Isolation                                         container.Isolation
	CPUSetCPUs, CPUSetMems, CgroupParent, NetworkMode string
	CPUShares, CPUQuota, CPUPeriod                    int64
	Memory, MemorySwap, ShmSize                       int64 // bytes
	Ulimits                                           []*container.Ulimit
	BuildArgs                                         map[string]*string // nil: the variable is named without a value
	Labels                                            map[string]string
	Platforms                                         []ocispec.Platform
	AuthConfigs                                       map[string]registry.AuthConfig
}

// ImageBuild builds an image of an archive that holds the build's context; the
// stream is its output.
func (c *Client) ImageBuild(ctx context.Context, buildContext io.Reader, o ImageBuildOptions) (io.ReadCloser, error) {
	if len(o.Platforms) > 1 {
		return nil, errors.New("specifying multiple platforms is not yet supported")
	}
	q := query{}.texts("t", o.Tags).texts("securityopt", o.SecurityOpt).texts("extrahosts", o.ExtraHosts).
		text("remote", o.RemoteContext).text("dockerfile", o.Dockerfile).text("target", o.Target).
		flag("q", o.SuppressOutput).flag("nocache", o.NoCache).flag("pull", o.PullParent).flag("squash", o.Squash).
		flag("forcerm", o.ForceRemove).
		text("cpusetcpus", o.CPUSetCPUs).text("cpusetmems", o.CPUSetMems).text("cgroupparent", o.CgroupParent).
		number("cpushares", o.CPUShares).number("cpuquota", o.CPUQuota).number("cpuperiod", o.CPUPeriod).
		number("memory", o.Memory).number("memswap", o.MemorySwap).number("shmsize", o.ShmSize).
		document("ulimits", o.Ulimits).document("buildargs", o.BuildArgs).document("labels", o.Labels).
		document("cachefrom", o.CacheFrom).text("version", string(o.Version))
	if !o.Remove {
		q.text("rm", "0") // it is the default
	}
	if !o.Isolation.IsDefault() {
		q.text("isolation", string(o.Isolation))
	}
	if o.NetworkMode != "default" {
		q.text("networkmode", o.NetworkMode)
	}
	if len(o.Platforms) == 1 {
		q.text("platform", platformText(&o.Platforms[0]))
	}
	logins, err := json.Marshal(o.AuthConfigs)
	if err != nil {
		return nil, err
	}
	if buildContext == nil {
		buildContext = http.NoBody
	}
	return c.stream(ctx, request{
		method: http.MethodPost, path: "/build", query: q.values(), body: buildContext,
		header: http.Header{"X-Registry-Config": {base64.URLEncoding.EncodeToString(logins)}, "Content-Type": {"application/x-tar"}},
	})
}

// BuildCachePrune removes what builds have cached: what is dangling, or all,
// but for so many bytes.
func (c *Client) BuildCachePrune(ctx context.Context, all bool, reserved int64, f Filters) (r build.CachePruneReport, err error) {
	q := query{}.flag("all", all).number("reserved-space", reserved).number("keep-storage", reserved).filters(f)
	return r, c.call(ctx, request{method: http.MethodPost, path: "/build/prune", query: q.values()}, &r)
}
