//go:build linux

package shim

import (
	"net"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// attach gives the connection to a process's hub, made here if the process is
// still to come. It is true if the link is parked in mid-stream.
func (s *server) attach(l *link, req *request) (kept bool) {
	// Joined before it is answered, so that the client misses nothing of what it
	// starts next; served after, since what follows is the stream.
	c, err := s.join(l.conn, req)
	if err != nil {
		_ = send(l.conn, failure(err))
		return false
	}
	err = send(l.conn, &response{})
	if c == nil {
		return false
	}
	if err != nil {
		c.leave()
	}
	return s.stream(l, c)
}

// stream serves an attached client; true if it was halted.
func (s *server) stream(l *link, c *attached) (kept bool) {
	s.become(l, streaming, c)
	if c.hub.serve(c) {
		s.become(l, parked, c)
		return true
	}
	s.dropIdle(c.key, c.hub)
	return false
}

// join adds a client to its process's hub; nil if all is over. A hub that nobody
// has joined yet could be dropped by whoever leaves it: so both under one lock.
func (s *server) join(conn *net.UnixConn, req *request) (*attached, error) {
	if err := validID(req.ID); err != nil {
		return nil, err
	}
	if req.ExecID != "" {
		if err := validID(req.ExecID); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{req.ID, req.ExecID}
	h, err := s.hubFor(k, req.IO)
	if err != nil {
		return nil, err
	}
	return h.join(conn, k, req.Want), nil
}

// hubFor finds a process's hub, or makes that of one to come; s.mu is held.
func (s *server) hubFor(k key, io runtime.IO) (*hub, error) {
	c := s.containers[k.id]
	switch {
	case c != nil && k.execID == "" && c.main != nil:
		return c.main.hub, nil
	case c != nil && k.execID != "" && c.execs[k.execID] != nil:
		return c.execs[k.execID].hub, nil
	case k.execID != "" && c == nil:
		return nil, errs.Newf(errs.NotFound, "the shim has no container %s", k.id)
	case k.execID == "" && c != nil:
		return nil, errs.Newf(errs.Conflict, "container %s is being started", k.id)
	}
	h := s.waiting[k.String()]
	if h == nil {
		h = newHub(s.log, io)
		s.waiting[k.String()] = h
	}
	return h, nil
}

// dropIdle forgets a hub that nobody started and everybody left.
func (s *server) dropIdle(k key, h *hub) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[k.String()] == h && h.idle() {
		delete(s.waiting, k.String())
	}
}

// dropWaiting ends the streams of those who wait for a container that will not
// come.
func (s *server) dropWaiting(id string) {
	s.mu.Lock()
	var hubs []*hub
	for key, h := range s.waiting {
		if key == id || strings.HasPrefix(key, id+"/") {
			hubs = append(hubs, h)
			delete(s.waiting, key)
		}
	}
	s.mu.Unlock()
	for _, h := range hubs {
		h.close()
	}
}

// events sends every exit that is not deleted yet, then those to come.
func (s *server) events(conn *net.UnixConn) {
	w := runtime.NewExitQueue()
	s.mu.Lock()
	for _, c := range s.containers {
		if c.main == nil {
			continue
		}
		for _, p := range c.ended {
			w.Put(*p.rec.Exit)
		}
		if c.main.rec.Exit != nil {
			w.Put(*c.main.rec.Exit)
		}
	}
	s.watchers[w] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, w)
		s.mu.Unlock()
	}()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		_, _ = conn.Read(b[:]) // nothing comes but the end
	}()
	for first := true; ; first = false {
		for _, e := range w.Take() {
			if send(conn, &response{Exit: &e}) != nil {
				return
			}
		}
		if first && send(conn, &response{}) != nil { // that was the past
			return
		}
		select {
		case <-gone:
			return
		case <-w.Wake():
		}
	}
}
