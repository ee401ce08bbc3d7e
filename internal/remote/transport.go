package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// transport is the connections to one host, and what they were made of.
type transport struct {
	http.RoundTripper
	base  *http.Transport
	set   *settings
	certs string // see certsDir.stamp
}

// transport returns the connections to host. They are made once, and again when
// the settings or the host's certificates have changed: requests that are under
// way end on the old ones.
func (c *Client) transport(host string) (http.RoundTripper, error) {
	set, dir := c.set.Load(), c.certsOf(host)
	// Taken before the files are read, so that a change meanwhile is seen next time.
	certs, err := dir.stamp()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.transports[host]
	if old != nil && old.set == set && old.certs == certs {
		return old, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: set.trusts(host)} //nolint:gosec // asked for by the administrator
	if err := dir.load(conf, host); err != nil {
		return nil, err
	}
	t := docker.DefaultHTTPTransport(conf)
	t.MaxIdleConnsPerHost = 8
	t.ResponseHeaderTimeout = 2 * time.Minute
	var rt http.RoundTripper = t
	if conf.InsecureSkipVerify {
		rt = docker.NewHTTPFallback(t)
	}
	made := &transport{&agent{&impatient{rt, c.idle}, c.opts.UserAgent}, t, set, certs}
	c.transports[host] = made
	if old != nil {
		old.base.CloseIdleConnections()
	}
	return made, nil
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

// certsDir is where a registry's certificates are; "" is nowhere.
type certsDir string

func (c *Client) certsOf(host string) certsDir {
	if c.opts.CertsDir == "" || strings.ContainsAny(host, `/\`) {
		return ""
	}
	return certsDir(filepath.Join(c.opts.CertsDir, host))
}

// stamp changes with the files; "" is none.
func (d certsDir) stamp() (string, error) {
	ents, err := d.list()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range ents {
		st, err := os.Stat(filepath.Join(string(d), e.Name())) // what a link leads to
		if errors.Is(err, os.ErrNotExist) {
			continue // just replaced, or a link to nothing: reading it tells
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s %d %d\n", e.Name(), st.Size(), st.ModTime().UnixNano())
	}
	return b.String(), nil
}

func (d certsDir) list() ([]os.DirEntry, error) {
	if d == "" {
		return nil, nil
	}
	ents, err := os.ReadDir(string(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return ents, err
}

func (d certsDir) load(conf *tls.Config, host string) error {
	ents, err := d.list()
	if err != nil {
		return err
	}
	for _, e := range ents {
		p := filepath.Join(string(d), e.Name())
		switch filepath.Ext(p) {
		case ".crt":
			if conf.RootCAs == nil {
				if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
					return err
				}
			}
			pem, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return fmt.Errorf("%s holds no certificate", p)
			}
		case ".cert":
			cert, err := tls.LoadX509KeyPair(p, strings.TrimSuffix(p, ".cert")+".key")
			if err != nil {
				return fmt.Errorf("client certificate for %s: %w", host, err)
			}
			conf.Certificates = append(conf.Certificates, cert)
		}
	}
	return nil
}
