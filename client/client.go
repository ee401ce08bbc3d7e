// Package client talks to a Skiff daemon, or to any daemon that serves the
// Docker Engine API: a [Client] is moby's API client, found and opened the way
// Skiff does it.
//
//	c, err := client.New(client.WithHost("unix:///run/skiff/skiff.sock"))
//	if err != nil { … }
//	defer c.Close()
//	list, err := c.ContainerList(ctx, moby.ContainerListOptions{All: true})
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	moby "github.com/moby/moby/client"
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

// Client is a connection to one daemon. Every call of the Docker Engine API is
// a method of the embedded client.
type Client struct {
	*moby.Client
	host string
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

// WithAPIVersion fixes the API version instead of negotiating it.
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

// New opens a client. It does not connect yet; the first request does, and
// agrees on the API version.
func New(opts ...Option) (*Client, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if o.host == "" {
		o.host, _ = HostFromEnv()
	}
	mopts, err := o.mobyOptions()
	if err != nil {
		return nil, err
	}
	mc, err := moby.New(mopts...)
	if err != nil {
		return nil, err
	}
	return &Client{Client: mc, host: o.host}, nil
}

// Host returns the address as it was given.
func (c *Client) Host() string { return c.host }

func (o *options) mobyOptions() ([]moby.Opt, error) {
	var out []moby.Opt
	if o.tls != nil {
		cfg, err := o.tls.config()
		if err != nil {
			return nil, err
		}
		out = append(out, moby.WithHTTPClient(&http.Client{
			Transport:     &http.Transport{TLSClientConfig: cfg},
			CheckRedirect: moby.CheckRedirect,
		}))
	}
	if strings.HasPrefix(o.host, "ssh://") {
		dial, err := sshDialer(o.host)
		if err != nil {
			return nil, err
		}
		out = append(out, moby.WithHost("http://"+moby.DummyHost), moby.WithDialContext(dial))
	} else {
		out = append(out, moby.WithHost(o.host))
	}
	if len(o.headers) > 0 {
		out = append(out, moby.WithHTTPHeaders(o.headers))
	}
	if o.agent != "" {
		out = append(out, moby.WithUserAgent(o.agent))
	}
	if o.version != "" {
		out = append(out, moby.WithAPIVersion(o.version))
	} else {
		out = append(out, moby.WithAPIVersionFromEnv())
	}
	return out, nil
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

// IsConnectionFailed reports whether err says that no daemon answered.
func IsConnectionFailed(err error) bool {
	if moby.IsErrConnectionFailed(err) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
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
