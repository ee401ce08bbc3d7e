//go:build linux

package launch

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// KnownNamespaces lists the kinds of namespaces a container may have.
func KnownNamespaces() []string {
	return []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
}

// KnownCapabilities lists the capabilities this launcher knows by name.
func KnownCapabilities() []string {
	names := strings.Fields(capNames)
	for i, n := range names {
		names[i] = "CAP_" + n
	}
	return names
}

// KnownMemoryModes lists the modes of a memory policy.
func KnownMemoryModes() []string {
	return []string{
		string(specs.MpolBind), string(specs.MpolDefault), string(specs.MpolInterleave), string(specs.MpolLocal),
		string(specs.MpolPreferred), string(specs.MpolPreferredMany), string(specs.MpolWeightedInterleave),
	}
}

// KnownMemoryFlags lists the flags of a memory policy.
func KnownMemoryFlags() []string {
	return []string{string(specs.MpolFNumaBalancing), string(specs.MpolFRelativeNodes), string(specs.MpolFStaticNodes)}
}
