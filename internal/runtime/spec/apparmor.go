package spec

import (
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// ApparmorDefault is the profile that confines containers where AppArmor does;
// docker's name for its own is taken for it.
const (
	ApparmorDefault = "skiff-default"
	dockerDefault   = "docker-default"
)

// ApparmorText is the default profile in AppArmor's language. It needs no file
// of the host's: neither tunables nor abstractions.
//
// It is a second wall behind namespaces, capabilities and read-only mounts:
// also who holds CAP_SYS_ADMIN in a container cannot mount, nor write the
// kernel's parameters, but for the System V limits below kernel/shm*, which are
// the container's own.
func ApparmorText() string {
	var b strings.Builder
	b.WriteString("profile " + ApparmorDefault + ` flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  unix,
  capability,
  umount,
  deny mount,

  # Among themselves; the host's processes may signal and watch them.
  signal (send, receive) peer=` + ApparmorDefault + `,
  signal (receive) peer=unconfined,
  ptrace (trace, read, tracedby, readby) peer=` + ApparmorDefault + `,
  ptrace (tracedby, readby) peer=unconfined,

`)
	deny := func(access string, paths ...string) {
		for _, p := range paths {
			b.WriteString("  deny " + p + " " + access + ",\n")
		}
	}
	other := func(word, also string) string { // every name but word
		return "{" + strings.Join(append(except(word, also), word+"?*"), ",") + "}"
	}
	deny("w", "/proc/*", "/proc/"+other("sys", "1-9")+"/**") // processes' begin with a digit
	deny("w", "/proc/sys/"+other("kernel", "")+"{,/**}", "/proc/sys/kernel/{"+strings.Join(except("shm", ""), ",")+"}{,/**}")
	deny("rwklx", "/proc/sysrq-trigger", "/proc/kcore")
	deny("wklx", "/sys/"+other("fs", "")+"/**", "/sys/fs/"+other("cgroup", "")+"/**")
	deny("rwklx", "/sys/firmware/**", "/sys/devices/virtual/powercap/**", "/sys/kernel/security/**")
	b.WriteString("}\n")
	return b.String()
}

// except lists patterns that together match every name but those that begin
// with word, or with one of the characters in also.
func except(word, also string) []string {
	out := []string{"[^" + word[:1] + also + "]*"}
	for i := 1; i < len(word); i++ {
		out = append(out, word[:i], word[:i]+"[^"+word[i:i+1]+"]*")
	}
	return out
}

// ApparmorProfile is the profile of a container's processes; "" is none.
func ApparmorProfile(h *container.HostConfig, host HostFacts) string {
	sec, err := parseSecurityOpts(h.SecurityOpt, false)
	if err != nil {
		return ""
	}
	return apparmorProfile(sec, h.Privileged, host)
}

func apparmorProfile(o secOpts, privileged bool, host HostFacts) string {
	switch {
	case !host.AppArmor:
		return ""
	case o.apparmor == dockerDefault, o.apparmor == ApparmorDefault, o.apparmor == "" && !privileged:
		return host.ApparmorDefault
	case o.apparmor == "":
		return unconfined
	}
	return o.apparmor
}

// checkApparmor refuses a profile that cannot be enforced.
func (o secOpts) checkApparmor(host HostFacts) error {
	switch p := o.apparmor; {
	case p == "" || p == unconfined:
		return nil
	case p == dockerDefault && host.ApparmorDefault == "":
		return nil // the default, whatever that is here
	case !host.AppArmor:
		return errs.Newf(errs.Invalid, "AppArmor profile %q: AppArmor is not enabled on this host", p)
	case p == ApparmorDefault && host.ApparmorDefault == "":
		return errs.Newf(errs.Invalid, "AppArmor profile %q could not be loaded on this host: see the daemon's log", p)
	case strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return errs.Newf(errs.Invalid, "AppArmor profile %q: not a profile's name", p)
	}
	return nil
}
