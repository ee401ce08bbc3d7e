// Package hostfacts asks the host what package spec must know of it.
package hostfacts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// Gather looks once; the daemon keeps the answer for its life.
func Gather() (spec.HostFacts, error) {
	caps, err := boundingSet()
	if err != nil {
		return spec.HostFacts{}, err
	}
	v2 := isCgroupV2()
	return spec.HostFacts{
		CgroupV2:     v2,
		CgroupNS:     exists("/proc/self/ns/cgroup"),
		Capabilities: caps,
		HardLimits:   hardLimits(),
		AppArmor:     firstByte("/sys/module/apparmor/parameters/enabled") == 'Y',
		SELinux:      exists("/sys/fs/selinux/enforce"),
		Seccomp:      unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0) == nil,
		CPUs:         runtime.NumCPU(),
		CPUSet:       readLine("/sys/fs/cgroup/cpuset.cpus.effective", "/sys/fs/cgroup/cpuset/cpuset.effective_cpus", "/sys/devices/system/cpu/online"),
		MemSet:       readLine("/sys/fs/cgroup/cpuset.mems.effective", "/sys/fs/cgroup/cpuset/cpuset.effective_mems", "/sys/devices/system/node/online"),
		Cgroups:      cgroups(v2),
		MaskedPaths:  thermalThrottle(),
		RecursiveRO:  hasMountSetattr(),
		Sysctl: func(name string) bool {
			return exists("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		},
		Devices: hostDevices,
		Device:  devicesAt,
	}, nil
}

func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}

func firstByte(p string) byte {
	data, err := os.ReadFile(p)
	if err != nil || len(data) == 0 {
		return 0
	}
	return data[0]
}

// readLine returns the first of the files that can be read.
func readLine(paths ...string) string {
	for _, p := range paths {
		if data, err := os.ReadFile(p); err == nil {
			return strings.TrimSpace(string(data))
		}
	}
	return ""
}

func boundingSet() ([]string, error) {
	var out []string
	for n := 0; ; n++ {
		name := spec.CapabilityName(n)
		if name == "" {
			return out, nil
		}
		on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return out, nil // an older kernel: no more capabilities
		}
		if err != nil {
			return nil, fmt.Errorf("read the capability bounding set: %w", err)
		}
		if on == 1 {
			out = append(out, name)
		}
	}
}

// limits are the kernel's numbers, which x/sys does not all name.
func hardLimits() map[string]uint64 {
	out := map[string]uint64{}
	for n, name := range strings.Fields(`CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME`) {
		var l unix.Rlimit
		if err := unix.Prlimit(0, n, nil, &l); err == nil {
			out["RLIMIT_"+name] = l.Max
		}
	}
	return out
}

func isCgroupV2() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// cgroups tells by the control files what can be limited.
func cgroups(v2 bool) spec.CgroupFacts {
	if v2 {
		has := strings.Fields(readLine("/sys/fs/cgroup/cgroup.controllers"))
		on := map[string]bool{}
		for _, c := range has {
			on[c] = true
		}
		// The root has no file of the weights themselves, but that of their scheduler.
		bfq := hasBFQ()
		weight := bfq || exists("/sys/fs/cgroup/io.cost.qos") || exists("/sys/fs/cgroup/io.weight")
		return spec.CgroupFacts{
			Memory: on["memory"], Swap: on["memory"], Reservation: on["memory"],
			CPUShares: on["cpu"], CPUQuota: on["cpu"], CPUSet: on["cpuset"], Pids: on["pids"],
			BlkioWeight: on["io"] && weight, BlkioWeightDevice: on["io"] && bfq, BlkioThrottle: on["io"],
		}
	}
	v1 := func(controller, file string) bool {
		return exists(filepath.Join("/sys/fs/cgroup", controller, file))
	}
	return spec.CgroupFacts{
		Memory:            v1("memory", "memory.limit_in_bytes"),
		Swap:              v1("memory", "memory.memsw.limit_in_bytes"),
		Reservation:       v1("memory", "memory.soft_limit_in_bytes"),
		Swappiness:        v1("memory", "memory.swappiness"),
		OOMKillDisable:    v1("memory", "memory.oom_control"),
		CPUShares:         v1("cpu", "cpu.shares"),
		CPUQuota:          v1("cpu", "cpu.cfs_quota_us"),
		CPURealtime:       Realtime(),
		CPUSet:            v1("cpuset", "cpuset.cpus"),
		Pids:              v1("pids", "cgroup.procs"), // the root has no pids.max
		BlkioWeight:       v1("blkio", "blkio.weight") || v1("blkio", "blkio.bfq.weight"),
		BlkioWeightDevice: v1("blkio", "blkio.weight_device") || v1("blkio", "blkio.bfq.weight_device"),
		BlkioThrottle:     v1("blkio", "blkio.throttle.read_bps_device"),
	}
}

