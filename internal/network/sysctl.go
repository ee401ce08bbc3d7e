package network

import (
	"regexp"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
)

var sysctlPart = regexp.MustCompile(`^[a-zA-Z0-9_:-][a-zA-Z0-9_:.-]*$`)

// sysctlPath turns a name into a path below /proc/sys: only parameters of the
// network namespace, and nothing that could lead elsewhere.
func sysctlPath(name string) (string, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = strings.ReplaceAll(name, ".", "/")
	}
	parts := strings.Split(path, "/")
	ok := len(parts) >= 3 && parts[0] == "net"
	for _, p := range parts {
		ok = ok && sysctlPart.MatchString(p)
	}
	if !ok {
		return "", errs.Newf(errs.Invalid, "sysctl %q is not a parameter of the network namespace", name)
	}
	return path, nil
}

// sysctls resolves names; those that are not the network's are left to others.
func sysctls(set map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for name, value := range set {
		if !strings.HasPrefix(name, "net.") && !strings.HasPrefix(name, "net/") {
			continue
		}
		path, err := sysctlPath(name)
		if err != nil {
			return nil, err
		}
		out[path] = value
	}
	return out, nil
}

// endpointSysctls reads "net.ipv4.conf.IFNAME.forwarding=1,…".
func endpointSysctls(list, ifname string) (map[string]string, error) {
	out := map[string]string{}
	for item := range strings.SplitSeq(list, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(item), "=")
		parts := strings.Split(name, ".")
		if !ok || len(parts) != 5 || parts[3] != "IFNAME" {
			return nil, errs.Newf(errs.Invalid, "invalid endpoint sysctl %q: want net.X.Y.IFNAME.Z=value", item)
		}
		parts[3] = ifname
		path, err := sysctlPath(strings.Join(parts, "/"))
		if err != nil {
			return nil, err
		}
		out[path] = value
	}
	return out, nil
}

// writeSysctls writes them in the calling thread's namespace.
func writeSysctls(set map[string]string) error {
	for path, value := range set {
		if err := link.WriteSysctl(path, value); err != nil {
			return errs.With(errs.Invalid, err)
		}
	}
	return nil
}
