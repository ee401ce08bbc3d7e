package build

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/pb"
)

func TestNameNetwork(t *testing.T) {
	for name, tc := range map[string]struct {
		in              map[string]string
		left            string // the mode that BuildKit is told
		parent, network string // of a step
	}{
		"nothing":            {map[string]string{}, "", "", ""},
		"none":               {map[string]string{optNetwork: "none"}, "none", "", ""},
		"host":               {map[string]string{optNetwork: "host", optCgroup: "/p"}, "host", "/p", ""},
		"the default bridge": {map[string]string{optNetwork: "bridge"}, "", "", ""},
		"a network":          {map[string]string{optNetwork: "net1"}, "", "", "net1"},
		"a container's":      {map[string]string{optNetwork: "container:web"}, "", "", "container:web"},
		"and a parent":       {map[string]string{optNetwork: "net1", optCgroup: "/p/q"}, "", "/p/q", "net1"},
	} {
		t.Run(name, func(t *testing.T) {
			before := cmp.Diff(nil, tc.in)
			out := nameNetwork(tc.in)
			if cmp.Diff(nil, tc.in) != before {
				t.Error("the client's options were changed")
			}
			parent, network := networkOf(out[optCgroup], pb.NetMode_UNSET)
			if out[optNetwork] != tc.left || parent != tc.parent || network != tc.network {
				t.Errorf("got %v: parent %q, network %q", out, parent, network)
			}
			if parent, network := networkOf(out[optCgroup], pb.NetMode_NONE); parent != tc.parent || network != "" {
				t.Errorf("RUN --network=none: parent %q, network %q", parent, network)
			}
		})
	}
}
