package spec

import (
	"regexp"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// ipcSysctls are the ones that an IPC namespace has of its own.
const ipcSysctls = `kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni
kernel.shm_rmid_forced kernel.auto_msgmni kernel.msg_next_id kernel.sem_next_id kernel.shm_next_id
fs.mqueue.queues_max fs.mqueue.msg_max fs.mqueue.msgsize_max fs.mqueue.msg_default fs.mqueue.msgsize_default`

var sysctlName = regexp.MustCompile(`^[a-z0-9_]+(?:[./][a-zA-Z0-9_@:-]+)+$`)

// checkSysctl refuses everything that is not of a namespace which is the
// container's own: such a setting would be the host's.
func checkSysctl(name, value string, h *container.HostConfig) error {
	if !sysctlName.MatchString(name) || strings.ContainsAny(value, "\x00\n") {
		return errs.Newf(errs.Invalid, "invalid sysctl %q=%q", name, value)
	}
	dotted := strings.ReplaceAll(name, "/", ".")
	switch {
	case slices.Contains(strings.Fields(ipcSysctls), dotted):
		if h.IpcMode.IsHost() {
			return errs.Newf(errs.Invalid, "sysctl %q not allowed in host ipc namespace", name)
		}
		if h.IpcMode.IsContainer() {
			return errs.Newf(errs.Invalid, "sysctl %q not allowed in an ipc namespace joined from another container", name)
		}
	case strings.HasPrefix(dotted, "net."):
		if h.NetworkMode.IsHost() {
			return errs.Newf(errs.Invalid, "sysctl %q not allowed in host network namespace", name)
		}
		if h.NetworkMode.IsContainer() {
			return errs.Newf(errs.Invalid, "sysctl %q not allowed in a network namespace joined from another container", name)
		}
	case dotted == "kernel.domainname":
		if h.UTSMode.IsHost() {
			return errs.Newf(errs.Invalid, "sysctl %q not allowed in host uts namespace", name)
		}
	default:
		return errs.Newf(errs.Invalid, "sysctl %q is not in a separate kernel namespace", name)
	}
	return nil
}

// sysctls returns the container's settings: docker's defaults for a network
// namespace of its own, then those asked for.
func sysctls(h *container.HostConfig, host HostFacts) (map[string]string, error) {
	out := map[string]string{}
	if h.NetworkMode.IsPrivate() {
		for name, value := range map[string]string{
			"net.ipv4.ping_group_range":           "0 2147483647", // ping without CAP_NET_RAW
			"net.ipv4.ip_unprivileged_port_start": "0",            // ports below 1024 without CAP_NET_BIND_SERVICE
		} {
			if host.Sysctl == nil || host.Sysctl(name) {
				out[name] = value
			}
		}
	}
	for name, value := range h.Sysctls {
		if err := checkSysctl(name, value, h); err != nil {
			return nil, err
		}
		out[strings.TrimSpace(name)] = value
	}
	return out, nil
}
