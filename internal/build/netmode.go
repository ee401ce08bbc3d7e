package build

import (
	"maps"
	"strings"

	"github.com/moby/buildkit/solver/pb"
)

// BuildKit's steps know of no network but one ("sandbox"), none and the host's.
// A network's name travels from the options of a build to its steps in the one
// text that is handed through unchanged to where the step runs: the parent of
// its control group. It is a part of the step's digest, too, so that builds on
// different networks do not share a step that runs.
const (
	optNetwork  = "force-network-mode"
	optCgroup   = "cgroup-parent"
	networkMark = "?network="
)

// nameNetwork moves the name of a network to where steps find it.
func nameNetwork(opts map[string]string) map[string]string {
	switch name := opts[optNetwork]; name {
	case "", "none", "host", "sandbox":
		return opts
	case "default", "bridge":
		opts = maps.Clone(opts)
	default:
		opts = maps.Clone(opts)
		opts[optCgroup] += networkMark + name
	}
	delete(opts, optNetwork)
	return opts
}

// networkOf takes a step's network, "" for the default one, from the parent of
// its control group. RUN --network overrides it.
func networkOf(cgroupParent string, mode pb.NetMode) (parent, network string) {
	parent, network, _ = strings.Cut(cgroupParent, networkMark)
	if mode != pb.NetMode_UNSET {
		network = ""
	}
	return parent, network
}
