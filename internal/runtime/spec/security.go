package spec

import (
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const unconfined = "unconfined"

// secOpts is --security-opt, parsed.
type secOpts struct {
	noNewPrivileges  bool
	seccomp          string // "" or "builtin", "unconfined", or JSON
	apparmor         string
	label            []string
	writableCgroups  *bool
	systemUnconfined bool
}

func parseSecurityOpts(opts []string, noNewPrivileges bool) (secOpts, error) {
	out := secOpts{noNewPrivileges: noNewPrivileges}
	for _, opt := range opts {
		key, value, ok := strings.Cut(opt, "=")
		if !ok { // the form before docker 1.11
			key, value, ok = strings.Cut(opt, ":")
		}
		if !ok && (key == "no-new-privileges" || key == "writable-cgroups") {
			value, ok = "true", true
		}
		if !ok && key == "disable" {
			key, value, ok = "label", "disable", true
		}
		if !ok {
			return out, errs.Newf(errs.Invalid, "invalid --security-opt 1: %q", opt)
		}
		switch key {
		case "no-new-privileges", "writable-cgroups":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return out, errs.Newf(errs.Invalid, "invalid --security-opt 2: %q", opt)
			}
			if key == "no-new-privileges" {
				out.noNewPrivileges = on
			} else {
				out.writableCgroups = &on
			}
		case "seccomp":
			out.seccomp = value
		case "apparmor":
			out.apparmor = value
		case "label":
			out.label = append(out.label, value)
		case "systempaths":
			if value != unconfined {
				return out, errs.Newf(errs.Invalid, "invalid --security-opt 2: %q", opt)
			}
			out.systemUnconfined = true
		default:
			return out, errs.Newf(errs.Invalid, "invalid --security-opt 2: %q", opt)
		}
	}
	return out, nil
}

// check refuses what this host cannot enforce: a confinement that was asked for
// must not be left off.
func (o secOpts) check(host HostFacts) error {
	if err := o.checkApparmor(host); err != nil {
		return err
	}
	for _, l := range o.label {
		if l != "disable" {
			return errs.Newf(errs.Unsupported, "SELinux label %q: SELinux is not supported", l)
		}
	}
	if p := o.seccomp; p != "" && p != unconfined && p != "builtin" {
		if !host.Seccomp {
			return errs.New(errs.Invalid, "seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
		}
		// Decoded here so that a bad profile fails create; the rules depend on caps.
		if _, err := seccomp.LoadProfile(p, &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}); err != nil {
			return errs.Newf(errs.Invalid, "seccomp profile: %w", err)
		}
	}
	return nil
}

// seccompFilter chooses the container's system call filter: nil is none.
func seccompFilter(s *specs.Spec, own, daemon string, privileged bool, host HostFacts) (*specs.LinuxSeccomp, error) {
	profile := own
	if profile == "" {
		if privileged {
			return nil, nil
		}
		profile = daemon
	}
	if profile == unconfined || !host.Seccomp {
		return nil, nil
	}
	var f *specs.LinuxSeccomp
	var err error
	if profile == "" || profile == "builtin" {
		f, err = seccomp.GetDefaultProfile(s)
	} else {
		f, err = seccomp.LoadProfile(profile, s)
	}
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "seccomp profile: %w", err)
	}
	return f, nil
}

// defaultMaskedPaths is docker's list, with what its advisories added.
func defaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

func defaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// protectPaths sets the masked and read-only paths. A list in the configuration
// that is empty, and not absent, means none.
func protectPaths(l *specs.Linux, h *container.HostConfig, o secOpts, host HostFacts) {
	if h.Privileged || o.systemUnconfined {
		return
	}
	l.MaskedPaths = append(defaultMaskedPaths(), host.MaskedPaths...)
	if h.MaskedPaths != nil {
		l.MaskedPaths = h.MaskedPaths
	}
	l.ReadonlyPaths = defaultReadonlyPaths()
	if h.ReadonlyPaths != nil {
		l.ReadonlyPaths = h.ReadonlyPaths
	}
}
