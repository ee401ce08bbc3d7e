package containers

import (
	"context"
	"slices"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// waiter is somebody who waits for a container to end or to be gone.
type waiter struct {
	removal bool
	ch      chan container.WaitResponse // takes one answer, never blocks
	cancel  func() bool                 // of the watch over the waiter's context
}

// Wait returns a channel that gets one answer when the condition holds, or when
// ctx ends. The waiter is registered when Wait returns.
func (s *Service) Wait(ctx context.Context, id string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	c, err := s.index.get(id)
	if err != nil {
		return nil, err
	}
	switch cond {
	case "", container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return nil, errs.Newf(errs.Invalid, "invalid condition: %q", cond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	met := c.removed
	if cond == "" || cond == container.WaitConditionNotRunning {
		met = met || !c.st.Phase.active()
	}
	w := &waiter{removal: cond == container.WaitConditionRemoved, ch: make(chan container.WaitResponse, 1)}
	if met {
		w.ch <- c.answer()
		return w.ch, nil
	}
	c.waiters = append(c.waiters, w)
	w.cancel = context.AfterFunc(ctx, func() {
		c.mu.Lock()
		i := slices.Index(c.waiters, w)
		if i >= 0 {
			c.waiters = slices.Delete(c.waiters, i, i+1)
		}
		c.mu.Unlock()
		if i >= 0 {
			w.ch <- container.WaitResponse{StatusCode: -1, Error: &container.WaitExitError{Message: context.Cause(ctx).Error()}}
		}
	})
	return w.ch, nil
}

// takeWaiters removes those whose condition holds now: all once the container is
// removed, else those who wait for an end. The caller has mu.
func (c *ctr) takeWaiters(removed bool) []*waiter {
	var out, keep []*waiter
	for _, w := range c.waiters {
		if removed || !w.removal {
			out = append(out, w)
		} else {
			keep = append(keep, w)
		}
	}
	c.waiters = keep
	return out
}

// answer is what waiters are told. The caller has mu. A removal is no failure,
// whatever was wrong with the container, so that of its error only a status
// that nobody knows is told then.
func (c *ctr) answer() container.WaitResponse {
	r := container.WaitResponse{StatusCode: int64(c.st.ExitCode)}
	if c.st.Error != "" && (!c.removed || c.st.Error == exitNotTold) {
		r.Error = &container.WaitExitError{Message: c.st.Error}
	}
	return r
}

func notify(ws []*waiter, r container.WaitResponse) {
	for _, w := range ws {
		w.cancel()
		w.ch <- r
	}
}
