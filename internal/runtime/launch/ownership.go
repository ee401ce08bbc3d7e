//go:build linux

package launch

import (
	"fmt"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ownNamespaces leaves out those namespaces that are joined by a path and are
// the host's: what belongs to them is not the container's to change. netns, if
// set, is joined instead of what is listed; own tells whether it is another one.
func ownNamespaces(list []specs.LinuxNamespace, n *namespaces, netns *os.File) (out []specs.LinuxNamespace, own bool, err error) {
	for _, want := range list {
		if want.Path != "" {
			same, err := isHosts(want.Type, n.named[want.Type])
			if err != nil {
				return nil, false, err
			}
			if same {
				continue
			}
		}
		out = append(out, want)
	}
	if netns == nil {
		return out, false, nil
	}
	out = slices.DeleteFunc(out, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	same, err := isHosts(specs.NetworkNamespace, int(netns.Fd()))
	return out, !same, err
}

// isHosts tells whether a namespace is this process's own.
func isHosts(kind specs.LinuxNamespaceType, fd int) (bool, error) {
	file := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.MountNamespace: "mnt"}[kind]
	if file == "" {
		file = string(kind)
	}
	var ours, theirs unix.Stat_t
	if err := unix.Stat("/proc/self/ns/"+file, &ours); err != nil {
		return false, fmt.Errorf("look at this process's %s namespace: %w", kind, err)
	}
	if err := unix.Fstat(fd, &theirs); err != nil {
		return false, fmt.Errorf("look at the %s namespace to join: %w", kind, err)
	}
	return ours.Ino == theirs.Ino && ours.Dev == theirs.Dev, nil
}
