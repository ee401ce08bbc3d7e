package apiserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/moby/moby/api/types"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/sockets"
)

// Hijack makes it an [http.Hijacker].
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, b, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
		w.status = http.StatusSwitchingProtocols
	}
	return c, b, err
}

// conn is a connection taken over from HTTP. What the client sent ahead is read
// first.
type conn struct {
	net.Conn
	ahead []byte
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite tells the client that nothing more comes.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// enter counts a taken-over connection, which [Server.Shutdown] waits for;
// false when that has begun.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.hijacked.Add(1)
	}
	return !s.done
}

// takeOver ends HTTP on the connection: with 101 for a client that asked for an
// upgrade to proto, else, if there must be none, with 200 as docker always did.
// The caller calls leave when finished with it.
func (s *Server) takeOver(w http.ResponseWriter, r *request, proto, ctype string) (c *conn, leave func(), err error) {
	if !s.enter() {
		return nil, nil, errShutdown
	}
	h, ok := w.(http.Hijacker)
	if !ok {
		s.hijacked.Done()
		return nil, nil, errs.New(errs.Internal, "this connection cannot be taken over")
	}
	nc, brw, err := h.Hijack()
	if err != nil {
		s.hijacked.Done()
		return nil, nil, errs.Newf(errs.Invalid, "%s needs HTTP/1.1: %w", r.URL.Path, err)
	}
	// Only what is buffered is taken from the reader: at the end of what the
	// client sends, which may be half of the connection only, net/http's reader
	// would cancel the request.
	ahead := make([]byte, brw.Reader.Buffered())
	_, _ = io.ReadFull(brw.Reader, ahead)
	c = &conn{nc, ahead}
	stop := context.AfterFunc(r.Context(), func() { _ = nc.Close() })
	leave = func() {
		stop()
		_ = nc.Close()
		s.hijacked.Done()
	}
	_ = nc.SetDeadline(time.Time{})
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n"
	if _, upgrade := r.Header["Upgrade"]; upgrade {
		head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: " + proto + "\r\n"
		if ctype != "" {
			head += "Content-Type: " + ctype + "\r\n"
		}
	}
	out := bufio.NewWriter(nc)
	_, _ = io.WriteString(out, head)
	_ = w.Header().WriteSubset(out, map[string]bool{"Content-Type": true})
	_, _ = io.WriteString(out, "\r\n")
	if err := out.Flush(); err != nil {
		leave()
		return nil, nil, err
	}
	if !keepsReader(r.UserAgent()) {
		awaitHead(r.Context(), nc)
	}
	return c, leave, nil
}

// keepsReader tells the clients that read the stream through the buffer they
// read the response's head with: those in Go. docker-py does not, and loses
// what arrives together with the head; dockerd was too slow to show that.
func keepsReader(agent string) bool {
	for _, p := range []string{"Docker-Client/", "Go-http-client/", "moby-client/", "skiff/"} {
		if strings.HasPrefix(agent, p) {
			return true
		}
	}
	return false
}

// awaitHead waits until the client has taken what was sent so far.
func awaitHead(ctx context.Context, nc net.Conn) {
	for wait := 20 * time.Microsecond; wait < 200*time.Millisecond && ctx.Err() == nil; wait += wait / 2 {
		n, ok := sockets.Unread(nc)
		if !ok { // another kind of socket: hope for the best
			time.Sleep(2 * time.Millisecond)
			return
		}
		if n == 0 {
			return
		}
		time.Sleep(wait)
	}
}

// streamType is the media type of a container's or exec's stream; versions
// before 1.42 were not told which of the two it is.
func (r *request) streamType(tty bool) string {
	if tty || r.v.before(42) {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// connect joins the client with a session until either is finished. A client
// that only stops sending still gets what comes.
func (s *Server) connect(w http.ResponseWriter, r *request, sess containers.Session, stdin bool) error {
	return s.join(w, r, sess, stdin, "tcp", r.streamType(sess.TTY()), func(c io.Writer) error {
		_, err := io.Copy(c, sess)
		return err
	})
}

// join is connect, in some protocol, with the one who carries the output.
func (s *Server) join(w http.ResponseWriter, r *request, sess containers.Session, stdin bool, proto, ctype string, output func(io.Writer) error) error {
	defer func() { _ = sess.Close() }()
	c, leave, err := s.takeOver(w, r, proto, ctype)
	if err != nil {
		return err
	}
	defer leave()
	defer context.AfterFunc(r.Context(), func() { _ = sess.Close() })()

	over := make(chan struct{}) // the session's output is
	in := make(chan struct{})
	go func() {
		defer close(in)
		s.feed(c, sess, stdin, over)
	}()
	err = output(c)
	r.log.DebugContext(r.Context(), "stream ended", "err", err)
	close(over)
	_ = sess.Close()
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(time.Second)) // lets a TCP client read all before a reset could tell it off
	<-in
	return nil
}

// feed hands the client's bytes to the session, then watches for the client to
// hang up: a closed and a half-closed connection read alike.
func (s *Server) feed(c *conn, sess containers.Session, stdin bool, over <-chan struct{}) {
	dst := io.Discard
	if stdin {
		dst = sess
	}
	_, err := io.Copy(dst, c)
	if err != nil {
		select {
		case <-over:
			return
		default:
		}
		if stdin && !sockets.HungUp(c.Conn) { // the session takes no more input; output may go on
			_, err = io.Copy(io.Discard, c)
		}
		if err != nil {
			_ = sess.Close()
			return
		}
	}
	if stdin {
		_ = sess.CloseWrite()
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !sockets.HungUp(c.Conn) {
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
	select {
	case <-over:
	default:
		_ = sess.Close()
	}
}

// upgrade takes the connection over for a protocol the client must have asked
// for.
func (s *Server) upgrade(w http.ResponseWriter, r *request, proto string) (*conn, func(), error) {
	switch got := r.Header.Get("Upgrade"); got {
	case proto:
	case "":
		return nil, nil, errs.New(errs.Invalid, "no upgrade proto in request")
	default:
		return nil, nil, errs.Newf(errs.Invalid, "protocol %s not supported", got)
	}
	c, leave, err := s.takeOver(w, r, proto, "")
	if err != nil {
		return nil, nil, fmt.Errorf("upgrade to %s: %w", proto, err)
	}
	return c, leave, nil
}
