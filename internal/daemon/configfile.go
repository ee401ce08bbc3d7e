package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/engine/system"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// fileKeys maps the keys of daemon.json that are not called like their flag.
var fileKeys = map[string]string{
	"hosts":                  "host",
	"hosts-ro":               "host-ro",
	"labels":                 "label",
	"insecure-registries":    "insecure-registry",
	"registry-mirrors":       "registry-mirror",
	"dns-opts":               "dns-opt",
	"log-opts":               "log-opt",
	"storage-opts":           "storage-opt",
	"default-ulimits":        "default-ulimit",
	"default-address-pools":  "default-address-pool",
	"default-network-opts":   "default-network-opt",
	"exec-opts":              "exec-opt",
	"runtimes":               "add-runtime",
	"tls-verify":             "tlsverify",
	"default-cgroup-parent":  "cgroup-parent",
	"cdi-spec-dirs":          "cdi-spec-dir",
	"features":               "feature",
	"host-gateway-ips":       "host-gateway-ip",
	"authorization-plugins":  "authorization-plugin",
	"node-generic-resources": "node-generic-resource",
	"graph":                  "", // removed from docker long ago
}

// notInFile are flags that make no sense as a key.
var notInFile = []string{"config-file", "validate", "help", "version"}

// LoadFile applies daemon.json to the flags of fs that were not given on the
// command line. A missing file is an error only if it was asked for. A key that
// is given in both places, unknown, or of the wrong shape is an error.
func LoadFile(path string, fset *pflag.FlagSet) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !fset.Changed("config-file") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unable to configure the daemon with file %s: %w", path, err)
	}
	if err := applyFile(data, fset); err != nil {
		return errs.Newf(errs.Invalid, "unable to configure the daemon with file %s: %w", path, err)
	}
	return nil
}

func applyFile(data []byte, fset *pflag.FlagSet) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // a byte order mark, as some editors leave
	var keys map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&keys); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("more than one JSON document")
	}
	if err := expandProxies(keys); err != nil {
		return err
	}
	names := make([]string, 0, len(keys))
	for k := range keys {
		names = append(names, k)
	}
	sort.Strings(names)
	var unknown, both []string
	set := map[*pflag.Flag][]string{}
	whole := map[*pflag.Flag]json.RawMessage{}
	for _, k := range names {
		name, renamed := fileKeys[k]
		if !renamed {
			name = k
		}
		f := fset.Lookup(name)
		if f == nil || name == "" || slices.Contains(notInFile, name) || isPluralOf(k, f) {
			unknown = append(unknown, k)
			continue
		}
		if _, ok := f.Value.(jsonFlag); ok && !f.Changed {
			whole[f] = keys[k]
			continue
		} else if ok {
			both = append(both, twice(k, f.Value.String(), string(keys[k])))
			continue
		}
		vals, err := flagValues(keys[k])
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		if f.Changed {
			both = append(both, twice(k, f.Value.String(), strings.Join(vals, ",")))
			continue
		}
		set[f] = vals
	}
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(both) > 0 {
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(both, ", "))
	}
	for f, raw := range whole {
		if err := f.Value.(jsonFlag).setJSON(raw); err != nil {
			return err
		}
	}
	for f, vals := range set {
		if list, ok := f.Value.(pflag.SliceValue); ok && len(vals) == 0 { // not the default's
			if err := list.Replace(nil); err != nil {
				return err
			}
		}
		for _, v := range vals {
			if err := fset.Set(f.Name, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// twice tells of a setting that is given in both places.
func twice(key, flag, file string) string {
	if strings.HasSuffix(key, "-proxy") {
		flag, file = system.MaskURL(flag), system.MaskURL(file)
	}
	return fmt.Sprintf("%s: (from flag: %s, from file: %s)", key, flag, file)
}

// expandProxies puts the members of "proxies" among the keys, which are called
// like the flags.
func expandProxies(keys map[string]json.RawMessage) error {
	raw, ok := keys["proxies"]
	if !ok {
		return nil
	}
	delete(keys, "proxies")
	var inner map[string]json.RawMessage
	if err := json.Unmarshal(raw, &inner); err != nil {
		return fmt.Errorf("proxies: %w", err)
	}
	for k, v := range inner {
		if !slices.Contains([]string{"http-proxy", "https-proxy", "no-proxy"}, k) {
			return fmt.Errorf("the following directives don't match any configuration option: %s", k)
		}
		keys[k] = v
	}
	return nil
}

// jsonFlag is a flag whose key holds more than text could say.
type jsonFlag interface {
	setJSON(raw json.RawMessage) error
}

// isPluralOf refuses "host" and the like, whose key is the plural, as dockerd.
func isPluralOf(key string, f *pflag.Flag) bool {
	if key != f.Name {
		return false
	}
	for plural, name := range fileKeys {
		if name == key && plural != "tls-verify" && plural != "default-cgroup-parent" && plural != "host-gateway-ips" {
			return true
		}
	}
	return false
}

// flagValues turns a JSON value into what the flag takes, once for each value.
func flagValues(raw json.RawMessage) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case []any:
		var out []string
		for _, e := range v {
			s, err := listValue(e)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		return out, nil
	case map[string]any:
		var out []string
		for k, e := range v {
			if u, ok := e.(map[string]any); ok { // default-ulimits
				s, err := ulimitValue(k, u)
				if err != nil {
					return nil, err
				}
				out = append(out, s)
				continue
			}
			s, err := scalar(e)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			out = append(out, k+"="+s)
		}
		sort.Strings(out)
		return out, nil
	default:
		s, err := scalar(v)
		return []string{s}, err
	}
}

// listValue takes a scalar, or {"base":…,"size":…} of default-address-pools.
func listValue(e any) (string, error) {
	m, ok := e.(map[string]any)
	if !ok {
		return scalar(e)
	}
	var parts []string
	for k, v := range m {
		s, err := scalar(v)
		if err != nil {
			return "", err
		}
		parts = append(parts, strings.ToLower(k)+"="+s)
	}
	sort.Strings(parts)
	return strings.Join(parts, ","), nil
}

func ulimitValue(name string, u map[string]any) (string, error) {
	num := func(key string) (string, error) {
		for k, v := range u {
			if strings.EqualFold(k, key) {
				return scalar(v)
			}
		}
		return "", nil
	}
	soft, err := num("soft")
	if err != nil {
		return "", err
	}
	hard, err := num("hard")
	if err != nil {
		return "", err
	}
	if given, _ := num("name"); given != "" {
		name = given
	}
	if soft == "" {
		return "", fmt.Errorf("ulimit %s has no Soft", name)
	}
	if hard == "" {
		hard = soft
	}
	return name + "=" + soft + ":" + hard, nil
}

func scalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return fmt.Sprint(v), nil
	case json.Number:
		return v.String(), nil
	}
	return "", fmt.Errorf("unexpected value %v", v)
}
