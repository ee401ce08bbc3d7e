package containers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func errNotRunning(id string) error {
	return errs.Newf(errs.Conflict, "container %s is not running", id)
}

// Stop asks a container to end, and kills it when it does not in time.
func (s *Service) Stop(ctx context.Context, id string, o StopOptions) error {
	c, err := s.index.get(id)
	if err != nil {
		return err
	}
	if !c.status().Phase.active() {
		return errs.New(errs.Unchanged, "container is already stopped")
	}
	if err := s.stop(ctx, c, o); err != nil {
		return errs.Newf(errs.KindOf(err), "cannot stop container: %s: %w", id, err)
	}
	return nil
}

// stop returns when the container has ended. A client that leaves does not
// prevent that.
func (s *Service) stop(ctx context.Context, c *ctr, o StopOptions) error {
	ctx = context.WithoutCancel(ctx)
	rec := c.record()
	sig, err := signal.ParseSignal(firstOf(o.Signal, stopSignal(rec.Config)))
	if err != nil {
		return errs.With(errs.Invalid, err)
	}
	timeout := s.stopTimeout()
	switch {
	case o.Timeout != nil:
		timeout = *o.Timeout
	case rec.Config.StopTimeout != nil:
		timeout = *rec.Config.StopTimeout
	}
	waitCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended, err := s.Wait(waitCtx, c.id, container.WaitConditionNotRunning)
	if err != nil {
		return err
	}
	err = s.signal(ctx, c, sig, true)
	var patience <-chan time.Time
	if timeout >= 0 || err != nil {
		d := time.Duration(max(timeout, 0)) * time.Second
		if err != nil { // the signal could not be sent: it may be ending by itself
			d = 2 * time.Second
		}
		t := time.NewTimer(d)
		defer t.Stop()
		patience = t.C
	}
	select {
	case <-ended:
	case <-patience:
		if err := s.kill(ctx, c); err != nil && !errs.Is(err, errs.Conflict) {
			return err
		}
	}
	rec = c.record()
	s.event(&rec, apievents.ActionStop, nil)
	return nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Kill sends a signal to a container's process. KILL, or none, also waits for
// the end.
func (s *Service) Kill(ctx context.Context, id, name string) error {
	sig := syscall.SIGKILL
	if name != "" {
		var err error
		if sig, err = signal.ParseSignal(name); err != nil {
			return errs.Newf(errs.Invalid, "cannot kill container: %s: %w", id, err)
		}
		if !signal.ValidSignalForPlatform(sig) {
			return errs.Newf(errs.Invalid, "cannot kill container: %s: the linux daemon does not support signal %d", id, sig)
		}
	}
	c, err := s.index.get(id)
	if err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", id, err)
	}
	if sig == syscall.SIGKILL {
		err = s.kill(ctx, c)
	} else {
		err = s.signal(ctx, c, sig, ends(c.record().Config, sig))
	}
	if err != nil {
		return errs.Newf(errs.KindOf(err), "cannot kill container: %s: %w", id, err)
	}
	return nil
}

// ends reports whether who sends the signal wants the container to stay ended;
// others, HUP say, mean something to the program alone.
func ends(c *container.Config, sig syscall.Signal) bool {
	if own, err := signal.ParseSignal(stopSignal(c)); err == nil && own == sig {
		return true
	}
	return sig == syscall.SIGKILL || sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
}

// killTimeout is how long after KILL a process may be in the kernel.
const killTimeout = 10 * time.Second

// kill returns when the container has ended.
func (s *Service) kill(ctx context.Context, c *ctr) error {
	ctx = context.WithoutCancel(ctx)
	waitCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended, err := s.Wait(waitCtx, c.id, container.WaitConditionNotRunning)
	if err != nil {
		return err
	}
	if err := s.signal(ctx, c, syscall.SIGKILL, true); err != nil {
		return err
	}
	t := time.NewTimer(killTimeout)
	defer t.Stop()
	select {
	case <-ended:
		return nil
	case <-t.C:
		return errors.New("tried to kill container, but did not receive an exit event")
	}
}

