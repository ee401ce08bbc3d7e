package containers

import (
	"context"
	"sync"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Live are the options that may change while the service runs.
type Live struct {
	Runtimes map[string]runtime.External // others that containers may name
	Spec     SpecDefaults
	// StopTimeout is the patience with containers that name none, in seconds; nil
	// is docker's 10.
	StopTimeout *int
}

// Reconfigure changes what containers that come are made of, all at once.
func (s *Service) Reconfigure(l Live) {
	if l.Spec.CgroupParent == "" {
		l.Spec.CgroupParent = "/skiff"
	}
	s.changing.Store(&l)
}

// Live are the options as they are: not to be changed.
func (s *Service) Live() Live { return *s.changing.Load() }

func (s *Service) spec() *SpecDefaults { return &s.changing.Load().Spec }

func (s *Service) stopTimeout() int {
	if t := s.changing.Load().StopTimeout; t != nil {
		return *t
	}
	return 10
}

// StopAll ends all containers, each as its own stop would, for a daemon that does
// not leave them running. No person meant them: those that their restart policy
// brings back come with the next daemon. Those that still run when ctx ends are
// left.
func (s *Service) StopAll(ctx context.Context) error {
	s.ending.Store(true) // no policy starts one again
	var all sync.WaitGroup
	for _, c := range s.index.all() {
		if !c.status().Phase.live() {
			continue
		}
		all.Go(func() {
			err := s.stop(ctx, c, StopOptions{})
			if err != nil && !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) { // it ended by itself
				s.log.WarnContext(ctx, "cannot stop a container", "container", c.id, "err", err)
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// LongestStop is the longest patience that a stop of a running container has, in
// seconds; below 0: no end of it.
func (s *Service) LongestStop() int {
	longest := 0
	for _, c := range s.index.all() {
		if !c.status().Phase.live() {
			continue
		}
		patience := s.stopTimeout()
		if t := c.record().Config.StopTimeout; t != nil {
			patience = *t
		}
		if patience < 0 {
			return -1
		}
		longest = max(longest, patience)
	}
	return longest
}
