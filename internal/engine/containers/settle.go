package containers

import (
	"sync"
	"time"
)

// settleDelay gathers what happens to a container in short order (start, exit,
// removal) into one write of the database, or none.
const settleDelay = 500 * time.Millisecond

// settler writes the conditions of containers to their records a moment after
// they changed, off every path that somebody waits for. A crash of the machine
// loses the last moment; one of the daemon loses nothing, see runFile.
type settler struct {
	s     *Service
	wake  chan struct{}
	quit  chan struct{}
	ended chan struct{}

	mu    sync.Mutex // guards dirty
	dirty map[string]*ctr
	once  sync.Once
}

func newSettler(s *Service) *settler {
	t := &settler{
		s: s, dirty: map[string]*ctr{},
		wake: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	go t.work()
	return t
}

// settle has the container's record written soon.
func (s *Service) settle(c *ctr) {
	c.mu.Lock()
	durable := !c.rec.HostConfig.AutoRemove && !c.removed
	policy := !c.rec.HostConfig.RestartPolicy.IsNone()
	c.mu.Unlock()
	if !durable {
		return
	}
	// After a crash of the machine, a restart policy goes by what is recorded.
	if policy && s.tasks.run(func() { s.settler.write(c) }) {
		return
	}
	t := s.settler
	t.mu.Lock()
	t.dirty[c.id] = c
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *settler) work() {
	defer close(t.ended)
	for {
		select {
		case <-t.wake:
		case <-t.quit:
			t.flush()
			return
		}
		timer := time.NewTimer(settleDelay)
		select {
		case <-timer.C:
		case <-t.quit:
			timer.Stop()
		}
		t.flush()
	}
}

func (t *settler) flush() {
	t.mu.Lock()
	dirty := t.dirty
	t.dirty = map[string]*ctr{}
	t.mu.Unlock()
	for _, c := range dirty {
		t.write(c)
	}
}

// write takes the container's turn, so that it cannot bring a record back that
// a removal has just deleted.
func (t *settler) write(c *ctr) {
	c.busy <- struct{}{}
	defer func() { <-c.busy }()
	c.mu.Lock()
	removed := c.removed
	c.mu.Unlock()
	if removed {
		return
	}
	if err := t.s.saveRecord(c); err != nil {
		t.s.log.Error("cannot save a container's condition", "container", c.id, "err", err)
	}
}

func (t *settler) close() {
	t.once.Do(func() { close(t.quit) })
	<-t.ended
}
