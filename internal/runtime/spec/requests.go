package spec

import (
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// CDI knows the devices that vendors describe in files.
type CDI interface {
	List() []string // like "vendor.com/class=name"
	Inject(s *specs.Spec, names []string) error
}

// gpuKinds are the devices that --gpus means, by the driver it may name.
var gpuKinds = [...]struct{ driver, kind string }{
	{"nvidia", "nvidia.com/gpu="}, {"amd", "amd.com/gpu="},
}

// requested turns requests for devices into names of CDI's.
func requested(requests []container.DeviceRequest, cdi CDI) ([]string, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	var have []string
	if cdi != nil {
		have = cdi.List()
	}
	var out []string
	for _, r := range requests {
		names := r.DeviceIDs
		if r.Driver == "cdi" {
			if r.Count != 0 || len(r.Options) > 0 || len(r.Capabilities) > 0 {
				return nil, errs.New(errs.Invalid, "a request for CDI devices takes their names only: no count, capabilities or options")
			}
		} else {
			var err error
			if names, err = gpus(r, have); err != nil {
				return nil, err
			}
		}
		for _, n := range names {
			if !slices.Contains(have, n) {
				return nil, errs.Newf(errs.Invalid, "CDI device injection failed: unresolvable CDI devices %s", n)
			}
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out, nil
}

// gpus are the devices that --gpus asks for, of the first vendor who has some.
func gpus(r container.DeviceRequest, have []string) ([]string, error) {
	none := errs.Newf(errs.Unsupported, "could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
	isGPU := slices.ContainsFunc(r.Capabilities, func(all []string) bool { return slices.Contains(all, "gpu") })
	if !isGPU && r.Driver == "" {
		return nil, none
	}
	for _, g := range gpuKinds {
		kind := g.kind
		there := slices.ContainsFunc(have, func(n string) bool { return strings.HasPrefix(n, kind) })
		if !there || r.Driver != "" && r.Driver != g.driver {
			continue
		}
		switch {
		case len(r.Options) > 0:
			return nil, errs.Newf(errs.Unsupported, "options of a request for GPUs are not supported: %v", r.Options)
		case len(r.DeviceIDs) > 0 && r.Count != 0:
			return nil, errs.New(errs.Invalid, "cannot set both Count and DeviceIDs on device request")
		case len(r.DeviceIDs) > 0:
			out := make([]string, len(r.DeviceIDs))
			for i, id := range r.DeviceIDs {
				out[i] = kind + id
			}
			return out, nil
		case r.Count < 0:
			return []string{kind + "all"}, nil
		}
		var out []string
		for i := range max(r.Count, 1) {
			out = append(out, kind+strconv.Itoa(i))
		}
		return out, nil
	}
	return nil, none
}
