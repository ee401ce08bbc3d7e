//go:build linux

package launch

import "strings"

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
