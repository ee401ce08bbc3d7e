package fake_test

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/fake"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

func TestConformance(t *testing.T) {
	runtimetest.Suite(t, func(*testing.T) *runtimetest.Env {
		return &runtimetest.Env{
			Runtime: fake.New(),
			Launch: func(_ *testing.T, id string, args ...string) *runtime.Launch {
				return &runtime.Launch{ID: id, Spec: &specs.Spec{Process: &specs.Process{Args: args}}}
			},
		}
	})
}
