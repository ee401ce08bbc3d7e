package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// featuresFlag collects --feature and the key "features" of daemon.json, which
// switch what docker introduces, or gives up, step by step. Only cdi is a choice
// here: the others say how docker does what is done one way here, or by whom.
type featuresFlag map[string]bool

func (f featuresFlag) String() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(f)) {
		out = append(out, fmt.Sprintf("%s=%t", k, f[k]))
	}
	return strings.Join(out, ",")
}
func (f featuresFlag) Type() string { return "key=bool" }

// Set takes key=bool; a key alone switches on.
func (f featuresFlag) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	on := true
	if ok {
		var err error
		if on, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("want key=bool, not %q", s)
		}
	}
	switch key {
	case "cdi", "buildkit", "containerd-snapshotter", "containerd-migration", "embedded-containerd", "swarm-nftables", "windows-dns-proxy":
	case "time-namespaces":
		if on {
			return fmt.Errorf("feature %s is not supported: containers have the host's clocks", key)
		}
	default:
		return fmt.Errorf("feature %q is not supported", key)
	}
	f[key] = on
	return nil
}
