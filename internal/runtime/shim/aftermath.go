//go:build linux

package shim

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
)

// aftermath is what a specification wants to be done once its container is gone.
type aftermath struct {
	Poststop    []specs.Hook      `json:"poststop,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"` // told to the hooks
	RDT         []string          `json:"rdt,omitempty"`         // see launch.LeaveRDT
}

func aftermathOf(l *runtime.Launch) *aftermath {
	a := &aftermath{Annotations: l.Spec.Annotations}
	if h := l.Spec.Hooks; h != nil {
		a.Poststop = h.Poststop
	}
	if l.External != nil || len(a.Poststop) == 0 && l.Spec.Linux.IntelRdt == nil {
		return nil // another runtime does so itself
	}
	return a
}

// afterEnd does what is left to do for a container that is gone.
func (s *server) afterEnd(id string, a *aftermath) {
	if a == nil {
		return
	}
	s.warn(id, launch.LeaveRDT(a.RDT))
	state := &specs.State{Version: specs.Version, ID: id, Status: specs.StateStopped, Annotations: a.Annotations}
	for _, h := range a.Poststop {
		s.warn(id, launch.RunHooks(context.Background(), "poststop", []specs.Hook{h}, state))
	}
}
