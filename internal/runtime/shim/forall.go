//go:build linux

package shim

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// forAll is what a container's specification says of all of its processes, also
// those to come.
type forAll struct {
	Personality  *specs.LinuxPersonality  `json:"personality,omitempty"`
	MemoryPolicy *specs.LinuxMemoryPolicy `json:"memoryPolicy,omitempty"`
	IntelRdt     *specs.LinuxIntelRdt     `json:"intelRdt,omitempty"`
}

func forAllOf(l *runtime.Launch) *forAll {
	k := l.Spec.Linux
	if l.External != nil || k.Personality == nil && k.MemoryPolicy == nil && k.IntelRdt == nil {
		return nil // another runtime does so itself
	}
	return &forAll{k.Personality, k.MemoryPolicy, k.IntelRdt}
}

// add says it of one more process, unless the request does.
func (f *forAll) add(e *runtime.Exec) {
	if f == nil {
		return
	}
	if e.Personality == nil {
		e.Personality = f.Personality
	}
	if e.MemoryPolicy == nil {
		e.MemoryPolicy = f.MemoryPolicy
	}
	if e.IntelRdt == nil {
		e.IntelRdt = f.IntelRdt
	}
}
