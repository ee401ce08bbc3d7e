// Package fluentd is the log driver for fluentd and fluent-bit: their forward
// protocol over tcp, tls or unix.
package fluentd

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

// ackTimeout is how long a remote may take to say that it has a chunk.
const ackTimeout = time.Minute

// New makes the driver of a container.
func New(info *remote.Info, opts map[string]string) (*remote.Driver, error) {
	s, err := parse(opts)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	e, err := newEncoder(info, s.subSecond)
	if err != nil {
		return nil, err
	}
	return &remote.Driver{Lazy: s.async, Retry: s.retry, Dial: func(ctx context.Context) (remote.Sink, error) {
		if s.ack {
			c, err := remote.Connect(ctx, s.network, s.address, s.tls())
			if err != nil {
				return nil, err
			}
			return &acked{s: &s, e: e, conn: c, r: bufio.NewReaderSize(c, 512)}, nil
		}
		st, err := remote.DialStream(ctx, s.network, s.address, s.tls())
		if err != nil {
			return nil, err
		}
		return &plain{Stream: st, s: &s, e: e, since: time.Now()}, nil
	}}, nil
}

func (s *settings) tls() *tls.Config {
	if !s.secure {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12}
}

// limit applies fluentd-write-timeout.
func (s *settings) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.writeTimeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, s.writeTimeout, errors.New("fluentd-write-timeout"))
}

// plain sends without asking for an answer: a message for each line.
type plain struct {
	*remote.Stream
	s     *settings
	e     *encoder
	since time.Time
	buf   []byte
}

// Send is the Sink's.
func (p *plain) Send(ctx context.Context, batch []remote.Message) error {
	if p.s.reconnect > 0 && time.Since(p.since) > p.s.reconnect {
		if err := p.renew(ctx); err != nil {
			return err
		}
	}
	p.buf = p.buf[:0]
	for i := range batch {
		p.buf = p.e.message(p.buf, &batch[i])
	}
	ctx, cancel := p.s.limit(ctx)
	defer cancel()
	return p.Write(ctx, p.buf)
}

// renew looks the address up again, as fluentd-async-reconnect-interval asks
// for, once the old connection has done its part.
func (p *plain) renew(ctx context.Context) error {
	if n, _, err := p.Pending(); n > 0 || err != nil {
		return err
	}
	st, err := remote.DialStream(ctx, p.s.network, p.s.address, p.s.tls())
	if err != nil {
		return err
	}
	_ = p.Close()
	p.Stream, p.since = st, time.Now()
	return nil
}

// acked sends a batch as one chunk and waits for the remote to say it has it.
type acked struct {
	remote.Sure
	s    *settings
	e    *encoder
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

// Send is the Sink's.
func (a *acked) Send(ctx context.Context, batch []remote.Message) error {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	id := base64.StdEncoding.EncodeToString(raw[:])
	a.buf = a.e.chunk(a.buf[:0], batch, id)

	stop := context.AfterFunc(ctx, func() { _ = a.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if t := a.s.writeTimeout; t > 0 {
		if err := a.conn.SetWriteDeadline(time.Now().Add(t)); err != nil {
			return err
		}
	}
	if _, err := a.conn.Write(a.buf); err != nil {
		return err
	}
	if err := a.conn.SetReadDeadline(time.Now().Add(ackTimeout)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // it may have ended before the deadline was set
		return err
	}
	got, err := readAck(a.r)
	if err != nil {
		return fmt.Errorf("fluentd: read the acknowledgement: %w", err)
	}
	if got != id {
		return fmt.Errorf("fluentd: the remote acknowledged chunk %q, not %q", got, id)
	}
	return nil
}

// Close closes the connection.
func (a *acked) Close() error { return a.conn.Close() }
