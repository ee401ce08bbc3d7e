package containers

import (
	"context"
	"fmt"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Remove removes a container with its writable layer, and on request its
// anonymous volumes.
func (s *Service) Remove(ctx context.Context, id string, o RemoveOptions) error {
	if o.Link {
		return s.removeLink(ctx, id)
	}
	c, err := s.index.get(id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.removing {
		c.mu.Unlock()
		return errs.Newf(errs.Conflict, "removal of container %s is already in progress", id)
	}
	c.removing = true
	c.mu.Unlock()
	err = s.remove(ctx, c, o)
	c.mu.Lock()
	c.removing = false
	missed := err != nil && c.rec.HostConfig.AutoRemove && c.st.Phase == Exited && !c.removed
	c.mu.Unlock()
	if missed { // its end left that to us
		s.tasks.run(func() { s.autoRemove(c) })
	}
	if err != nil {
		return errs.Newf(errs.KindOf(err), "cannot remove container %q: %w", "/"+c.name(), err)
	}
	return nil
}

// autoRemove removes a container of --rm that ended while a client's removal,
// which then failed, was under way.
func (s *Service) autoRemove(c *ctr) {
	done, err := c.turn(s.ctx)
	if err != nil {
		return // the next daemon does
	}
	defer done()
	c.mu.Lock()
	due := c.st.Phase == Exited && !c.removed && !c.removing
	c.mu.Unlock()
	if !due {
		return
	}
	ctx := context.WithoutCancel(s.ctx)
	if err := s.removeLocked(ctx, c, true, nil); err != nil {
		s.log.ErrorContext(ctx, "cannot remove a container that ended", "container", c.id, "err", err)
	}
}

// remove ends the container if it may, and takes it away. Nothing restarts it
// meanwhile: ctr.removing is set.
func (s *Service) remove(ctx context.Context, c *ctr, o RemoveOptions) error {
	for {
		phase := c.status().Phase
		if phase.active() {
			switch {
			case !o.Force && phase == Paused:
				return errs.New(errs.Conflict, "container is paused and must be unpaused first")
			case !o.Force:
				return errs.Newf(errs.Conflict, "container is %s: stop the container before removing or force remove", phase)
			}
			if err := s.kill(ctx, c); err != nil && !errs.Is(err, errs.Conflict) {
				return errs.Newf(errs.KindOf(err), "could not kill container: %w", err)
			}
			ctx = context.WithoutCancel(ctx) // who killed it takes it away
		}
		done, err := c.turn(ctx)
		if err != nil {
			return err
		}
		if c.status().Phase.active() { // started between our look and our turn
			done()
			continue
		}
		ctx := context.WithoutCancel(ctx)
		if err = s.removeLocked(ctx, c, o.Volumes, nil); err == nil {
			s.forget(ctx, c.id) // ends the streams of those who waited for a start
		}
		done()
		return err
	}
}

func (s *Service) unpin(ctx context.Context, imageID, id string) {
	if err := s.o.Images.Unpin(ctx, imageID, id); err != nil {
		s.log.WarnContext(ctx, "cannot let go of an image", "image", imageID, "container", id, "err", err)
	}
}

// removingLocked reports whether a removal is under way; the caller has mu.
func (c *ctr) removingLocked() bool { return c.removing }

// keepVolumes lets the anonymous volumes of a container outlive it, unless they
// are to go with it.
func (s *Service) keepVolumes(ctx context.Context, rec *Record, remove bool) error {
	for _, m := range rec.Mounts {
		if remove || m.Type != mount.TypeVolume || !m.Anonymous {
			continue
		}
		if err := s.o.Volumes.Keep(ctx, m.Name); err != nil {
			return fmt.Errorf("keep volume %s: %w", m.Name, err)
		}
	}
	return nil
}

// removeLocked takes away a container that does not run; the caller has its
// turn. From the deletion of the record on it is gone, whatever fails then: the
// next boot removes what has no record. What is done late, if anything, comes
// when those who wait have been told, before the event of its destruction.
func (s *Service) removeLocked(ctx context.Context, c *ctr, volumes bool, late func()) error {
	c.mu.Lock()
	if c.removed {
		c.mu.Unlock()
		return nil
	}
	c.st.become(Removing)
	rec := c.rec
	c.mu.Unlock()

	err := s.keepVolumes(ctx, &rec, volumes)
	if err == nil && !rec.HostConfig.AutoRemove {
		err = s.o.Records.Delete(c.id)
	}
	if err != nil {
		c.mu.Lock()
		c.st.become(Dead)
		c.st.Error = err.Error()
		c.mu.Unlock()
		return err
	}
	s.drainForward(ctx, c)
	if rec.HostConfig.IpcMode.IsShareable() { // left by a start that was cut short
		s.unmountShm(c.id)
	}
	s.removeRunDir(c.id)
	// As long as its directory is in its place the next boot knows of the pin.
	if rec.ImageID != "" {
		s.unpin(ctx, rec.ImageID, c.id)
	}
	s.throwLayer(s.dataDir(c.id), rec.LayerSize)
	for _, m := range rec.Mounts {
		if m.Type == mount.TypeVolume {
			s.giveBack(ctx, m, c.id, volumes)
		}
	}
	s.execs.drop(c.id)

	c.mu.Lock()
	c.removed = true
	name := c.rec.Name
	waiters, answer := c.takeWaiters(true), c.answer()
	c.mu.Unlock()
	s.index.remove(c, name)
	if late == nil {
		s.event(&rec, apievents.ActionDestroy, nil)
		notify(waiters, answer)
		return nil
	}
	notify(waiters, answer)
	late()
	s.event(&rec, apievents.ActionDestroy, nil)
	return nil
}
