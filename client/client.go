// Package client talks to a Skiff daemon, or to any daemon that serves the
// Docker Engine API, with the documents of github.com/moby/moby/api. It has the
// calls that Skiff's command line makes, and starts fast: see
// docs/decisions/0005-own-api-client.md.
//
//	c, err := client.New(client.WithHost("unix:///run/skiff/skiff.sock"))
//	if err != nil { … }
//	defer c.Close()
//	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// DefaultSocket is where skiffd listens when nothing else is said.
const DefaultSocket = "/run/skiff/skiff.sock"

// DefaultHost is [DefaultSocket] as an address.
const DefaultHost = "unix://" + DefaultSocket

// EnvHost and EnvDockerHost name the variables that hold the daemon's address;
// the first one set wins.
const (
	EnvHost       = "SKIFF_HOST"
	EnvDockerHost = "DOCKER_HOST"
)

// Client speaks the Docker Engine API with one daemon.
type Client struct {
	host    string // as it was given
	scheme  string // "http" or "https"
	addr    string // what goes into URLs: the host and port, or a stand-in
	base    string // a path before all others, of tcp://host/path
	headers map[string]string
	dial    func(ctx context.Context) (net.Conn, error) // plain; TLS comes on top
	tls     *tls.Config
	rt      *http.Transport
	direct  *direct // for unix sockets; else nil

	pinned  bool // the caller fixed the version
	version atomic.Pointer[string]
	agreed  atomic.Bool // the daemon answered in this version
}

// TLS says how to speak with a daemon behind tcp://. Empty file names are left
// out.
type TLS struct {
	CAFile, CertFile, KeyFile string
	// Verify checks the daemon's certificate.
	Verify bool
}

type options struct {
	host    string
	tls     *TLS
	headers map[string]string
	agent   string
	version string
}

// Option changes how [New] opens a client.
type Option func(*options)

// WithHost sets the daemon's address: unix://, tcp://, ssh:// or npipe://.
func WithHost(host string) Option { return func(o *options) { o.host = host } }

// WithTLS speaks TLS over tcp://.
func WithTLS(t TLS) Option { return func(o *options) { o.tls = &t } }

// WithHeaders adds headers to every request.
func WithHeaders(h map[string]string) Option { return func(o *options) { o.headers = h } }

// WithUserAgent names the program in requests.
func WithUserAgent(agent string) Option { return func(o *options) { o.agent = agent } }

// WithAPIVersion fixes the API version instead of agreeing on one.
func WithAPIVersion(v string) Option { return func(o *options) { o.version = v } }

// HostFromEnv returns the address that the environment names, or
// [DefaultHost], and whether the environment named one.
func HostFromEnv() (host string, named bool) {
	for _, k := range []string{EnvHost, EnvDockerHost} {
		if v := os.Getenv(k); v != "" {
			return v, true
		}
	}
	return DefaultHost, false
}

// New opens a client. It does not connect yet; the first request does.
func New(opts ...Option) (*Client, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if o.host == "" {
		o.host, _ = HostFromEnv()
	}
	c := &Client{host: o.host, scheme: "http", headers: o.headers}
	if c.headers == nil {
		c.headers = map[string]string{}
	}
	if o.agent != "" {
		c.headers["User-Agent"] = o.agent
	}
	v := o.version
	if v == "" {
		v = envVersion()
	}
	if c.pinned = v != ""; !c.pinned {
		v = MaxAPIVersion
	}
	v = strings.TrimPrefix(v, "v")
	c.version.Store(&v)
	c.agreed.Store(c.pinned)
	if o.tls != nil {
		cfg, err := o.tls.config()
		if err != nil {
			return nil, err
		}
		c.tls, c.scheme = cfg, "https"
	}
	if err := c.locate(); err != nil {
		return nil, err
	}
	c.rt = &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		TLSClientConfig:    c.tls,
		DisableCompression: true,
		MaxIdleConns:       6,
		IdleConnTimeout:    30 * time.Second,
	}
	if c.tls == nil && strings.HasPrefix(c.host, "unix://") {
		c.direct = &direct{dial: c.dial}
	}
	return c, nil
}

// standIn names a daemon that is reached without a host name.
const standIn = "api.skiff.localhost"

// locate finds out how the daemon is dialed.
func (c *Client) locate() error {
	kind, addr, ok := strings.Cut(c.host, "://")
	if !ok || addr == "" {
		return fmt.Errorf("unable to parse the daemon's address %q", c.host)
	}
	c.addr = standIn
	var d net.Dialer
	switch kind {
	case "unix":
		c.dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "unix", addr) }
	case "tcp", "http", "https":
		u, err := url.Parse("tcp://" + addr)
		if err != nil {
			return fmt.Errorf("unable to parse the daemon's address %q: %w", c.host, err)
		}
		c.addr, c.base = u.Host, strings.TrimRight(u.Path, "/")
		if kind == "https" && c.tls == nil {
			c.tls, c.scheme = &tls.Config{MinVersion: tls.VersionTLS12}, "https"
		}
		c.dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", u.Host) }
	case "ssh":
		dial, err := sshDialer(c.host)
		if err != nil {
			return err
		}
		c.dial = dial
	default:
		return fmt.Errorf("unable to reach the daemon at %q: use unix://, tcp:// or ssh://", c.host)
	}
	return nil
}

// roundTrip sends a request the shortest way it can go.
func (c *Client) roundTrip(r *http.Request) (*http.Response, error) {
	if c.direct != nil && c.direct.takes(r) {
		return c.direct.RoundTrip(r)
	}
	return c.rt.RoundTrip(r)
}

// Host returns the address as it was given.
func (c *Client) Host() string { return c.host }

// Close lets go of idle connections.
func (c *Client) Close() error {
	c.rt.CloseIdleConnections()
	if c.direct != nil {
		c.direct.CloseIdleConnections()
	}
	return nil
}

func (t *TLS) config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !t.Verify}
	if t.CAFile != "" && t.Verify {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("could not load CA certificate: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("could not load client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// Listens reports whether something accepts connections on a unix:// or tcp://
// address.
func Listens(ctx context.Context, host string) bool {
	network, addr, ok := strings.Cut(host, "://")
	if !ok || network != "unix" && network != "tcp" {
		return false
	}
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
