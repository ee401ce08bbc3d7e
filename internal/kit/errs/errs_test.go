package errs_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func TestKindOf(t *testing.T) {
	base := errors.New("boom")
	for name, tc := range map[string]struct {
		err  error
		want errs.Kind
	}{
		"plain error is internal":       {base, errs.Internal},
		"kind survives wrapping":        {fmt.Errorf("start web: %w", errs.New(errs.NotFound, "no")), errs.NotFound},
		"outermost kind wins":           {errs.With(errs.Conflict, errs.New(errs.NotFound, "no")), errs.Conflict},
		"containerd class":              {fmt.Errorf("x: %w", errdefs.ErrNotFound), errs.NotFound},
		"already exists is a conflict":  {errdefs.ErrAlreadyExists, errs.Conflict},
		"cancelled context":             {fmt.Errorf("pull: %w", context.Canceled), errs.Canceled},
		"joined errors are looked into": {errors.Join(base, errs.New(errs.Denied, "no")), errs.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			if got := errs.KindOf(tc.err); got != tc.want {
				t.Errorf("KindOf(%v) = %v, want %v", tc.err, got, tc.want)
			}
		})
	}
}

func TestWithKeepsTheChain(t *testing.T) {
	base := errors.New("boom")
	if err := errs.Newf(errs.Invalid, "bad: %w", base); !errors.Is(err, base) {
		t.Errorf("%v does not wrap %v", err, base)
	}
	if errs.With(errs.Invalid, nil) != nil {
		t.Error("With(k, nil) is not nil")
	}
}

func ExampleNewf() {
	err := errs.Newf(errs.NotFound, "No such container: %s", "web")
	fmt.Println(err, "/", errs.KindOf(err))
	// Output: No such container: web / not found
}
