package containers

import (
	"context"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// oomDelay spares a container that ends at once the watch: what was killed
// meanwhile is counted, and seen when the watch begins.
const oomDelay = 100 * time.Millisecond

// watchOOM has it told, soon, when the kernel kills processes of a container that
// runs because its memory is used up. Its own process may live on, so this is
// not the exit's to tell. The caller has mu.
func (c *ctr) watchOOM(s *Service) {
	pid := c.st.PID
	t := time.AfterFunc(oomDelay, func() { s.tasks.run(func() { s.beginOOM(c, pid) }) })
	c.oom = func() { t.Stop() }
}

func (s *Service) beginOOM(c *ctr, pid int) {
	c.mu.Lock()
	same, known := c.runs(pid), c.st.OOM
	path := spec.CgroupPath(c.rec.HostConfig, s.spec().CgroupParent, c.id)
	c.mu.Unlock()
	if !same {
		return
	}
	stop, err := s.o.Cgroups.WatchOOM(path, known, func() { s.tasks.run(func() { s.outOfMemory(c, pid) }) })
	if err != nil {
		s.log.Warn("cannot watch a container's memory", "container", c.id, "err", err)
		return
	}
	c.mu.Lock()
	same = c.runs(pid)
	if same {
		c.oom = stop
	}
	c.mu.Unlock()
	if !same {
		stop()
	}
}

// runs reports whether it is this process that the container runs; the caller
// has mu.
func (c *ctr) runs(pid int) bool { return c.st.Phase.live() && c.st.PID == pid }

// takeOOM returns what ends the watch; the caller has mu, and calls it without.
func (c *ctr) takeOOM() (stop func()) {
	if stop, c.oom = c.oom, nil; stop == nil {
		return func() {}
	}
	return stop
}

// outOfMemory tells that the container's memory was used up. What its exit would
// tell again is known then.
func (s *Service) outOfMemory(c *ctr, pid int) {
	c.mu.Lock()
	same := c.runs(pid)
	if same {
		c.st.OOM = true
	}
	rec := c.rec
	c.mu.Unlock()
	if !same {
		return
	}
	s.event(&rec, apievents.ActionOOM, nil)
	// So that the next daemon does not tell again.
	done, err := c.turn(s.ctx)
	if err != nil {
		return
	}
	defer done()
	c.mu.Lock()
	removed := c.removed
	c.mu.Unlock()
	if removed {
		return
	}
	if err := s.saveRun(c); err != nil {
		s.log.WarnContext(context.WithoutCancel(s.ctx), "cannot save a container's state", "container", c.id, "err", err)
	}
}
