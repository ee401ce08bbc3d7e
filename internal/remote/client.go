package remote

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const (
	hub     = "docker.io"
	hubHost = "registry-1.docker.io"
	hubAuth = "https://index.docker.io/v1/"
	hubWeb  = "https://index.docker.io"
)

// Options of [New]; the zero value is a daemon without configuration.
type Options struct {
	Settings // at first
	// CertsDir holds a directory per registry ("host:port") with ca.crt and
	// client.cert/client.key files, as /etc/docker/certs.d.
	CertsDir  string
	UserAgent string
	// Pause is before a broken download is taken up again for the first time;
	// zero is a second.
	Pause time.Duration
	Log   *slog.Logger
}

// Settings are the options that may change while the client lives.
type Settings struct {
	// InsecureRegistries are hosts, hosts with port, or address ranges whose
	// certificates are not checked and which may answer plain HTTP. Loopback
	// addresses always are.
	InsecureRegistries []string
	// Mirrors are asked before docker.io for what is on it.
	Mirrors []string
	// Attempts is how often a download is begun, or taken up again, without
	// getting on; 0 is docker's 5.
	Attempts int
}

// settings are those, read.
type settings struct {
	insecure []netip.Prefix
	names    map[string]bool // insecure hosts by name
	mirrors  []*url.URL
	resumes  int
}

// Client reaches registries. It keeps connections, never credentials.
type Client struct {
	opts Options
	set  atomic.Pointer[settings]
	idle time.Duration // how long an answer may stand still

	mu         sync.Mutex
	transports map[string]*transport // by host; guarded by mu
}

// New checks the options.
func New(o Options) (*Client, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.UserAgent == "" {
		o.UserAgent = "skiff"
	}
	if o.Pause == 0 {
		o.Pause = firstPause
	}
	c := &Client{opts: o, idle: idleAfter, transports: map[string]*transport{}}
	apply, err := c.Prepare(o.Settings)
	if err != nil {
		return nil, err
	}
	apply()
	return c, nil
}

// Prepare checks other settings; the function applies them to requests that come.
func (c *Client) Prepare(o Settings) (apply func(), err error) {
	s := &settings{names: map[string]bool{}, resumes: maxResumes}
	if o.Attempts > 0 {
		s.resumes = o.Attempts - 1
	}
	for _, r := range o.InsecureRegistries {
		if p, err := netip.ParsePrefix(r); err == nil {
			s.insecure = append(s.insecure, p)
			continue
		}
		if strings.Contains(r, "://") || strings.ContainsAny(r, "/ ") || r == "" {
			return nil, errs.Newf(errs.Invalid, "insecure registry %s is not valid: it must be a host, a host with port, or an address range", r)
		}
		s.names[strings.ToLower(r)] = true
	}
	for _, p := range []string{"127.0.0.0/8", "::1/128"} {
		s.insecure = append(s.insecure, netip.MustParsePrefix(p))
	}
	for _, m := range o.Mirrors {
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return nil, errs.Newf(errs.Invalid, "invalid mirror: %s is not an http or https URL of a host", m)
		}
		s.mirrors = append(s.mirrors, u)
	}
	return func() { c.set.Store(s) }, nil
}

// Insecure reports whether host ("name", "name:port") may answer without a
// valid certificate.
func (c *Client) Insecure(host string) bool { return c.set.Load().trusts(host) }

func (s *settings) trusts(host string) bool {
	host = strings.ToLower(host)
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if s.names[host] || s.names[name] || name == "localhost" {
		return true
	}
	if a, err := netip.ParseAddr(name); err == nil {
		for _, p := range s.insecure {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	// Only ranges beyond loopback make a look-up worth while.
	if len(s.insecure) <= 2 {
		return false
	}
	addrs, err := net.LookupIP(name) //nolint:noctx // as dockerd: configuration, cached by the resolver
	if err != nil {
		return false
	}
	for _, ip := range addrs {
		if a, ok := netip.AddrFromSlice(ip); ok {
			for _, p := range s.insecure {
				if p.Contains(a.Unmap()) {
					return true
				}
			}
		}
	}
	return false
}

// Credentials finds the credentials for a registry ("docker.io", "host:port").
type Credentials func(host string) *registry.AuthConfig

// Hosts returns where and how to reach a registry: for resolvers, also the
// builder's. Credentials go to the registry itself and to its token server,
// never to a mirror.
func (c *Client) Hosts(creds Credentials) docker.RegistryHosts {
	return func(name string) ([]docker.RegistryHost, error) {
		var out []docker.RegistryHost
		if name == hub {
			for _, m := range c.set.Load().mirrors {
				h, err := c.host(m.Scheme, m.Host, nil)
				if err != nil {
					return nil, err
				}
				h.Path = strings.TrimSuffix(m.Path, "/") + "/v2"
				h.Capabilities = docker.HostCapabilityPull | docker.HostCapabilityResolve
				out = append(out, h)
			}
		}
		var auth *registry.AuthConfig
		if creds != nil {
			auth = creds(name)
		}
		host := name
		if name == hub {
			host = hubHost
		}
		h, err := c.host("https", host, auth)
		if err != nil {
			return nil, err
		}
		return append(out, h), nil
	}
}

func (c *Client) host(scheme, host string, auth *registry.AuthConfig) (docker.RegistryHost, error) {
	rt, err := c.transport(host)
	if err != nil {
		return docker.RegistryHost{}, err
	}
	rt = &patient{rt}
	client := &http.Client{Transport: rt}
	h := docker.RegistryHost{
		Client: client, Host: host, Scheme: scheme, Path: "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
	}
	if auth != nil && auth.RegistryToken != "" {
		h.Header = http.Header{"Authorization": {"Bearer " + auth.RegistryToken}}
		return h, nil
	}
	h.Authorizer = docker.NewDockerAuthorizer(
		docker.WithAuthClient(&http.Client{Transport: &asDocker{rt}}),
		docker.WithAuthHeader(http.Header{"User-Agent": {c.opts.UserAgent}}),
		docker.WithAuthCreds(func(at string) (string, string, error) {
			if auth == nil || at != host {
				return "", "", nil
			}
			user, secret := secretOf(auth)
			return user, secret, nil
		}))
	return h, nil
}
