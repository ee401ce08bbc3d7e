package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	// InsecureRegistries are hosts, hosts with port, or address ranges whose
	// certificates are not checked and which may answer plain HTTP. Loopback
	// addresses always are.
	InsecureRegistries []string
	// Mirrors are asked before docker.io for what is on it.
	Mirrors []string
	// CertsDir holds a directory per registry ("host:port") with ca.crt and
	// client.cert/client.key files, as /etc/docker/certs.d.
	CertsDir  string
	UserAgent string
	// Pause is before a broken download is taken up again for the first time;
	// zero is a second.
	Pause time.Duration
	Log   *slog.Logger
}

// Client reaches registries. It keeps connections, never credentials.
type Client struct {
	opts     Options
	insecure []netip.Prefix
	names    map[string]bool // insecure hosts by name
	mirrors  []*url.URL
	idle     time.Duration // how long an answer may stand still

	mu         sync.Mutex
	transports map[string]http.RoundTripper // by host; guarded by mu
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
	c := &Client{opts: o, idle: idleAfter, names: map[string]bool{}, transports: map[string]http.RoundTripper{}}
	for _, r := range o.InsecureRegistries {
		if p, err := netip.ParsePrefix(r); err == nil {
			c.insecure = append(c.insecure, p)
			continue
		}
		if strings.Contains(r, "://") || strings.ContainsAny(r, "/ ") || r == "" {
			return nil, errs.Newf(errs.Invalid, "insecure registry %s is not valid: it must be a host, a host with port, or an address range", r)
		}
		c.names[strings.ToLower(r)] = true
	}
	for _, p := range []string{"127.0.0.0/8", "::1/128"} {
		c.insecure = append(c.insecure, netip.MustParsePrefix(p))
	}
	for _, m := range o.Mirrors {
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return nil, errs.Newf(errs.Invalid, "invalid mirror: %s is not an http or https URL of a host", m)
		}
		c.mirrors = append(c.mirrors, u)
	}
	return c, nil
}

// InsecureCIDRs returns the address ranges that need no certificate, and Names
// the hosts: for `docker info`.
func (c *Client) InsecureCIDRs() []netip.Prefix { return c.insecure }

// Mirrors returns the mirrors of docker.io.
func (c *Client) Mirrors() []string { return c.opts.Mirrors }

// Insecure reports whether host ("name", "name:port") may answer without a
// valid certificate.
func (c *Client) Insecure(host string) bool {
	host = strings.ToLower(host)
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if c.names[host] || c.names[name] || name == "localhost" {
		return true
	}
	if a, err := netip.ParseAddr(name); err == nil {
		for _, p := range c.insecure {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	// Only ranges beyond loopback make a look-up worth while.
	if len(c.insecure) <= 2 {
		return false
	}
	addrs, err := net.LookupIP(name) //nolint:noctx // as dockerd: configuration, cached by the resolver
	if err != nil {
		return false
	}
	for _, ip := range addrs {
		if a, ok := netip.AddrFromSlice(ip); ok {
			for _, p := range c.insecure {
				if p.Contains(a.Unmap()) {
					return true
				}
			}
		}
	}
	return false
}

// transport returns the connections to host, made once.
func (c *Client) transport(host string) (http.RoundTripper, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.transports[host]; ok {
		return t, nil
	}
	conf, err := c.tlsConfig(host)
	if err != nil {
		return nil, err
	}
	t := docker.DefaultHTTPTransport(conf)
	t.MaxIdleConnsPerHost = 8
	t.ResponseHeaderTimeout = 2 * time.Minute
	var rt http.RoundTripper = t
	if conf.InsecureSkipVerify {
		rt = docker.NewHTTPFallback(t)
	}
	rt = &agent{&impatient{rt, c.idle}, c.opts.UserAgent}
	c.transports[host] = rt
	return rt, nil
}

type agent struct {
	http.RoundTripper
	name string
}

func (a *agent) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", a.name)
	return a.RoundTripper.RoundTrip(r)
}

func (c *Client) tlsConfig(host string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure(host)} //nolint:gosec // asked for by the administrator
	if c.opts.CertsDir == "" || strings.ContainsAny(host, `/\`) {
		return conf, nil
	}
	dir := filepath.Join(c.opts.CertsDir, host)
	ents, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return conf, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range ents {
		p := filepath.Join(dir, e.Name())
		switch filepath.Ext(p) {
		case ".crt":
			if conf.RootCAs == nil {
				if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
					return nil, err
				}
			}
			pem, err := os.ReadFile(p)
			if err != nil {
				return nil, err
			}
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("%s holds no certificate", p)
			}
		case ".cert":
			cert, err := tls.LoadX509KeyPair(p, strings.TrimSuffix(p, ".cert")+".key")
			if err != nil {
				return nil, fmt.Errorf("client certificate for %s: %w", host, err)
			}
			conf.Certificates = append(conf.Certificates, cert)
		}
	}
	return conf, nil
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
			for _, m := range c.mirrors {
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
