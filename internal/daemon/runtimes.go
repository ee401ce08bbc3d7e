package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	apisystem "github.com/moby/moby/api/types/system"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// runtimesFlag collects --add-runtime and the key "runtimes" of daemon.json:
// other OCI runtimes by the names that containers ask for them with.
type runtimesFlag map[string]apisystem.Runtime

func (r runtimesFlag) String() string {
	return strings.Join(slices.Sorted(maps.Keys(r)), " ")
}
func (r runtimesFlag) Type() string { return "name=path" }

func (r runtimesFlag) Set(s string) error {
	name, path, ok := strings.Cut(s, "=")
	if !ok || path == "" {
		return fmt.Errorf("invalid runtime argument: %s", s)
	}
	return r.add(name, apisystem.Runtime{Path: path})
}

func (r runtimesFlag) setJSON(raw json.RawMessage) error {
	var in map[string]apisystem.Runtime
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if err := r.add(name, in[name]); err != nil {
			return err
		}
	}
	return nil
}

// A runtime's name becomes that of a directory.
var runtimeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func (r runtimesFlag) add(name string, rt apisystem.Runtime) error {
	if !runtimeName.MatchString(name) {
		return fmt.Errorf("invalid runtime name %q", name)
	}
	if name == spec.DefaultRuntime {
		return fmt.Errorf("runtime name '%s' is reserved", name)
	}
	if _, err := external(name, rt); err != nil {
		return fmt.Errorf("runtime %s: %w", name, err)
	}
	if _, twice := r[name]; twice {
		return fmt.Errorf("runtime '%s' was already defined", name)
	}
	r[name] = rt
	return nil
}

// external says how a declared runtime is run.
func external(name string, rt apisystem.Runtime) (runtime.External, error) {
	out := runtime.External{Name: name, Path: rt.Path, Args: rt.Args}
	switch {
	case rt.Path == "" && rt.Type == "":
		return out, fmt.Errorf("either `path` or `runtimeType` must be given")
	case rt.Path != "" && rt.Type != "":
		return out, fmt.Errorf("`path` and `runtimeType` exclude each other")
	case rt.Type == "" && len(rt.Options) > 0:
		return out, fmt.Errorf("`options` go with `runtimeType` only")
	case rt.Type == "":
		return out, nil
	case len(rt.Args) > 0:
		return out, fmt.Errorf("`runtimeArgs` cannot be used with `runtimeType`")
	}
	if filepath.IsAbs(rt.Type) {
		return out, fmt.Errorf("%s is a shim of containerd's: Skiff has one of its own and runs programs with an OCI command line (`path`)", rt.Type)
	}
	program := spec.ShimProgram(rt.Type)
	if program == "" {
		return out, fmt.Errorf("type %q is not known: Skiff runs programs with an OCI command line (`path`), not containerd's shims", rt.Type)
	}
	out.Path = program
	for key, v := range rt.Options {
		switch {
		case key == "TypeUrl" || v == nil || v == "" || v == false:
		case key == "BinaryName":
			path, ok := v.(string)
			if !ok {
				return out, fmt.Errorf("option BinaryName is no text")
			}
			out.Path = path
		default:
			return out, fmt.Errorf("option %s is not supported", key)
		}
	}
	return out, nil
}

// externals are all other runtimes, by name: those configured, and the types
// that containers may ask for without.
func (c *Config) externals() map[string]runtime.External {
	out := map[string]runtime.External{}
	for typ, program := range spec.ShimPrograms() {
		if program != "runc" { // that is what the built-in one stands in for
			out[typ] = runtime.External{Name: typ, Path: program}
		}
	}
	for name, rt := range c.Runtimes {
		if e, err := external(name, rt); err == nil { // checked when it was added
			out[name] = e
		}
	}
	return out
}

// defaultRuntime is the one of containers that name none.
func (c *Config) defaultRuntime() string {
	if _, ok := c.externals()[c.DefaultRuntime]; ok {
		return c.DefaultRuntime
	}
	return spec.DefaultRuntime
}

func (c *Config) checkDefaultRuntime() error {
	if _, ok := c.externals()[c.DefaultRuntime]; !ok && !spec.IsBuiltin(c.DefaultRuntime) {
		return fmt.Errorf("specified default runtime '%s' does not exist", c.DefaultRuntime)
	}
	return nil
}

// runtimes is what /info lists.
func (c *Config) runtimes() map[string]apisystem.Runtime {
	out := map[string]apisystem.Runtime{spec.DefaultRuntime: {Path: "skiff-shim"}}
	maps.Copy(out, c.Runtimes)
	return out
}
