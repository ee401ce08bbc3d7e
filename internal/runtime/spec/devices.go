package spec

import (
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func ptr[T any](v T) *T { return &v }

func rule(allow bool, typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: allow, Type: typ, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

// defaultDeviceRules denies every device but the harmless ones; mknod of any
// node stays possible, as a node that cannot be opened does no harm.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		rule(false, "", -1, -1, "rwm"),
		rule(true, "c", -1, -1, "m"),
		rule(true, "b", -1, -1, "m"),
		rule(true, "c", 1, 3, "rwm"),    // null
		rule(true, "c", 1, 5, "rwm"),    // zero
		rule(true, "c", 1, 7, "rwm"),    // full
		rule(true, "c", 1, 8, "rwm"),    // random
		rule(true, "c", 1, 9, "rwm"),    // urandom
		rule(true, "c", 5, 0, "rwm"),    // tty
		rule(true, "c", 5, 1, "rwm"),    // console
		rule(true, "c", 5, 2, "rwm"),    // ptmx
		rule(true, "c", 136, -1, "rwm"), // pts/*
	}
}

// devices sets the nodes to make beside the default ones, and the rules of the
// device cgroup.
func devices(h *container.HostConfig, host HostFacts) (nodes []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, warnings []string, err error) {
	rules = defaultDeviceRules()
	if h.Privileged {
		rules = []specs.LinuxDeviceCgroup{rule(true, "", -1, -1, "rwm")}
		if host.Devices != nil {
			if nodes, err = host.Devices(); err != nil {
				return nil, nil, nil, err
			}
		}
	}
	for _, m := range h.Devices {
		perm := m.CgroupPermissions
		if perm == "" {
			perm = "rwm"
		}
		to := m.PathInContainer
		if to == "" {
			to = m.PathOnHost
		}
		if h.Privileged {
			if perm != "rwm" {
				warnings = append(warnings, "custom "+perm+" permissions for device "+m.PathOnHost+" are ignored in privileged mode")
			}
			if to == m.PathOnHost {
				continue // already there
			}
		}
		found, err := hostDevice(m.PathOnHost, host)
		if err != nil {
			return nil, nil, nil, err
		}
		for _, d := range found {
			d.Path = path.Join(to, strings.TrimPrefix(d.Path, path.Clean(m.PathOnHost)))
			nodes = append(nodes, d)
			if !h.Privileged {
				rules = append(rules, rule(true, d.Type, d.Major, d.Minor, perm))
			}
		}
	}
	if !h.Privileged {
		for _, text := range h.DeviceCgroupRules {
			r, err := parseDeviceRule(text)
			if err != nil {
				return nil, nil, nil, err
			}
			rules = append(rules, r)
		}
	}
	return nodes, rules, warnings, nil
}

func hostDevice(p string, host HostFacts) ([]specs.LinuxDevice, error) {
	if host.Device == nil {
		return nil, errs.Newf(errs.Unsupported, "device %s: devices of the host cannot be looked up", p)
	}
	found, err := host.Device(p)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "error gathering device information while adding custom device %q: %w", p, err)
	}
	if len(found) == 0 {
		return nil, errs.Newf(errs.Invalid, "error gathering device information while adding custom device %q: not a device node", p)
	}
	return found, nil
}

var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

// parseDeviceRule parses --device-cgroup-rule, "c 1:3 rwm".
func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	bad := errs.Newf(errs.Invalid, "invalid device cgroup rule format: '%s'", text)
	m := deviceRule.FindStringSubmatch(text)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, bad
	}
	number := func(s string) (int64, error) {
		if s == "*" {
			return -1, nil
		}
		n, err := strconv.ParseUint(s, 10, 32)
		return int64(n), err
	}
	major, err1 := number(m[2])
	minor, err2 := number(m[3])
	if err1 != nil || err2 != nil {
		return specs.LinuxDeviceCgroup{}, bad
	}
	return rule(true, m[1], major, minor, m[4]), nil
}

// checkDevices refuses mappings that cannot be meant.
func checkDevices(h *container.HostConfig, host HostFacts) error {
	for _, m := range h.Devices {
		if !path.IsAbs(m.PathOnHost) {
			return errs.Newf(errs.Invalid, "%s is not an absolute path", m.PathOnHost)
		}
		if m.PathInContainer != "" && !path.IsAbs(m.PathInContainer) {
			return errs.Newf(errs.Invalid, "%s is not an absolute path", m.PathInContainer)
		}
		if strings.Trim(m.CgroupPermissions, "rwm") != "" {
			return errs.Newf(errs.Invalid, "invalid device permissions %q for device %s", m.CgroupPermissions, m.PathOnHost)
		}
	}
	for _, text := range h.DeviceCgroupRules {
		if _, err := parseDeviceRule(text); err != nil {
			return err
		}
	}
	_, err := requested(h.DeviceRequests, host.CDI)
	return err
}
