//go:build linux

package shim

import (
	"net"
	"strings"
	"sync"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// attach gives the connection to a process's hub, made here if the process is
// still to come.
func (s *server) attach(conn *net.UnixConn, req *request) {
	h, key, err := s.hubFor(req)
	if err != nil {
		_ = send(conn, failure(err))
		return
	}
	defer func() { s.dropIdle(key, h) }()
	// Joined before it is answered, so that the client misses nothing of what it
	// starts next; served after, since what follows is the stream.
	c := h.join(conn, req.Want)
	if err := send(conn, &response{}); err != nil && c != nil {
		c.leave()
	}
	if c != nil {
		h.serve(c)
	}
}

func (s *server) hubFor(req *request) (h *hub, key string, err error) {
	if err := validID(req.ID); err != nil {
		return nil, "", err
	}
	key = req.ID
	if req.ExecID != "" {
		if err := validID(req.ExecID); err != nil {
			return nil, "", err
		}
		key += "/" + req.ExecID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[req.ID]
	switch {
	case c != nil && req.ExecID == "" && c.main != nil:
		return c.main.hub, key, nil
	case c != nil && req.ExecID != "" && c.execs[req.ExecID] != nil:
		return c.execs[req.ExecID].hub, key, nil
	case req.ExecID != "" && c == nil:
		return nil, key, errs.Newf(errs.NotFound, "the shim has no container %s", req.ID)
	case req.ExecID == "" && c != nil:
		return nil, key, errs.Newf(errs.Conflict, "container %s is being started", req.ID)
	}
	h = s.waiting[key]
	if h == nil {
		h = newHub(s.log, req.IO)
		s.waiting[key] = h
	}
	return h, key, nil
}

// dropIdle forgets a hub that nobody started and everybody left.
func (s *server) dropIdle(key string, h *hub) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[key] == h && h.idle() {
		delete(s.waiting, key)
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

// watcher is a client that wants to hear of exits. Its queue has no bound but
// the number of processes.
type watcher struct {
	mu    sync.Mutex // guards queue
	queue []runtime.Exit
	wake  chan struct{}
}

func (w *watcher) put(e runtime.Exit) {
	w.mu.Lock()
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) take() []runtime.Exit {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.queue
	w.queue = nil
	return q
}

// events sends every exit that is not deleted yet, then those to come.
func (s *server) events(conn *net.UnixConn) {
	w := &watcher{wake: make(chan struct{}, 1)}
	s.mu.Lock()
	for _, c := range s.containers {
		if c.main == nil {
			continue
		}
		for _, p := range c.ended {
			w.put(*p.rec.Exit)
		}
		if c.main.rec.Exit != nil {
			w.put(*c.main.rec.Exit)
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
		for _, e := range w.take() {
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
		case <-w.wake:
		}
	}
}
