package spec

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// docker's default size of /dev/shm.
const defaultShmSize = 64 << 20

func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
	}
}

// mounts returns what is mounted over the root, parents before children, and
// the propagation that the root needs for it.
func mounts(in Input, sec secOpts) ([]specs.Mount, string, error) {
	h := in.HostConfig
	asked := slices.Clone(in.Mounts)
	slices.SortStableFunc(asked, func(a, b Mount) int {
		return cmp.Compare(depth(a.Destination), depth(b.Destination))
	})
	taken := map[string]bool{}
	for _, m := range asked {
		taken[path.Clean(m.Destination)] = true
	}
	var out []specs.Mount
	for _, m := range defaultMounts() {
		if taken[m.Destination] || taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		m, keep, err := adaptDefault(m, in, sec)
		if err != nil {
			return nil, "", err
		}
		if keep {
			out = append(out, m)
		}
	}
	propagation := ""
	for _, m := range asked {
		sm, err := convertMount(m, in.Host, Remapped(h, in.Host))
		if err != nil {
			return nil, "", err
		}
		propagation = rootPropagation(propagation, m.Propagation)
		out = append(out, sm)
	}
	if h.ReadonlyRootfs {
		for i := range out {
			switch d := out[i].Destination; {
			case taken[d], d == "/proc", d == "/dev", strings.HasPrefix(d, "/dev/"), slices.Contains(out[i].Options, "ro"):
			default:
				out[i].Options = append(out[i].Options, "ro")
			}
		}
	}
	return out, propagation, nil
}

func depth(p string) int {
	p = path.Clean(p)
	if p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}

// adaptDefault fits a default mount to the container's modes.
func adaptDefault(m specs.Mount, in Input, sec secOpts) (specs.Mount, bool, error) {
	h := in.HostConfig
	switch m.Destination {
	case "/sys":
		// A network namespace of the host's or another's does not let sysfs be
		// mounted writable there; docker keeps it read-only as well.
		if h.Privileged {
			m.Options = without(m.Options, "ro")
		}
	case "/sys/fs/cgroup":
		writable := h.Privileged
		if sec.writableCgroups != nil {
			writable = *sec.writableCgroups
		}
		if writable {
			m.Options = without(m.Options, "ro")
		}
	case "/dev/shm":
		switch {
		case h.IpcMode.IsNone():
			return m, false, nil
		case h.IpcMode.IsHost():
			return shmBind("/dev/shm"), true, nil
		case in.ShmPath != "":
			return shmBind(in.ShmPath), true, nil
		case h.IpcMode.IsContainer():
			return m, false, errs.Newf(errs.Internal, "%s: the other container's /dev/shm is not known", h.IpcMode)
		}
		size := cmp.Or(h.ShmSize, in.DefaultShmSize, defaultShmSize)
		m.Options = append(m.Options, "size="+strconv.FormatInt(size, 10))
	}
	return m, true, nil
}

func shmBind(from string) specs.Mount {
	return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: from, Options: []string{"bind", "nosuid", "noexec", "nodev"}}
}

func without(list []string, what string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == what })
}

// convertMount turns a resolved mount into the runtime's.
func convertMount(m Mount, host HostFacts, remapped bool) (specs.Mount, error) {
	if !path.IsAbs(m.Destination) {
		return specs.Mount{}, errs.Newf(errs.Invalid, "invalid mount path: '%s' mount path must be absolute", m.Destination)
	}
	out := specs.Mount{Destination: path.Clean(m.Destination), Type: m.Type, Source: m.Source}
	if m.Type != "" && m.Type != "bind" {
		out.Options = slices.Clone(m.Options)
		if m.Type == "tmpfs" {
			out.Source = "tmpfs"
			out.Options = tmpfsOptions(m.Options)
		}
		if m.ReadOnly && !slices.Contains(out.Options, "ro") {
			out.Options = append(out.Options, "ro")
		}
		if m.Subpath != "" {
			out.Options = append(out.Options, subpathOption+"="+m.Subpath)
		}
		return out, nil
	}
	if m.Source == "" {
		return out, errs.Newf(errs.Invalid, "mount at %s: a bind needs a source", m.Destination)
	}
	out.Type = "bind"
	out.Options = append(out.Options, "rbind")
	if m.NonRecursive {
		out.Options[0] = "bind"
	}
	if m.Inside && remapped {
		out.Options = append(out.Options, "idmap")
	}
	if m.ReadOnly {
		ro := "rro"
		if m.ReadOnlyNonRecursive {
			ro = "ro"
			if m.ReadOnlyForceRecursive {
				return out, errs.New(errs.Invalid, "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
			}
		}
		if ro == "rro" && !host.RecursiveRO {
			if m.ReadOnlyForceRecursive {
				return out, errs.Newf(errs.Invalid, "mount at %s: the kernel cannot make a mount recursively read-only", m.Destination)
			}
			ro = "ro"
		}
		out.Options = append(out.Options, ro)
	}
	out.Options = append(out.Options, string(cmp.Or(m.Propagation, mount.PropagationRPrivate)))
	out.Options = append(out.Options, m.Options...)
	if m.Subpath != "" {
		out.Options = append(out.Options, subpathOption+"="+m.Subpath)
	}
	return out, nil
}

// subpathOption is the launcher's (internal/sys/mnt).
const subpathOption = "x-skiff.subpath"

// tmpfsOptions puts docker's defaults before the ones asked for, which win:
// "exec" takes "noexec" away and so on.
func tmpfsOptions(asked []string) []string {
	opposite := map[string]string{"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro"}
	for a, b := range opposite {
		opposite[b] = a
	}
	var out []string
	for _, o := range append([]string{"noexec", "nosuid", "nodev"}, asked...) {
		key, _, _ := strings.Cut(o, "=")
		out = slices.DeleteFunc(out, func(have string) bool {
			k, _, _ := strings.Cut(have, "=")
			return k == key || k == opposite[key]
		})
		if o != "" {
			out = append(out, o)
		}
	}
	return out
}

// rootPropagation is what the container's root must have, at least, for one of
// its mounts to have p.
func rootPropagation(now string, p mount.Propagation) string {
	switch p {
	case mount.PropagationShared, mount.PropagationRShared:
		return "shared"
	case mount.PropagationSlave, mount.PropagationRSlave:
		if now == "" {
			return "rslave"
		}
	}
	return now
}

// TmpfsMount makes the mount of a --tmpfs entry, or of --mount type=tmpfs.
func TmpfsMount(destination, options string) Mount {
	m := Mount{Destination: destination, Type: "tmpfs"}
	if options != "" {
		m.Options = strings.Split(options, ",")
	}
	return m
}

func checkShm(h *container.HostConfig) error {
	if h.ShmSize < 0 {
		return errs.New(errs.Invalid, "SHM size can not be less than 0")
	}
	return nil
}
