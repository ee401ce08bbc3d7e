package daemon

import (
	"fmt"
	"strconv"
	"strings"
)

// featuresFlag collects --feature and the key "features" of daemon.json, which
// switch what docker introduces step by step. What is always so here may be
// switched on.
type featuresFlag map[string]bool

func (f featuresFlag) String() string { return "" }
func (f featuresFlag) Type() string   { return "key=bool" }

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
	case "cdi":
	case "buildkit", "containerd-snapshotter":
		if !on {
			return fmt.Errorf("feature %s cannot be switched off", key)
		}
	default:
		return fmt.Errorf("feature %q is not supported", key)
	}
	f[key] = on
	return nil
}
