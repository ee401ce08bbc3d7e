package containers

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// watch handles exits until the service closes.
func (s *Service) watch() error {
	exits, err := s.o.Runtime.Events(s.ctx)
	if err != nil {
		return fmt.Errorf("watch for exits: %w", err)
	}
	s.tasks.run(func() {
		for e := range exits {
			if e.ExecID != "" {
				s.execEnded(e)
				continue
			}
			// Each on its own: one that has to wait for its container's turn must
			// not hold the others up.
			s.tasks.run(func() { s.exited(e) })
		}
	})
	return nil
}

// exitNotTold stands beside the exit code 255 of a container whose shim was
// killed and whose kernel tells its end to nobody else: before Linux 6.15.
const exitNotTold = "the exit status is unknown: the container ended after its shim was killed, and this kernel does not tell"

// exited handles the exit of a container's process.
func (s *Service) exited(e runtime.Exit) {
	c := s.index.exact(e.ID)
	if c == nil { // removed meanwhile, or never ours
		if s.mayForget(e.ID) {
			s.forget(context.WithoutCancel(s.ctx), e.ID)
		}
		return
	}
	done, err := c.turn(s.ctx)
	if err != nil {
		return // the next daemon hears of it again
	}
	defer done()
	s.ended(context.WithoutCancel(s.ctx), c, e)
}

// mayForget tells whether nobody else wants to know how an unknown container
// ended: not who waits for a build step's exit, whose ids are shorter than those
// of containers, and not who repairs a record that could not be read.
func (s *Service) mayForget(id string) bool {
	return s.strays[id] || len(id) == ids.Len && !s.partial
}

// forget has the runtime drop what it knows of an ended container.
func (s *Service) forget(ctx context.Context, id string) {
	if err := s.o.Runtime.Delete(ctx, id); err != nil {
		s.log.WarnContext(ctx, "cannot delete a container from the shim", "container", id, "err", err)
	}
}

// ended takes note of an exit, tells those who wait, and then clears up. The
// caller has the turn.
func (s *Service) ended(ctx context.Context, c *ctr, e runtime.Exit) {
	c.mu.Lock()
	if !c.st.Phase.live() || e.PID != 0 && c.st.PID != 0 && e.PID != c.st.PID {
		c.mu.Unlock()
		return // told of before
	}
	rec := c.rec
	c.stopHealth()
	ran := e.At.Sub(c.st.StartedAt)
	again := !c.restarting && !c.removingLocked() && !s.ending.Load() &&
		shouldRestart(rec.HostConfig.RestartPolicy, e.Code, c.st.Stopped, c.st.Restarts)
	to := Exited
	if again {
		to = Restarting
		c.st.Restarts++
	}
	oom := e.OOM && !c.st.OOM // else it was told when it happened
	stopOOM := c.takeOOM()
	c.st.ended(to, e.Code, e.OOM || c.st.OOM, e.At)
	if e.Unknown {
		c.st.Error = exitNotTold
	}
	delay := c.backoff.next(ran)
	sandbox := c.sandbox
	c.sandbox, c.net = nil, netView{}
	if c.forward != nil {
		c.forward.Finish()
	}
	remove := !again && rec.HostConfig.AutoRemove && !c.restarting && !c.removingLocked()
	c.mu.Unlock()

	stopOOM()
	if oom {
		s.event(&rec, apievents.ActionOOM, nil)
	}
	s.event(&rec, apievents.ActionDie, map[string]string{
		"exitCode": strconv.Itoa(e.Code), "execDuration": strconv.Itoa(int(ran.Seconds())),
	})
	// What those who wait could ask for the moment they are told (a host port, a
	// fixed address, the removal of the network) is given back first; the rest later.
	closeLate := func() {
		if sandbox != nil {
			s.closeSandbox(ctx, c.id, sandbox)
			sandbox = nil
		}
	}
	if claims(&rec) {
		closeLate()
	}
	for _, m := range rec.Mounts {
		s.unmountVolume(ctx, m, c.id)
		s.volumeEvent(&rec, m, apievents.ActionUnmount)
	}
	if rec.HostConfig.IpcMode.IsShareable() {
		s.unmountShm(c.id)
	}
	s.execsEnded(c)
	if !remove { // before anybody is told: the next daemon must not think otherwise
		s.saveExit(ctx, c, &rec)
	}
	c.mu.Lock()
	waiters, answer := c.takeWaiters(false), c.answer()
	c.mu.Unlock()
	notify(waiters, answer)

	if remove {
		if err := s.removeLocked(ctx, c, true, closeLate); err != nil {
			s.log.ErrorContext(ctx, "cannot remove a container that ended", "container", c.id, "err", err)
		}
	}
	closeLate()
	s.forget(ctx, c.id)
	if again {
		s.log.InfoContext(ctx, "restarting container", "container", c.id, "exitCode", e.Code, "in", delay)
		s.retryAfter(c, delay)
	}
}