// Realtime reports whether control groups limit real-time tasks.
func Realtime() bool { return exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us") }

// hasBFQ reports whether the kernel has the scheduler that knows weights of
// single devices: every device then offers it.
func hasBFQ() bool {
	found, _ := filepath.Glob("/sys/block/*/queue/scheduler")
	return slices.ContainsFunc(found, func(file string) bool { return strings.Contains(readLine(file), "bfq") })
}

func thermalThrottle() []string {
	found, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	return found
}

func hasMountSetattr() bool {
	// A bad size is refused with EINVAL by a kernel that has the call.
	_, _, errno := unix.Syscall6(unix.SYS_MOUNT_SETATTR, 0, 0, 0, 0, 0, 0)
	return errno != unix.ENOSYS
}

// device is the node at a path; symbolic links are followed, and Path is the
// one asked for.
func device(p string) (specs.LinuxDevice, bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return specs.LinuxDevice{}, false, &os.PathError{Op: "stat", Path: p, Err: err}
	}
	d := specs.LinuxDevice{
		Path: p, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		UID: new(st.Uid), GID: new(st.Gid), FileMode: new(os.FileMode(st.Mode & 0o7777)),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		d.Type = "b"
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFIFO:
		d.Type = "p"
	default:
		return d, false, nil
	}
	return d, true, nil
}

// devicesAt returns the node at p, or those below a directory p.
func devicesAt(p string) ([]specs.LinuxDevice, error) {
	d, is, err := device(p)
	if err != nil {
		return nil, err
	}
	if is {
		return []specs.LinuxDevice{d}, nil
	}
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return nil, err
	}
	var out []specs.LinuxDevice
	err = filepath.WalkDir(real, func(at string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeDevice == 0 {
			return nil //nolint:nilerr // what cannot be seen is not mapped
		}
		if d, is, err := device(at); err == nil && is {
			d.Path = filepath.Join(p, strings.TrimPrefix(at, real))
			out = append(out, d)
		}
		return nil
	})
	return out, err
}

// hostDevices lists what a privileged container gets of /dev: every node but
// terminals, the container's own directories and what the launcher makes.
func hostDevices() ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a node that went away
		}
		switch rel := strings.TrimPrefix(at, "/dev/"); {
		case e.IsDir() && skipped(rel):
			return fs.SkipDir
		case e.Type()&fs.ModeDevice == 0, made(rel):
			return nil
		}
		if d, is, err := device(at); err == nil && is {
			out = append(out, d)
		}
		return nil
	})
	return out, err
}

func skipped(rel string) bool {
	switch rel {
	case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
		return true
	}
	return false
}

// made reports nodes that every container has of its own, and virtual
// terminals, which belong to the host's console.
func made(rel string) bool {
	switch rel {
	case "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx":
		return true
	}
	if n, ok := strings.CutPrefix(rel, "tty"); ok {
		_, err := strconv.Atoi(n)
		return err == nil
	}
	return false
}
