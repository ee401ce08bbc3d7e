package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// restartsAtOnce is how many containers are started side by side at boot.
const restartsAtOnce = 8

// Restore takes over the containers of earlier daemons: adopts those that run,
// notes those that ended, finishes what was cut short, and removes what is
// nobody's. Containers that their policy starts at boot wait for
// [Service.Resume].
func (s *Service) Restore(ctx context.Context) error {
	f, err := s.find(ctx)
	if err != nil {
		return fmt.Errorf("restore containers: %w", err)
	}
	s.partial = f.partial
	plan := planRestore(f)
	for i := range plan.fates {
		s.take(ctx, &plan.fates[i])
	}
	for _, ft := range plan.fates {
		if !ft.adopt && !ft.remove && !ft.rec.HostConfig.AutoRemove {
			s.mendLayer(ctx, &ft.rec)
		}
		if err := s.settleFate(ctx, ft); err != nil {
			s.log.ErrorContext(ctx, "cannot restore container", "container", ft.rec.ID, "name", ft.rec.Name, "err", err)
		}
	}
	for _, id := range plan.kill {
		s.strays[id] = true
	}
	// Only now, so that an exit finds its container settled; none is missed, the
	// shim tells again of those it still knows.
	if err := s.watch(); err != nil {
		return err
	}
	for _, id := range plan.kill {
		s.log.WarnContext(ctx, "killing a container that is not recorded", "container", id)
		if err := s.o.Runtime.Kill(ctx, id, "", 9, true); err != nil {
			s.log.WarnContext(ctx, "cannot kill it", "container", id, "err", err)
		} // its exit has it forgotten
	}
	for _, id := range plan.forget {
		s.forget(ctx, id)
	}
	for _, id := range plan.throwOut {
		s.unpin(ctx, "", id)
		s.throwLayer(s.dataDir(id), anySize)
	}
	for _, id := range plan.clearRun {
		s.unmountShm(id)
		s.removeRunDir(id)
	}
	s.trash.empty()
	s.pool.refill()
	return nil
}

// find reads what there is.
func (s *Service) find(ctx context.Context) (found, error) {
	f := found{runs: map[string]*runFile{}, live: map[string]runtime.State{}, now: s.now()}
	var err error
	if f.records, err = s.o.Records.All(); err != nil {
		if len(f.records) == 0 {
			return f, err
		}
		// A record that cannot be read must not cost the others, nor its container:
		// all that is not known is kept for whoever repairs it.
		s.log.ErrorContext(ctx, "some containers cannot be read: nothing of unknown containers is removed", "err", err)
		f.partial = true
	}
	runs, err := os.ReadDir(s.runRoot)
	if err != nil {
		return f, err
	}
	for _, e := range runs {
		if !e.IsDir() || len(e.Name()) != ids.Len {
			continue
		}
		run, err := loadRun(filepath.Join(s.runRoot, e.Name()))
		if err != nil {
			s.log.WarnContext(ctx, "cannot read a container's state", "container", e.Name(), "err", err)
		}
		f.runs[e.Name()] = run
	}
	data, err := os.ReadDir(s.dataRoot)
	if err != nil {
		return f, err
	}
	var ready []string
	for _, e := range data {
		switch {
		case isReady(e.Name()):
			ready = append(ready, e.Name())
		case len(e.Name()) == ids.Len:
			f.dataDirs = append(f.dataDirs, e.Name())
		}
	}
	s.adoptPool(ready)
	states, err := s.o.Runtime.List(ctx)
	if err != nil {
		return f, fmt.Errorf("ask the shim for containers: %w", err)
	}
	for _, st := range states {
		f.live[st.ID] = st
	}
	return f, nil
}

// adoptPool keeps the prepared layers that are whole.
func (s *Service) adoptPool(names []string) {
	var whole []string
	for _, n := range names {
		dir := filepath.Join(s.dataRoot, n)
		_, uerr := os.Stat(filepath.Join(dir, upperName))
		_, werr := os.Stat(filepath.Join(dir, workName))
		if uerr == nil && werr == nil && len(whole) < s.pool.size {
			whole = append(whole, n)
			continue
		}
		s.throwAway(dir)
	}
	s.pool.adopt(whole)
}

