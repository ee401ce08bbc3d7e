package spec_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

func TestUserNamespaces(t *testing.T) {
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	build := func(edit func(*spec.Input)) (*specs.Spec, error) {
		in := input()
		in.Host.UIDMap, in.Host.GIDMap = ids, ids
		in.Mounts = []spec.Mount{{Destination: "/vol", Source: "/data/vol", Inside: true}, {Destination: "/host", Source: "/srv"}}
		if edit != nil {
			edit(&in)
		}
		s, _, err := spec.Build(in)
		return s, err
	}
	user := func(s *specs.Spec) *specs.LinuxNamespace {
		for i, n := range s.Linux.Namespaces {
			if n.Type == specs.UserNamespace {
				return &s.Linux.Namespaces[i]
			}
		}
		return nil
	}
	options := func(s *specs.Spec, dest string) []string {
		for _, m := range s.Mounts {
			if m.Destination == dest {
				return m.Options
			}
		}
		return nil
	}

	s, err := build(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := user(s); n == nil || n.Path != "" {
		t.Errorf("user namespace: %v", n)
	}
	if d := cmp.Diff([][]specs.LinuxIDMapping{ids, ids}, [][]specs.LinuxIDMapping{s.Linux.UIDMappings, s.Linux.GIDMappings}); d != "" {
		t.Error(d)
	}
	if !slices.Contains(options(s, "/vol"), "idmap") || slices.Contains(options(s, "/host"), "idmap") {
		t.Errorf("a volume %v, a directory of the host's %v", options(s, "/vol"), options(s, "/host"))
	}

	s, err = build(func(in *spec.Input) { in.JoinUser = "/proc/7/ns/user" })
	if err != nil || user(s) == nil || user(s).Path != "/proc/7/ns/user" {
		t.Errorf("joined: %v, %v", user(s), err)
	}

	s, err = build(func(in *spec.Input) { in.HostConfig.UsernsMode, in.HostConfig.Privileged = "host", true })
	if err != nil || user(s) != nil || len(s.Linux.UIDMappings) > 0 || slices.Contains(options(s, "/vol"), "idmap") {
		t.Errorf("in the host's: %v, %v, %v", user(s), options(s, "/vol"), err)
	}

	for _, tt := range []struct {
		says string
		edit func(*container.HostConfig)
	}{
		{"privileged mode is incompatible with user namespaces", func(h *container.HostConfig) { h.Privileged = true }},
		{"cannot share the host's network namespace", func(h *container.HostConfig) { h.NetworkMode = "host" }},
		{"cannot share the host PID namespace", func(h *container.HostConfig) { h.PidMode = "host" }},
		{"runtime crun cannot be used with user namespaces", func(h *container.HostConfig) { h.Runtime = "crun" }},
	} {
		_, err := build(func(in *spec.Input) {
			in.Host.Runtimes = []string{"crun"}
			tt.edit(in.HostConfig)
		})
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("error %v, want %q", err, tt.says)
		}
		in := input()
		in.Host.UIDMap, in.Host.GIDMap, in.Host.Runtimes = ids, ids, []string{"crun"}
		tt.edit(in.HostConfig)
		if _, err := spec.Validate(in.Config, in.HostConfig, in.Host); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("at create: error %v, want %q", err, tt.says)
		}
	}
}
