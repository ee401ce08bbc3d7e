package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// direct sends requests over connections that need no encryption, each in the
// goroutine that asks: http.Transport has three more for every connection, and
// to wake them takes longer than a daemon on the same host does to answer.
type direct struct {
	dial func(ctx context.Context) (net.Conn, error)

	mu   sync.Mutex // guards idle
	idle []*kept
}

// kept is a connection between requests.
type kept struct {
	net.Conn
	r *bufio.Reader
}

const maxKept = 6

// takes reports whether a request can be sent before its answer is read: one
// without a body, or with a short one that is in memory.
func (t *direct) takes(r *http.Request) bool {
	return r.Body == nil || r.Body == http.NoBody || r.GetBody != nil
}

// RoundTrip implements http.RoundTripper.
func (t *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	c, err := t.get(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	resp, err := c.exchange(r)
	if err != nil {
		stop()
		_ = c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	b := &answerBody{ReadCloser: resp.Body, ctx: ctx, over: func(reuse bool) {
		if stop() && reuse && !resp.Close {
			t.put(c)
		} else {
			_ = c.Close()
		}
	}}
	resp.Body = b
	if b.ReadCloser == http.NoBody {
		b.finish(true)
	}
	return resp, nil
}

func (c *kept) exchange(r *http.Request) (*http.Response, error) {
	w := bufio.NewWriter(c.Conn)
	if err := r.Write(w); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	for {
		resp, err := http.ReadResponse(c.r, r)
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF // as http.Transport says it
			}
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
}

// get returns a connection that the daemon has not closed.
func (t *direct) get(ctx context.Context) (*kept, error) {
	for {
		t.mu.Lock()
		n := len(t.idle)
		if n == 0 {
			t.mu.Unlock()
			break
		}
		c := t.idle[n-1]
		t.idle = t.idle[:n-1]
		t.mu.Unlock()
		if c.r.Buffered() == 0 && silent(c.Conn) {
			return c, nil
		}
		_ = c.Close()
	}
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &kept{conn, bufio.NewReader(conn)}, nil
}

func (t *direct) put(c *kept) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.idle) >= maxKept {
		_ = c.Close()
		return
	}
	t.idle = append(t.idle, c)
}

// CloseIdleConnections closes what no request uses.
func (t *direct) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.idle {
		_ = c.Close()
	}
	t.idle = nil
}

// answerBody gives its connection back at the end of what is read.
type answerBody struct {
	io.ReadCloser
	ctx  context.Context //nolint:containedctx // the request's, whose end cuts the body off
	once sync.Once
	over func(reuse bool)
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		if !errors.Is(err, io.EOF) && b.ctx.Err() != nil {
			err = b.ctx.Err()
		}
		b.finish(errors.Is(err, io.EOF))
	}
	return n, err
}

// Close does not wait for the rest: the connection goes with it.
func (b *answerBody) Close() error {
	b.finish(false)
	return nil
}

func (b *answerBody) finish(reuse bool) { b.once.Do(func() { b.over(reuse) }) }