// signal sends one; with stay, restart policies are told that a person did. A
// container that waits for its restart just stays ended.
func (s *Service) signal(ctx context.Context, c *ctr, sig syscall.Signal, stay bool) error {
	done, err := c.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	c.mu.Lock()
	phase, rec := c.st.Phase, c.rec
	// Who restarts it wants it to run, also if that is cut short.
	if phase.active() && stay && !c.restarting && !s.ending.Load() {
		c.st.Stopped = true
	}
	c.mu.Unlock()
	switch {
	case phase == Restarting:
		if stay {
			s.giveUp(ctx, c)
		}
		return nil
	case !phase.live():
		return errNotRunning(c.id)
	case stay && !rec.HostConfig.RestartPolicy.IsNone():
		// The next daemon, if this one is killed, may be the one that hears of its end.
		if err := s.saveRun(c); err != nil { // no reason to let it run
			s.log.WarnContext(ctx, "cannot save a container's state", "container", c.id, "err", err)
		}
	}
	err = s.o.Runtime.Kill(ctx, c.id, "", int(sig), false)
	switch {
	case errs.Is(err, errs.NotFound), errs.Is(err, errs.Conflict):
		return nil // it has ended: the exit is under way
	case err != nil:
		return fmt.Errorf("send signal %d: %w", sig, err)
	}
	if phase == Paused && stay {
		// Frozen processes take no signal, not even KILL; but the runtime thaws whom
		// it kills, who may be gone by now.
		if err := s.resume(ctx, c); err != nil && !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) {
			return err
		}
	}
	s.event(&rec, apievents.ActionKill, map[string]string{"signal": strconv.Itoa(int(sig))})
	return nil
}

// Restart stops a container if it runs, and starts it.
func (s *Service) Restart(ctx context.Context, id string, o StopOptions) error {
	c, err := s.index.get(id)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // both halves or none
	fail := func(err error) error {
		return errs.Newf(errs.KindOf(err), "Cannot restart container %s: %w", id, err)
	}
	c.mu.Lock()
	active := c.st.Phase.active()
	c.restarting = active
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.restarting = false
		c.mu.Unlock()
	}()
	if active {
		if err := s.stop(ctx, c, o); err != nil && !errs.Is(err, errs.Conflict) {
			return fail(err)
		}
	}
	_, done, err := s.claim(ctx, c.id)
	if err != nil {
		return err
	}
	defer done()
	if err := s.startByHand(ctx, c, nil); err != nil && !errs.Is(err, errs.Unchanged) {
		return fail(err)
	}
	rec := c.record()
	s.event(&rec, apievents.ActionRestart, nil)
	return nil
}

// Pause freezes a container's processes.
func (s *Service) Pause(ctx context.Context, id string) error {
	c, done, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	return s.pause(context.WithoutCancel(ctx), c, false)
}

// pauseFor is Pause for as long as this daemon does something: the next one ends
// it.
func (s *Service) pauseFor(ctx context.Context, id string) error {
	c, done, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	return s.pause(context.WithoutCancel(ctx), c, true)
}

// pause is Pause by a caller who has the turn.
func (s *Service) pause(ctx context.Context, c *ctr, passing bool) error {
	c.mu.Lock()
	phase, rec := c.st.Phase, c.rec
	c.mu.Unlock()
	switch {
	case phase == Paused:
		return errs.Newf(errs.Conflict, "container %s is already paused", c.id)
	case phase == Restarting:
		return errs.Newf(errs.Conflict, "Container %s is restarting, wait until the container is running", c.id)
	case phase != Running:
		return errNotRunning(c.id)
	}
	c.mu.Lock()
	c.st.become(Paused)
	c.st.Passing = passing
	c.stopHealth()
	c.mu.Unlock()
	// Kept before it is frozen: the next daemon must know whom it may thaw.
	err := s.saveRun(c)
	if err == nil {
		err = s.o.Runtime.Pause(ctx, c.id)
	}
	if err != nil {
		c.mu.Lock()
		c.st.become(Running)
		c.st.Passing = false
		c.resumeHealth(s)
		c.mu.Unlock()
		if saveErr := s.saveRun(c); saveErr != nil {
			s.log.WarnContext(ctx, "cannot save a container's state", "container", c.id, "err", saveErr)
		}
		return fmt.Errorf("cannot pause container %s: %w", c.id, err)
	}
	s.event(&rec, apievents.ActionPause, nil)
	return nil
}

// Unpause thaws them.
func (s *Service) Unpause(ctx context.Context, id string) error {
	c, done, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if c.status().Phase != Paused {
		return errs.Newf(errs.Conflict, "Container %s is not paused", c.id)
	}
	return s.resume(context.WithoutCancel(ctx), c)
}

// resume thaws a paused container; the caller has the turn.
func (s *Service) resume(ctx context.Context, c *ctr) error {
	if err := s.o.Runtime.Resume(ctx, c.id); err != nil {
		return fmt.Errorf("cannot unpause container %s: %w", c.id, err)
	}
	c.mu.Lock()
	c.st.become(Running)
	c.st.Passing = false
	rec := c.rec
	c.resumeHealth(s)
	c.mu.Unlock()
	s.event(&rec, apievents.ActionUnPause, nil)
	return s.saveRun(c)
}
