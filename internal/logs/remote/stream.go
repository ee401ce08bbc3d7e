package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DialTimeout bounds an attempt to reach a remote.
	DialTimeout = 10 * time.Second
	// sendBuffer bounds what the kernel holds unsent: what may be sent twice after
	// a crash of the daemon.
	sendBuffer = 64 << 10
	// doubtfulFor is how long a remote may take to read what its kernel has.
	doubtfulFor = time.Second
)

// Stream is a connection to a remote that answers nothing, over which batches
// are sent in order. It knows what the other side's kernel has confirmed.
type Stream struct {
	conn    net.Conn // what batches are written to
	raw     *counted // below TLS
	batches []sentBatch
	// confirmed is how many bytes were, when the connection was last seen whole.
	confirmed int64

	mu   sync.Mutex // guards gone
	gone error
}

type sentBatch struct {
	end int64 // in bytes of the raw connection
	at  time.Time
}

// counted counts what is written to a connection.
type counted struct {
	net.Conn
	n atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// DialStream connects to a "tcp" or "unix" address, with TLS if conf is not nil.
func DialStream(ctx context.Context, network, address string, conf *tls.Config) (*Stream, error) {
	conn, raw, err := connect(ctx, network, address, conf)
	if err != nil {
		return nil, err
	}
	s := &Stream{raw: raw, conn: conn}
	// Reading tells when the other side leaves. What it sends must be taken: a
	// close with bytes unread would throw away what the kernel has yet to send.
	go func() {
		_, err := io.Copy(io.Discard, s.conn)
		if err == nil {
			err = io.EOF
		}
		s.fail(fmt.Errorf("the remote closed the connection: %w", err))
	}()
	return s, nil
}

// Connect is DialStream for a remote that answers.
func Connect(ctx context.Context, network, address string, conf *tls.Config) (net.Conn, error) {
	conn, _, err := connect(ctx, network, address, conf)
	return conn, err
}

func connect(ctx context.Context, network, address string, conf *tls.Config) (net.Conn, *counted, error) {
	c, err := Dial(ctx, network, address)
	if err != nil {
		return nil, nil, err
	}
	if b, ok := c.(interface{ SetWriteBuffer(n int) error }); ok {
		_ = b.SetWriteBuffer(sendBuffer) // the kernel's default does as well
	}
	raw := &counted{Conn: c}
	if conf == nil {
		return raw, raw, nil
	}
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(address)
	}
	t := tls.Client(raw, conf)
	hctx, cancel := context.WithTimeoutCause(ctx, DialTimeout, errors.New("the TLS handshake takes too long"))
	defer cancel()
	if err := t.HandshakeContext(hctx); err != nil {
		_ = c.Close()
		return nil, nil, fmt.Errorf("%s: %w", address, err)
	}
	return t, raw, nil
}

// Dial is net.Dial with the time limit.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: DialTimeout}
	return d.DialContext(ctx, network, address)
}

func (s *Stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone == nil {
		s.gone = err
	}
}

func (s *Stream) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// Write sends a batch as a whole.
func (s *Stream) Write(ctx context.Context, p []byte) error {
	if err := s.err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.conn.Write(p); err != nil {
		s.fail(err)
		return err
	}
	s.batches = append(s.batches, sentBatch{s.raw.n.Load(), time.Now()})
	return nil
}

// Pending is the Sink's.
func (s *Stream) Pending() (unconfirmed, doubtful int, err error) {
	written := s.raw.n.Load()
	queued := int64(s.queued())
	gone := s.err()
	if gone == nil { // else the kernel may have thrown its queue away
		s.confirmed = max(s.confirmed, written-queued)
	}
	now := time.Now()
	n := 0
	for _, b := range s.batches {
		switch {
		case b.end > s.confirmed:
			unconfirmed++
			doubtful++
		case now.Sub(b.at) < doubtfulFor:
			doubtful++
		default:
			n++
		}
	}
	s.batches = append(s.batches[:0], s.batches[n:]...)
	return unconfirmed, doubtful, gone
}

// queued asks the kernel how much of what was written the other side's has not
// confirmed: nothing at all if it cannot tell.
func (s *Stream) queued() int {
	sc, ok := s.raw.Conn.(syscall.Conn)
	if !ok {
		return 0
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return int(s.raw.n.Load())
	}
	n := 0
	if rc.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }) != nil || err != nil {
		return int(s.raw.n.Load())
	}
	return n
}

// Close closes the connection; the kernel goes on to send what it has.
func (s *Stream) Close() error { return s.conn.Close() }
