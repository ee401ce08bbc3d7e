//go:build linux

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
)

func someProfile() *specs.LinuxSeccomp {
	errno := uint(1)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"reboot"}, Action: specs.ActErrno, ErrnoRet: &errno}},
	}
}

func TestNamedProfiles(t *testing.T) {
	s := &server{profiles: map[specs.LinuxSeccompAction]*seccomp.Program{}}
	var c Client
	asked := 0
	start := func() *seccomp.Program {
		t.Helper()
		p, use := someProfile(), (*specs.LinuxSeccomp)(nil)
		var prog *seccomp.Program
		set := func(p *specs.LinuxSeccomp) { use = p }
		set(p)
		err := c.named(t.Context(), p, set, func(context.Context) error {
			asked++
			// As it crosses the socket.
			text, err := json.Marshal(use)
			if err != nil {
				return err
			}
			var got specs.LinuxSeccomp
			if err := json.Unmarshal(text, &got); err != nil {
				return err
			}
			if prog, err = s.profile(&got); err != nil {
				return failure(err).err()
			}
			return nil
		})
		if err != nil || prog == nil {
			t.Fatal(prog, err)
		}
		return prog
	}
	first := start()
	if again := start(); again != first || asked != 2 {
		t.Errorf("the second start asked %d times in all", asked)
	}
	clear(s.profiles) // another shim
	if start(); asked != 4 {
		t.Errorf("with a new shim: asked %d times in all", asked)
	}
}

func TestUnknownProfile(t *testing.T) {
	s := &server{profiles: map[specs.LinuxSeccompAction]*seccomp.Program{}}
	p := &specs.LinuxSeccomp{DefaultAction: namedProfile + "00"}
	if _, err := s.profile(p); !errors.Is(err, errUnknownProfile) {
		t.Error(err)
	}
	// What does not know of names must refuse one.
	if _, err := seccomp.Compile(p, seccomp.Native()); err == nil {
		t.Error("a name was compiled")
	}
	var c Client
	want := errs.New(errs.NotFound, "something else")
	name, _ := profileName(someProfile())
	c.sent.add(name)
	err := c.named(t.Context(), someProfile(), func(*specs.LinuxSeccomp) {}, func(context.Context) error { return want })
	if !errors.Is(err, want) {
		t.Error(err)
	}
}
