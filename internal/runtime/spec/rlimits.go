package spec

import (
	"math"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// rlimitNames are those that --ulimit can set.
const rlimitNames = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"

// rlimits merges the daemon's default limits and the container's own. A default
// above what this process may set is lowered to it; one asked for is an error.
func rlimits(own []*container.Ulimit, defaults map[string]*container.Ulimit, host HostFacts) ([]specs.POSIXRlimit, error) {
	byName := map[string]specs.POSIXRlimit{}
	for name, u := range defaults {
		if u == nil {
			continue
		}
		r, err := rlimit(name, u)
		if err != nil {
			return nil, err
		}
		if most, limited := host.hardLimit(r.Type); limited {
			r.Hard, r.Soft = min(r.Hard, most), min(r.Soft, most)
		}
		byName[r.Type] = r
	}
	for _, u := range own {
		if u == nil {
			continue
		}
		r, err := rlimit(u.Name, u)
		if err != nil {
			return nil, err
		}
		if most, limited := host.hardLimit(r.Type); limited && r.Hard > most {
			return nil, errs.Newf(errs.Invalid, "ulimit %s=%d:%d: the hard limit cannot be raised above this host's %d (CAP_SYS_RESOURCE is missing)",
				u.Name, u.Soft, u.Hard, most)
		}
		byName[r.Type] = r
	}
	out := make([]specs.POSIXRlimit, 0, len(byName))
	for _, r := range byName {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b specs.POSIXRlimit) int { return strings.Compare(a.Type, b.Type) })
	return out, nil
}

func rlimit(name string, u *container.Ulimit) (specs.POSIXRlimit, error) {
	name = strings.ToLower(name)
	if !slices.Contains(strings.Fields(rlimitNames), name) {
		return specs.POSIXRlimit{}, errs.Newf(errs.Invalid, "invalid ulimit type: %s", name)
	}
	r := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Hard: limitValue(u.Hard), Soft: limitValue(u.Soft)}
	if r.Soft > r.Hard {
		return r, errs.Newf(errs.Invalid, "ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
	}
	return r, nil
}

// limitValue maps -1 to the kernel's "no limit".
func limitValue(v int64) uint64 {
	if v < 0 {
		return math.MaxUint64
	}
	return uint64(v)
}

// hardLimit is the most that a limit can be set to, if there is such a most.
func (h HostFacts) hardLimit(name string) (uint64, bool) {
	if slices.Contains(h.Capabilities, "CAP_SYS_RESOURCE") {
		return 0, false
	}
	most, ok := h.HardLimits[name]
	return most, ok && most != math.MaxUint64
}