// saveExit keeps how a container ended: at once where a restart policy will ask
// whether a person wanted it, else in a moment.
func (s *Service) saveExit(ctx context.Context, c *ctr, rec *Record) {
	if err := s.saveRun(c); err != nil {
		s.log.WarnContext(ctx, "cannot save a container's state", "container", c.id, "err", err)
	}
	if rec.HostConfig.RestartPolicy.IsUnlessStopped() {
		if err := s.saveRecord(c); err != nil {
			s.log.ErrorContext(ctx, "cannot save a container's condition", "container", c.id, "err", err)
		}
		return
	}
	s.settle(c)
}

func (s *Service) closeSandbox(ctx context.Context, id string, sb Sandbox) {
	if err := sb.Close(ctx); err != nil {
		s.log.WarnContext(ctx, "cannot close a container's network", "container", id, "err", err)
	}
}

// claims reports whether a container's network holds something that another
// container or a client could miss.
func claims(rec *Record) bool {
	h := rec.HostConfig
	if len(h.PortBindings) > 0 || h.PublishAllPorts {
		return true
	}
	for name := range rec.Endpoints {
		if container.NetworkMode(name).IsUserDefined() {
			return true
		}
	}
	return false
}

// Restart delays, as docker's: 100 ms, doubled each time up to a minute, from
// the start again after a run of ten seconds.
const (
	firstDelay = 100 * time.Millisecond
	maxDelay   = time.Minute
	longRun    = 10 * time.Second
)

type backoff struct{ last time.Duration }

// next is how long to wait after a run of that length.
func (b *backoff) next(ran time.Duration) time.Duration {
	switch {
	case ran >= longRun || b.last == 0:
		b.last = firstDelay
	default:
		b.last = min(2*b.last, maxDelay)
	}
	return b.last
}

// shouldRestart is a restart policy's answer to an exit.
func shouldRestart(p container.RestartPolicy, code int, stopped bool, restarts int) bool {
	switch {
	case stopped:
		return false
	case p.IsAlways(), p.IsUnlessStopped():
		return true
	case p.IsOnFailure():
		return code != 0 && (p.MaximumRetryCount == 0 || restarts < p.MaximumRetryCount)
	}
	return false
}

// retryAfter starts a container again after a delay, unless somebody stops or
// removes it before.
func (s *Service) retryAfter(c *ctr, delay time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.st.Phase != Restarting {
		return
	}
	t := time.AfterFunc(delay, func() {
		s.tasks.run(func() { s.retry(c) })
	})
	c.retry = func() { t.Stop() }
}

func (s *Service) retry(c *ctr) {
	done, err := c.turn(s.ctx)
	if err != nil {
		return
	}
	defer done()
	c.mu.Lock()
	due := c.st.Phase == Restarting && c.retry != nil && !s.ending.Load()
	c.retry = nil
	c.mu.Unlock()
	if !due {
		return
	}
	ctx := context.WithoutCancel(s.ctx)
	err = s.start(ctx, c, nil)
	if err == nil {
		return
	}
	s.log.WarnContext(ctx, "cannot restart container", "container", c.id, "err", err)
	if !errs.Is(err, errs.Unavailable) || s.ctx.Err() != nil {
		s.giveUp(ctx, c)
		return
	}
	// It is not the container that failed: the shim was killed over it, say.
	c.mu.Lock()
	delay := c.backoff.next(0)
	c.mu.Unlock()
	s.retryAfter(c, delay)
}

// giveUp ends a container that waited for a restart. The caller has the turn.
func (s *Service) giveUp(ctx context.Context, c *ctr) {
	c.mu.Lock()
	if c.retry != nil {
		c.retry()
		c.retry = nil
	}
	if c.st.Phase != Restarting {
		c.mu.Unlock()
		return
	}
	c.st.become(Exited)
	rec := c.rec
	c.mu.Unlock()
	s.saveExit(ctx, c, &rec)
	c.mu.Lock()
	waiters, answer := c.takeWaiters(false), c.answer()
	c.mu.Unlock()
	notify(waiters, answer)
}
