package daemon

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// lateRuntime has begun what it says it could not, and takes a while to end it.
type lateRuntime struct {
	runtime.Runtime
	runs  bool
	kills int
	asked int // since it was killed
}

func (r *lateRuntime) Events(context.Context) (<-chan runtime.Exit, error) {
	return make(chan runtime.Exit), nil
}

func (r *lateRuntime) Start(context.Context, *runtime.Launch) (runtime.Started, error) {
	r.runs = true
	return runtime.Started{}, context.Canceled
}

func (r *lateRuntime) Kill(ctx context.Context, _, _ string, _ int, _ bool) error {
	r.kills++
	return ctx.Err()
}

func (r *lateRuntime) Delete(ctx context.Context, _ string) error {
	if r.kills > 0 {
		r.asked++
	}
	if r.runs && r.asked < 3 {
		return errs.New(errs.Conflict, "it is running")
	}
	r.runs = false
	return ctx.Err()
}

// A step whose start was cut off does not run on without what it stands on.
func TestCancelledStepIsEnded(t *testing.T) {
	rt := &lateRuntime{}
	l, err := newStepLauncher(t.Context(), rt, steps{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(nil)
	if _, err := l.Run(ctx, &build.Run{ID: "step"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if rt.runs || rt.kills != 1 {
		t.Errorf("it runs: %v, killed %d times", rt.runs, rt.kills)
	}
}
