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
	h, key, err := s.hubFor(req)
	if err != nil {
		_ = send(l.conn, failure(err))
		return false
	}
	// Joined before it is answered, so that the client misses nothing of what it
	// starts next; served after, since what follows is the stream.
	c := h.join(l.conn, key, req.Want)
	err = send(l.conn, &response{})
	if c == nil {
		s.dropIdle(key, h)
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

func (s *server) hubFor(req *request) (h *hub, k key, err error) {
	if err := validID(req.ID); err != nil {
		return nil, k, err
	}
	k = key{req.ID, req.ExecID}
	if req.ExecID != "" {
		if err := validID(req.ExecID); err != nil {
			return nil, k, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[req.ID]
	switch {
	case c != nil && req.ExecID == "" && c.main != nil:
		return c.main.hub, k, nil
	case c != nil && req.ExecID != "" && c.execs[req.ExecID] != nil:
		return c.execs[req.ExecID].hub, k, nil
	case req.ExecID != "" && c == nil:
		return nil, k, errs.Newf(errs.NotFound, "the shim has no container %s", req.ID)
	case req.ExecID == "" && c != nil:
		return nil, k, errs.Newf(errs.Conflict, "container %s is being started", req.ID)
	}
	h = s.waiting[k.String()]
	if h == nil {
		h = newHub(s.log, req.IO)
		s.waiting[k.String()] = h
	}
	return h, k, nil
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
