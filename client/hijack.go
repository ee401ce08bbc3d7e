package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Conn is a connection that a request has turned into a stream of bytes both
// ways.
type Conn struct {
	net.Conn
	r         *bufio.Reader
	MediaType string      // of what the daemon sends; "" if it does not say
	Header    http.Header // of its answer
}

// Read reads what the daemon sends.
func (c *Conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite tells the daemon that nothing more comes, where the connection can.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Dial opens a bare connection to the daemon.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.connectError(err)
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetKeepAlivePeriod(30 * time.Second)
	}
	if c.tls == nil {
		return conn, nil
	}
	cfg := c.tls.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, err = net.SplitHostPort(c.addr)
		if err != nil {
			cfg.ServerName = c.addr
		}
	}
	t := tls.Client(conn, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, c.connectError(err)
	}
	return t, nil
}

// Upgrade posts to a path and turns the connection over to proto ("h2c",
// "tcp").
func (c *Client) Upgrade(ctx context.Context, path, proto string, header map[string][]string) (*Conn, error) {
	return c.hijack(ctx, request{method: http.MethodPost, path: path, header: header}, proto)
}

// attach is an upgrade for a process's streams.
func (c *Client) attach(ctx context.Context, path string, query url.Values, body any) (*Conn, error) {
	r := request{method: http.MethodPost, path: path, query: query, json: body}
	conn, err := c.hijack(ctx, r, "tcp")
	if older := tooNew(err); older != "" && c.lower(older) {
		return c.hijack(ctx, r, "tcp")
	}
	return conn, err
}

func (c *Client) hijack(ctx context.Context, r request, proto string) (*Conn, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", proto)
	raw, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	// Whoever ends ctx meanwhile must not wait for the daemon.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, err := upgrade(raw, req, proto)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func upgrade(raw net.Conn, req *http.Request, proto string) (*Conn, error) {
	if err := req.Write(raw); err != nil {
		return nil, err
	}
	conn := &Conn{Conn: raw, r: bufio.NewReader(raw)}
	resp, err := http.ReadResponse(conn.r, req)
	if err != nil {
		return nil, err
	}
	if err := responseError(resp); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		if err != nil {
			return nil, err
		}
		return nil, &notUpgradedError{proto, resp.StatusCode, body}
	}
	conn.Header, conn.MediaType = resp.Header, resp.Header.Get("Content-Type")
	return conn, nil
}

// notUpgradedError is an answer in plain HTTP.
type notUpgradedError struct {
	proto  string
	status int
	body   []byte
}

func (e *notUpgradedError) Error() string {
	return fmt.Sprintf("unable to upgrade to %s, received %d", e.proto, e.status)
}
