package runopts

import (
	"encoding/csv"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// deviceFlags give devices to the container.
type deviceFlags struct {
	devices listFlag
	rules   listFlag
	gpus    gpuFlag
}

func (v *deviceFlags) register(fs *pflag.FlagSet) {
	fs.Var(&v.devices, "device", "Add a device of the host (path[:path][:rwm], or a CDI name)")
	fs.Var(&v.rules, "device-cgroup-rule", "Allow devices by a cgroup rule (\"c 1:3 rwm\")")
	fs.Var(&v.gpus, "gpus", "GPUs to add ('all', a number, or device=...)")
}

func (v *deviceFlags) apply(_ *pflag.FlagSet, d *Document) error {
	var cdi []string
	for _, s := range v.devices.Values {
		if cdiName(s) {
			cdi = append(cdi, s)
			continue
		}
		m, err := deviceMapping(s)
		if err != nil {
			return err
		}
		d.Host.Devices = append(d.Host.Devices, m)
	}
	for _, r := range v.rules.Values {
		if !cgroupRule(r) {
			return fmt.Errorf("invalid device cgroup format '%s'", r)
		}
		d.Host.DeviceCgroupRules = append(d.Host.DeviceCgroupRules, r)
	}
	d.Host.DeviceRequests = v.gpus.requests
	if len(cdi) > 0 {
		d.Host.DeviceRequests = append(d.Host.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return nil
}

// cdiName reports whether s is a qualified CDI device: vendor/class=name.
func cdiName(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, ok2 := strings.Cut(kind, "/")
	return ok && ok2 && vendor != "" && class != "" && name != "" && !strings.Contains(class, "/") && !strings.ContainsAny(name, "/ ")
}

// cgroupRule reports whether s is TYPE MAJOR:MINOR MODE.
func cgroupRule(s string) bool {
	f := strings.Split(s, " ")
	if len(f) != 3 || len(f[0]) != 1 || !strings.Contains("abc", f[0]) || !deviceMode(f[2]) {
		return false
	}
	major, minor, ok := strings.Cut(f[1], ":")
	return ok && deviceNumber(major) && deviceNumber(minor)
}

func deviceNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return s == "*" || err == nil
}

func deviceMapping(s string) (container.DeviceMapping, error) {
	var m container.DeviceMapping
	parts := strings.Split(s, ":")
	m.CgroupPermissions = "rwm"
	switch len(parts) {
	case 1:
		m.PathOnHost, m.PathInContainer = parts[0], parts[0]
	case 2:
		m.PathOnHost = parts[0]
		if deviceMode(parts[1]) {
			m.PathInContainer, m.CgroupPermissions = parts[0], parts[1]
		} else {
			m.PathInContainer = parts[1]
		}
	case 3:
		m.PathOnHost, m.PathInContainer, m.CgroupPermissions = parts[0], parts[1], parts[2]
		if !deviceMode(parts[2]) {
			return m, fmt.Errorf("bad mode specified: %s", parts[2])
		}
	default:
		return m, fmt.Errorf("bad format for path: %s", s)
	}
	if m.PathOnHost == "" || m.PathInContainer == "" {
		return m, fmt.Errorf("bad format for path: %s", s)
	}
	if !path.IsAbs(m.PathInContainer) {
		return m, fmt.Errorf("%s is not an absolute path", m.PathInContainer)
	}
	return m, nil
}

// deviceMode reports whether s is made of r, w and m, each at most once.
func deviceMode(s string) bool {
	if s == "" || len(s) > 3 {
		return false
	}
	for i, c := range s {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(s[:i], c) {
			return false
		}
	}
	return true
}

// gpuFlag is --gpus: "all", a count, or keys and values.
type gpuFlag struct{ requests []container.DeviceRequest }

func (g *gpuFlag) Type() string   { return "gpu-request" }
func (g *gpuFlag) String() string { return "" }

func (g *gpuFlag) Set(v string) error {
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return err
	}
	var r container.DeviceRequest
	seen := map[string]bool{}
	for _, f := range fields {
		k, val, has := strings.Cut(f, "=")
		if seen[k] {
			return fmt.Errorf("gpu request key '%s' can be specified only once", k)
		}
		seen[k] = true
		if !has {
			seen["count"] = true
			if r.Count, err = gpuCount(k); err != nil {
				return err
			}
			continue
		}
		switch k {
		case "driver":
			r.Driver = val
		case "count":
			if r.Count, err = gpuCount(val); err != nil {
				return err
			}
		case "device":
			r.DeviceIDs = strings.Split(val, ",")
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(val, ","), "gpu")}
		case "options":
			o, err := csv.NewReader(strings.NewReader(val)).Read()
			if err != nil {
				return fmt.Errorf("failed to read gpu options: %w", err)
			}
			r.Options = pairs(o)
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", k, f)
		}
	}
	if !seen["count"] && r.DeviceIDs == nil {
		r.Count = 1
	}
	if r.Options == nil {
		r.Options = map[string]string{}
	}
	if r.Capabilities == nil {
		r.Capabilities = [][]string{{"gpu"}}
	}
	g.requests = append(g.requests, r)
	return nil
}

func gpuCount(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf(`invalid count (%s): value must be either "all" or an integer`, s)
	}
	return n, nil
}

func pairs(list []string) map[string]string {
	m := map[string]string{}
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}