// take makes a container known, with what it holds.
func (s *Service) take(ctx context.Context, ft *fate) {
	rec := &ft.rec
	rec.Last = ft.status
	if err := s.index.reserve(rec.Name, rec.ID); err != nil {
		s.log.ErrorContext(ctx, "two containers have one name", "container", rec.ID, "name", rec.Name)
		rec.Name += "_" + ids.Short(rec.ID)
		_ = s.index.reserve(rec.Name, rec.ID)
	}
	c := newCtr(*rec)
	if err := os.Mkdir(s.runDir(rec.ID), 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		s.log.ErrorContext(ctx, "cannot make a run directory", "container", rec.ID, "err", err)
	}
	// The process of one that ended may be another one's by now. Its ports and
	// interfaces go with those of nobody.
	if ft.adopt {
		s.adoptSandbox(ctx, c, ft)
	}
	s.hold(ctx, rec, ft.adopt)
	s.index.add(c)
	s.index.setLinks(c.id, rec.Links)
}

func (s *Service) adoptSandbox(ctx context.Context, c *ctr, ft *fate) {
	if ft.run == nil || ft.run.Sandbox == nil {
		return
	}
	sb, err := s.o.Networks.AdoptSandbox(ctx, *ft.run.Sandbox, ft.status.PID, ft.status.StartTicks)
	if err != nil {
		s.log.ErrorContext(ctx, "cannot take a container's network over", "container", c.id, "err", err)
		return
	}
	c.sandbox = sb
	c.setNet(netView{endpoints: sb.Endpoints(), ports: sb.Ports()})
	s.followFiles(c, sb)
	s.restoreFiles(c, sb)
}

// hold tells the volumes that the container has them still, and, if it is live,
// mounted.
func (s *Service) hold(ctx context.Context, rec *Record, live bool) {
	for _, m := range rec.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		if _, err := s.o.Volumes.Acquire(ctx, m.Name, m.Driver, nil, nil, rec.ID); err != nil {
			s.log.WarnContext(ctx, "cannot hold on to a volume", "container", rec.ID, "volume", m.Name, "err", err)
		}
		if live {
			s.o.Volumes.Hold(m.Name, rec.ID)
		}
	}
}

// settleFate does what the plan has for a container that is known by now.
func (s *Service) settleFate(ctx context.Context, ft fate) error {
	c := s.index.exact(ft.rec.ID)
	done, err := c.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	if !ft.remove {
		s.resumeForward(ctx, c, ft.adopt || ft.exit != nil)
	}
	if !ft.adopt && ft.rec.HostConfig.IpcMode.IsShareable() {
		s.unmountShm(c.id) // of a start that was cut short
	}
	switch {
	case ft.exit != nil:
		s.ended(ctx, c, *ft.exit)
	case ft.adopt:
		if st := c.status(); st.Phase == Paused && st.Passing {
			if err := s.resume(ctx, c); err != nil {
				return err
			}
		}
		c.mu.Lock()
		if c.st.Phase == Running {
			c.startHealth(s, &ft.rec)
		}
		c.watchOOM(s)
		c.mu.Unlock()
		return s.saveRun(c)
	case ft.remove:
		return s.removeLocked(ctx, c, true, nil)
	case ft.restart:
		// In docker's list it is "restarting" until its turn comes. Its next end is
		// nobody's wish, even if its last was.
		c.mu.Lock()
		c.st.Phase, c.st.Stopped = Restarting, false
		c.mu.Unlock()
	default:
		if err := s.saveRun(c); err != nil {
			return err
		}
		if ft.status.ExitCode == exitLost && ft.run != nil || ft.rec.Last.Phase != ft.status.Phase {
			s.settle(c)
		}
	}
	return nil
}

// Resume starts, in the background, the containers that their restart policy
// starts at boot: first those that lean on no other. It returns at once.
func (s *Service) Resume(context.Context) {
	var first, then []*ctr
	for _, c := range s.index.all() {
		c.mu.Lock()
		waits := c.st.Phase == Restarting && c.retry == nil
		h := c.rec.HostConfig
		leans := h.NetworkMode.IsContainer() || h.PidMode.IsContainer() || h.IpcMode.IsContainer() || len(h.Links) > 0
		if waits {
			c.retry = func() {}
		}
		c.mu.Unlock()
		switch {
		case !waits:
		case leans:
			then = append(then, c)
		default:
			first = append(first, c)
		}
	}
	s.tasks.run(func() {
		for _, list := range [][]*ctr{first, then} {
			var g errgroup.Group
			g.SetLimit(restartsAtOnce)
			for _, c := range list {
				g.Go(func() error {
					s.retry(c)
					return nil
				})
			}
			_ = g.Wait()
		}
	})
}
