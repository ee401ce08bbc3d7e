package spec

import (
	"slices"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// DefaultCapabilities is docker's default set.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// CapabilityName returns the name of the capability with a number, or "".
func CapabilityName(n int) string {
	names := strings.Fields(capabilityNames)
	if n < 0 || n >= len(names) {
		return ""
	}
	return "CAP_" + names[n]
}

// capabilityNames lists all there are, in the kernel's numbering from 0.
const capabilityNames = `CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE
AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
CHECKPOINT_RESTORE`

const allCapabilities = "ALL"

// normalCaps gives names their full form ("net_admin" → "CAP_NET_ADMIN"; "ALL"
// stays) and refuses unknown ones and, where available is not nil, those that
// the host cannot give.
func normalCaps(names, available []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, name := range names {
		c := strings.ToUpper(strings.TrimSpace(name))
		if c == allCapabilities || c == "CAP_ALL" {
			out = append(out, allCapabilities)
			continue
		}
		c = strings.TrimPrefix(c, "CAP_")
		if !slices.Contains(strings.Fields(capabilityNames), c) {
			return nil, errs.Newf(errs.Invalid, "unknown capability: %q", "CAP_"+c)
		}
		c = "CAP_" + c
		if available != nil && !slices.Contains(available, c) {
			return nil, errs.Newf(errs.Invalid, "capability not supported by your kernel or not available in the current environment: %q", c)
		}
		out = append(out, c)
	}
	return out, nil
}

// capabilities is the set a container gets: docker's default with --cap-add
// and --cap-drop, or everything the host can give if privileged. Those of the
// default set that the host lacks are left out.
func capabilities(add, drop []string, privileged bool, available []string) ([]string, error) {
	adds, err := normalCaps(add, available)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "invalid CapAdd: %w", err)
	}
	drops, err := normalCaps(drop, nil)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "invalid CapDrop: %w", err)
	}
	var base []string
	switch {
	case privileged:
		return sorted(available), nil
	case slices.Contains(adds, allCapabilities):
		base, adds = available, nil
	case slices.Contains(drops, allCapabilities):
		// nothing but what is added
	default:
		for _, c := range DefaultCapabilities() {
			if slices.Contains(available, c) {
				base = append(base, c)
			}
		}
	}
	var out []string
	for _, c := range base {
		if !slices.Contains(drops, c) {
			out = append(out, c)
		}
	}
	return sorted(append(out, adds...)), nil
}

func sorted(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
