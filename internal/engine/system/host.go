package system

import (
	"bufio"
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// host is what the kernel and its files tell.
type host struct {
	kernel, os, osVersion       string
	memory                      int64
	forwarding                  bool
	apparmor, seccomp, cgroupns bool
	cgroup                      cgroups
}

// cgroups says which limits can be set.
type cgroups struct {
	version                                               int
	memory, swap, oomControl, quota, shares, cpuset, pids bool
	blkio                                                 bool
}

func inspectHost(root fs.FS) host {
	h := host{
		kernel:     readLine(root, "proc/sys/kernel/osrelease"),
		memory:     memTotal(root),
		forwarding: readLine(root, "proc/sys/net/ipv4/ip_forward") == "1",
		apparmor:   strings.HasPrefix(readLine(root, "sys/module/apparmor/parameters/enabled"), "Y"),
		cgroupns:   exists(root, "proc/self/ns/cgroup"),
		seccomp:    exists(root, "proc/sys/kernel/seccomp/actions_avail"),
		cgroup:     inspectCgroups(root),
	}
	h.os, h.osVersion = release(root)
	return h
}

// warnings in docker's words: clients show them as they are.
func (h host) warnings() []string {
	var w []string
	check := func(ok bool, what string) {
		if !ok {
			w = append(w, "WARNING: "+what)
		}
	}
	c := h.cgroup
	check(c.memory, "No memory limit support")
	check(c.swap, "No swap limit support")
	check(c.oomControl || c.version == 2, "No oom kill disable support")
	check(c.quota, "No cpu cfs quota support")
	check(c.quota, "No cpu cfs period support")
	check(c.shares, "No cpu shares support")
	check(c.cpuset, "No cpuset support")
	check(c.pids, "No pids limit support")
	check(c.blkio, "No block I/O limit support")
	check(h.forwarding, "IPv4 forwarding is disabled")
	return w
}

func readLine(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

func exists(root fs.FS, name string) bool {
	_, err := fs.Stat(root, name)
	return err == nil
}

func memTotal(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// release reads os-release(5).
func release(root fs.FS) (name, version string) {
	b, err := fs.ReadFile(root, "etc/os-release")
	if err != nil {
		if b, err = fs.ReadFile(root, "usr/lib/os-release"); err != nil {
			return "", ""
		}
	}
	fields := map[string]string{}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		k, v, _ := strings.Cut(strings.TrimSpace(sc.Text()), "=")
		if q, err := strconv.Unquote(v); err == nil {
			v = q
		}
		fields[k] = strings.Trim(v, "'")
	}
	if name = fields["PRETTY_NAME"]; name == "" {
		name = fields["NAME"]
	}
	return name, fields["VERSION_ID"]
}

func openFiles(root fs.FS) int {
	ents, err := fs.ReadDir(root, "proc/self/fd")
	if err != nil {
		return -1
	}
	return len(ents)
}

// inspectCgroups looks at the mounted hierarchies: those of version 1, or the
// unified one where nothing of the old is left.
func inspectCgroups(root fs.FS) cgroups {
	v1, v2 := cgroupMounts(root)
	if len(v1) == 0 {
		return unifiedCgroups(root, v2)
	}
	has := func(controller, file string) bool {
		dir, ok := v1[controller]
		return ok && exists(root, path.Join(dir, file))
	}
	return cgroups{
		version:    1,
		memory:     has("memory", "memory.limit_in_bytes"),
		swap:       has("memory", "memory.memsw.limit_in_bytes"),
		oomControl: has("memory", "memory.oom_control"),
		quota:      has("cpu", "cpu.cfs_quota_us") || has("cpu", "cpu.cfs_period_us"),
		shares:     has("cpu", "cpu.shares"),
		cpuset:     has("cpuset", "cpuset.cpus"),
		pids:       has("pids", "."),
		blkio:      has("blkio", "blkio.throttle.read_bps_device"),
	}
}

func unifiedCgroups(root fs.FS, dir string) cgroups {
	c := strings.Fields(readLine(root, path.Join(dir, "cgroup.controllers")))
	has := func(name string) bool { return slices.Contains(c, name) }
	// The root group has no limits: look for the swap file where we are.
	own := ""
	if _, p, ok := strings.Cut(readLine(root, "proc/self/cgroup"), "::"); ok {
		own = p
	}
	swap := exists(root, path.Join(dir, own, "memory.swap.max")) || own == "/" && exists(root, "proc/swaps")
	return cgroups{
		version: 2,
		memory:  has("memory"),
		swap:    has("memory") && swap,
		quota:   has("cpu"),
		shares:  has("cpu"),
		cpuset:  has("cpuset"),
		pids:    has("pids"),
		blkio:   has("io"),
	}
}

// cgroupMounts returns the directory of each old controller, and of the unified
// hierarchy, without the leading slash.
func cgroupMounts(root fs.FS) (v1 map[string]string, v2 string) {
	v1 = map[string]string{}
	b, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return v1, "sys/fs/cgroup"
	}
	for line := range strings.Lines(string(b)) {
		mount, after, ok := strings.Cut(line, " - ")
		fields, super := strings.Fields(mount), strings.Fields(after)
		if !ok || len(fields) < 5 || len(super) < 3 {
			continue
		}
		dir := strings.TrimPrefix(fields[4], "/")
		switch super[0] {
		case "cgroup2":
			v2 = dir
		case "cgroup":
			for o := range strings.SplitSeq(super[2], ",") {
				if o != "rw" && o != "ro" && !strings.Contains(o, "=") {
					v1[o] = dir
				}
			}
		}
	}
	return v1, v2
}
