package builds

import (
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const defaultDockerfile = "Dockerfile"

// clientSession is the remote of a context that the client's session serves.
const clientSession = "client-session"

// request translates docker's options to BuildKit's; names are the tags as
// people write them.
func request(o Options, hostGateway net.IP) (req build.Request, names []string, err error) {
	req.Session = o.SessionID
	req.Attrs = map[string]string{"filename": dockerfilePath(o.Dockerfile)}
	set := func(key, value string) {
		if value != "" {
			req.Attrs[key] = value
		}
	}
	set("target", o.Target)
	set("cgroup-parent", o.CgroupParent)
	for k, v := range o.BuildArgs {
		if v != nil { // without a value it is like not given
			req.Attrs["build-arg:"+k] = *v
		}
	}
	for k, v := range o.Labels {
		req.Attrs["label:"+k] = v
	}
	if o.NoCache {
		req.Attrs["no-cache"] = ""
	}
	if o.Pull {
		req.Attrs["image-resolve-mode"] = "pull"
	}
	if o.Squash {
		return req, nil, errs.New(errs.Unsupported, "squash is not supported: use a multi-stage build")
	}
	if o.Platform != "" {
		p, err := platform(o.Platform)
		if err != nil {
			return req, nil, err
		}
		set("platform", p)
	}
	if err := remote(o, req.Attrs); err != nil {
		return req, nil, err
	}
	if err := network(o.NetworkMode, &req); err != nil {
		return req, nil, err
	}
	hosts, err := extraHosts(o.ExtraHosts, hostGateway)
	if err != nil {
		return req, nil, err
	}
	set("add-hosts", hosts)
	if err := limits(o, set); err != nil {
		return req, nil, err
	}
	req.CacheFrom = o.CacheFrom
	req.Credentials = credentials(o.AuthConfigs)
	full, names, err := tags(o.Tags)
	if err != nil {
		return req, nil, err
	}
	req.Outputs, err = outputs(o.Outputs, full)
	return req, names, err
}

func dockerfilePath(p string) string {
	if p == "" {
		return defaultDockerfile
	}
	return strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(p, `\`, "/")), "/")
}

// platform is handed on: a foreign one needs no emulator where no step runs a
// program of it, and where one does, the kernel says so.
func platform(s string) (string, error) {
	p, err := platforms.Parse(s)
	if err != nil {
		return "", errs.Newf(errs.Invalid, "invalid platform %q: %w", s, err)
	}
	return platforms.Format(platforms.Normalize(p)), nil
}

// remote names a context that is not the request's body.
func remote(o Options, attrs map[string]string) error {
	switch r := o.Remote; {
	case r == "":
	case r == clientSession:
		if o.SessionID == "" {
			return errs.New(errs.Invalid, "client-session remote needs a session")
		}
	case strings.HasPrefix(r, "http://"), strings.HasPrefix(r, "https://"), strings.HasPrefix(r, "git://"),
		strings.HasPrefix(r, "ssh://"), strings.HasPrefix(r, "git@"), strings.HasPrefix(r, "github.com/"):
		attrs["context"] = r
	default:
		return errs.Newf(errs.Invalid, "unsupported remote build context %q", r)
	}
	return nil
}

func network(mode string, req *build.Request) error {
	switch mode {
	case "", "default", "bridge":
	case "none":
		req.Attrs["force-network-mode"] = mode
	case "host":
		req.Attrs["force-network-mode"] = mode
		req.Entitlements = append(req.Entitlements, string(entitlements.EntitlementNetworkHost))
	case "container:":
		return errs.New(errs.Invalid, "invalid network mode: a container's network needs its name or id")
	default: // a network's name or id, or container:NAME
		req.Attrs["force-network-mode"] = mode
	}
	return nil
}

// extraHosts turns "name:address" and "name=address" into BuildKit's list.
func extraHosts(in []string, gateway net.IP) (string, error) {
	var out []string
	for _, h := range in {
		name, addr, ok := strings.Cut(h, "=")
		if !ok {
			name, addr, ok = strings.Cut(h, ":")
		}
		if !ok || name == "" || strings.ContainsAny(name, `,"`) {
			return "", errs.Newf(errs.Invalid, "invalid extra host %q: want name:address", h)
		}
		if addr == "host-gateway" {
			if gateway == nil {
				return "", errs.New(errs.Invalid, "unable to derive the IP value for host-gateway")
			}
			addr = gateway.String()
		}
		ip := net.ParseIP(strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]"))
		if ip == nil {
			return "", errs.Newf(errs.Invalid, "invalid IP address in add-host: %q", addr)
		}
		out = append(out, name+"="+ip.String())
	}
	return strings.Join(out, ","), nil
}

