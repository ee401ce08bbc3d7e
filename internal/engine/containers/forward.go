package containers

import (
	"context"
	"time"
)

// forwardGrace is how long a removal waits for what a log driver has yet to
// send: docker's figure.
const forwardGrace = 10 * time.Second

// forwardRetry is how soon it is tried again to send a log on, at first.
const forwardRetry = 100 * time.Millisecond

// forwardLog begins to send a container's log on, if its driver does that. The
// caller has the turn.
func (s *Service) forwardLog(c *ctr, rec *Record, start bool) error {
	if rec.Log.Sent == "" {
		return nil
	}
	earlier := c.stopForward() // it may have something left to send: the new one goes on with it
	f, err := s.o.Logs.Forward(s.ctx, rec, start)
	if err == nil {
		c.setForward(f)
		return nil
	}
	if earlier {
		if f, again := s.o.Logs.Forward(s.ctx, rec, false); again == nil {
			f.Finish()
			c.setForward(f)
		}
	}
	return err
}

func (c *ctr) setForward(f LogForwarder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forward = f
}

// finishForward has the rest sent.
func (c *ctr) finishForward() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forward != nil {
		c.forward.Finish()
	}
}

// resumeForward goes on where an earlier daemon was cut off, also for a
// container that has ended.
func (s *Service) resumeForward(ctx context.Context, c *ctr, live bool) {
	rec := c.record()
	if err := s.forwardLog(c, &rec, false); err != nil {
		s.log.ErrorContext(ctx, "cannot send a container's log on yet", "container", c.id, "err", err)
		s.tasks.run(func() { s.retryForward(c) })
		return
	}
	if !live {
		c.finishForward()
	}
}

// retryForward tries until it can be sent: where the driver's socket is away, say,
// and the container would soon wait for room in its log.
func (s *Service) retryForward(c *ctr) {
	for wait := forwardRetry; ; wait = min(2*wait, maxDelay) {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return
		}
		if s.forwardAgain(c) {
			return
		}
	}
}

// forwardAgain is true if there is nothing to try any more.
func (s *Service) forwardAgain(c *ctr) bool {
	done, err := c.turn(s.ctx)
	if err != nil {
		return true
	}
	defer done()
	c.mu.Lock()
	over, live, rec := c.removed || c.forward != nil, c.st.Phase.live(), c.rec
	c.mu.Unlock()
	if over {
		return true
	}
	if err := s.forwardLog(c, &rec, false); err != nil {
		s.log.DebugContext(s.ctx, "cannot send a container's log on yet", "container", c.id, "err", err)
		return false
	}
	if !live {
		c.finishForward()
	}
	s.log.InfoContext(s.ctx, "a container's log is sent on again", "container", c.id)
	return true
}

// stopForward ends the sending at once, if there is any.
func (c *ctr) stopForward() bool {
	c.mu.Lock()
	f := c.forward
	c.forward = nil
	c.mu.Unlock()
	if f != nil {
		f.Stop()
	}
	return f != nil
}

// drainForward gives the sending time to end, before the log is removed.
func (s *Service) drainForward(ctx context.Context, c *ctr) {
	c.mu.Lock()
	f := c.forward
	c.mu.Unlock()
	if f == nil {
		return
	}
	f.Finish()
	t := time.NewTimer(forwardGrace)
	defer t.Stop()
	select {
	case <-f.Done():
	case <-s.ctx.Done():
	case <-t.C:
		s.log.WarnContext(ctx, "a container is removed with log lines that were not sent: its log driver's remote does not take them", "container", c.id)
	}
	c.stopForward()
}
