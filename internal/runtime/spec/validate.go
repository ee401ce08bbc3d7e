package spec

import (
	"net/netip"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/sys/signal"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// maxHostname is the kernel's __NEW_UTS_LEN.
const maxHostname = 64

// Validate checks a configuration at create, with docker's messages, and tells
// what of it this host will not do. The lookups of other objects (images,
// networks, containers, bind sources) are not its part.
func Validate(c *container.Config, h *container.HostConfig, host HostFacts) ([]string, error) {
	if err := checkConfig(c); err != nil {
		return nil, err
	}
	warnings, err := ValidateResources(&h.Resources, host, false)
	if err != nil {
		return warnings, err
	}
	for _, check := range []func() error{
		func() error { return checkRuntime(h.Runtime, host) },
		func() error { return checkUnsupported(h) },
		func() error { return checkModes(h) },
		func() error { return checkUserNS(h, host) },
		func() error { return checkPolicy(h) },
		func() error { return checkShm(h) },
		func() error { return checkCgroupParent(h, host) },
		func() error { return checkDevices(h, host) },
		func() error { return checkSecurity(h, host) },
		func() error { _, err := rlimits(h.Ulimits, nil, host); return err },
		func() error { _, err := MountPoints(c, h); return err },
		func() error { return checkNetwork(h) },
	} {
		if err := check(); err != nil {
			return warnings, errs.With(kindOr(err, errs.Invalid), err)
		}
	}
	if h.NetworkMode.IsHost() && len(h.PortBindings) > 0 {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	if h.CgroupnsMode.IsPrivate() && !host.CgroupNS {
		warnings = append(warnings, "Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded.")
	}
	if !host.Seccomp && !h.Privileged {
		warnings = append(warnings, "Your kernel does not support seccomp: system calls are not filtered.")
	}
	return warnings, nil
}

// kindOr is err's kind, or def for an error that has none.
func kindOr(err error, def errs.Kind) errs.Kind {
	if k := errs.KindOf(err); k != errs.Internal {
		return k
	}
	return def
}

func checkConfig(c *container.Config) error {
	if len(c.Hostname) > maxHostname {
		return errs.Newf(errs.Invalid, "hostname %q is too long (maximum %d bytes)", c.Hostname, maxHostname)
	}
	if len(c.Domainname) > maxHostname {
		return errs.Newf(errs.Invalid, "domain name %q is too long (maximum %d bytes)", c.Domainname, maxHostname)
	}
	// They become lines of /etc/hosts and /etc/hostname.
	if !oneWord(c.Hostname) {
		return errs.Newf(errs.Invalid, "invalid hostname: %q", c.Hostname)
	}
	if !oneWord(c.Domainname) {
		return errs.Newf(errs.Invalid, "invalid domain name: %q", c.Domainname)
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return errs.Newf(errs.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	if c.StopSignal != "" {
		if _, err := signal.ParseSignal(c.StopSignal); err != nil {
			return errs.With(errs.Invalid, err)
		}
	}
	if err := checkEnv(c.Env); err != nil {
		return err
	}
	return checkHealth(c.Healthcheck)
}

func checkHealth(hc *container.HealthConfig) error {
	if hc == nil {
		return nil
	}
	for name, d := range map[string]int64{
		"Interval": int64(hc.Interval), "Timeout": int64(hc.Timeout),
		"StartPeriod": int64(hc.StartPeriod), "StartInterval": int64(hc.StartInterval),
	} {
		if d != 0 && d < int64(container.MinimumDuration) {
			return errs.Newf(errs.Invalid, "%s in Healthcheck cannot be less than %s", name, container.MinimumDuration)
		}
	}
	if hc.Retries < 0 {
		return errs.New(errs.Invalid, "Retries in Healthcheck cannot be negative")
	}
	if len(hc.Test) > 0 && !slices.Contains([]string{"NONE", "CMD", "CMD-SHELL"}, hc.Test[0]) {
		return errs.Newf(errs.Invalid, "unknown healthcheck type %q", hc.Test[0])
	}
	return nil
}

// checkUnsupported refuses what docker has and Skiff does not.
func checkUnsupported(h *container.HostConfig) error {
	switch {
	case !h.Isolation.IsDefault():
		return errs.Newf(errs.Invalid, "invalid isolation (%s): linux only supports 'default'", h.Isolation)
	case h.Cgroup != "":
		return errs.Newf(errs.Unsupported, "cgroup %q: joining another container's cgroup is not supported", h.Cgroup)
	case !h.UsernsMode.Valid():
		return errs.Newf(errs.Invalid, "invalid user namespace mode: %v", h.UsernsMode)
	case h.Umask != nil && *h.Umask > 0o777:
		return errs.Newf(errs.Invalid, "invalid umask %o", *h.Umask)
	}
	for k := range h.Annotations {
		if k == "" {
			return errs.New(errs.Invalid, "invalid Annotations: the empty string is not permitted as an annotation key")
		}
	}
	_, err := LayerSize(h.StorageOpt)
	return err
}

// LayerSize is what options of the storage driver limit the writable layer to,
// in bytes; 0 is no limit.
func LayerSize(opts map[string]string) (uint64, error) {
	var size int64
	for _, k := range sortedKeys(opts) {
		if !strings.EqualFold(k, "size") {
			return 0, errs.Newf(errs.Invalid, "invalid --storage-opt: unknown option %s: only size is known", k)
		}
		var err error
		if size, err = units.RAMInBytes(opts[k]); err != nil {
			return 0, errs.Newf(errs.Invalid, "invalid --storage-opt %s=%s: %w", k, opts[k], err)
		}
	}
	return uint64(max(size, 0)), nil //nolint:gosec // not negative
}

func checkModes(h *container.HostConfig) error {
	switch {
	case !h.IpcMode.Valid() || h.IpcMode.IsContainer() && h.IpcMode.Container() == "":
		return errs.Newf(errs.Invalid, "invalid IPC mode: %v", h.IpcMode)
	case !h.PidMode.Valid():
		return errs.Newf(errs.Invalid, "invalid PID mode: %v", h.PidMode)
	case !h.UTSMode.Valid():
		return errs.Newf(errs.Invalid, "invalid UTS mode: %v", h.UTSMode)
	case !h.CgroupnsMode.Valid():
		return errs.Newf(errs.Invalid, "invalid cgroup namespace mode: %v", h.CgroupnsMode)
	case h.NetworkMode.IsContainer() && h.NetworkMode.ConnectedContainer() == "":
		return errs.New(errs.Invalid, "Link to a container: invalid network mode, container name or id missing")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return errs.Newf(errs.Invalid, "Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	return nil
}

func checkPolicy(h *container.HostConfig) error {
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return errs.New(errs.Invalid, "can't create 'AutoRemove' container with restart policy")
	}
	return container.ValidateRestartPolicy(h.RestartPolicy)
}

func checkSecurity(h *container.HostConfig, host HostFacts) error {
	if _, err := capabilities(h.CapAdd, h.CapDrop, h.Privileged, host.Capabilities); err != nil {
		return err
	}
	sec, err := parseSecurityOpts(h.SecurityOpt, false)
	if err != nil {
		return err
	}
	if err := sec.check(host); err != nil {
		return err
	}
	for _, name := range sortedKeys(h.Sysctls) {
		if err := checkSysctl(name, h.Sysctls[name], h); err != nil {
			return err
		}
	}
	for _, list := range [][]string{h.MaskedPaths, h.ReadonlyPaths} {
		for _, p := range list {
			if !path.IsAbs(p) {
				return errs.Newf(errs.Invalid, "masked or read-only path %q must be absolute", p)
			}
		}
	}
	return nil
}

func checkNetwork(h *container.HostConfig) error {
	for port, bindings := range h.PortBindings {
		if !port.IsValid() || port.Num() == 0 {
			return errs.Newf(errs.Invalid, "invalid port specification: %q", port.String())
		}
		for _, b := range bindings {
			if b.HostPort == "" {
				continue // any free port
			}
			if _, err := network.ParsePortRange(b.HostPort); err != nil {
				return errs.Newf(errs.Invalid, "invalid port specification: %q", b.HostPort)
			}
		}
	}
	for _, e := range h.ExtraHosts {
		if err := checkExtraHost(e); err != nil {
			return err
		}
	}
	for _, l := range h.Links {
		if !oneWord(l) {
			return errs.Newf(errs.Invalid, "bad format for links: %q", l)
		}
	}
	return nil
}

// oneWord reports whether s can stand in a line of /etc/hosts without making
// another word, line or comment of it.
func oneWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r == '#' || unicode.IsSpace(r) || unicode.IsControl(r) })
}

// hostGateway stands for the host's address, which is known only at start.
const hostGateway = "host-gateway"

func checkExtraHost(s string) error {
	name, ip, ok := strings.Cut(s, ":")
	if !ok || name == "" || !oneWord(name) {
		return errs.Newf(errs.Invalid, "bad format for add-host: %q", s)
	}
	if ip == hostGateway {
		return nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return errs.Newf(errs.Invalid, "invalid IP address in add-host: %q", ip)
	}
	return nil
}