func limits(o Options, set func(key, value string)) error {
	if o.Memory < 0 || o.MemorySwap < -1 || o.CPUShares < 0 || o.CPUPeriod < 0 || o.CPUQuota < 0 || o.ShmSize < 0 {
		return errs.New(errs.Invalid, "resource limits of a build must not be negative")
	}
	for key, n := range map[string]int64{
		"memory": o.Memory, "memswap": o.MemorySwap, "shm-size": o.ShmSize,
		"cpushares": o.CPUShares, "cpuperiod": o.CPUPeriod, "cpuquota": o.CPUQuota,
	} {
		if n != 0 {
			set(key, strconv.FormatInt(n, 10))
		}
	}
	set("cpusetcpus", o.CPUSetCPUs)
	set("cpusetmems", o.CPUSetMems)
	var ulimits []string
	for _, u := range o.Ulimits {
		if u == nil || u.Name == "" || strings.ContainsAny(u.Name, `,="`) {
			return errs.New(errs.Invalid, "invalid ulimit")
		}
		ulimits = append(ulimits, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	set("ulimit", strings.Join(ulimits, ","))
	return nil
}

// tags normalises the names of the image, and keeps their short forms.
func tags(in []string) (full, short []string, err error) {
	for _, t := range in {
		ref, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, nil, errs.Newf(errs.Invalid, "invalid reference format: %q: %w", t, err)
		}
		if _, ok := ref.(reference.Canonical); ok {
			return nil, nil, errs.New(errs.Invalid, "build tag cannot contain a digest")
		}
		ref = reference.TagNameOnly(ref)
		if slices.Contains(full, ref.String()) {
			continue
		}
		full = append(full, ref.String())
		short = append(short, reference.FamiliarString(ref))
	}
	return full, short, nil
}

func outputs(in []map[string]string, tags []string) ([]build.Output, error) {
	image := build.ImageOutput(strings.Join(tags, ","))
	if len(in) == 0 {
		return []build.Output{image}, nil
	}
	var out []build.Output
	for _, m := range in {
		attrs := map[string]string{}
		for k, v := range m {
			if k != "type" {
				attrs[k] = v
			}
		}
		switch t := m["type"]; t {
		case "cacheonly":
		case "", "image", "docker", "moby":
			if attrs["name"] == "" {
				attrs["name"] = image.Attrs["name"]
			}
			out = append(out, build.Output{Type: image.Type, Attrs: attrs})
		case "local", "tar", "oci":
			out = append(out, build.Output{Type: t, Attrs: attrs})
		default:
			return nil, errs.Newf(errs.Invalid, "unknown build output %q", t)
		}
	}
	return out, nil
}

// credentials finds those of a registry in what the client sent; docker.io has
// several names.
func credentials(auths map[string]registry.AuthConfig) func(string) (string, string) {
	if len(auths) == 0 {
		return nil
	}
	return func(host string) (user, secret string) {
		hosts := []string{host, "https://" + host, "http://" + host}
		if host == "registry-1.docker.io" || host == "docker.io" {
			hosts = append(hosts, "https://index.docker.io/v1/", "index.docker.io", "docker.io")
		}
		for _, h := range hosts {
			a, ok := auths[h]
			if !ok {
				continue
			}
			if a.IdentityToken != "" {
				return "", a.IdentityToken
			}
			return a.Username, a.Password
		}
		return "", ""
	}
}
