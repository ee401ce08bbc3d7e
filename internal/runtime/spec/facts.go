package spec

import (
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// HostFacts is what a specification depends on beside the configuration. The
// functions may look at the host; tests give fixed answers.
type HostFacts struct {
	CgroupV2     bool
	CgroupNS     bool     // the kernel has cgroup namespaces
	Systemd      bool     // systemd makes the control groups
	Capabilities []string // "CAP_…" of the bounding set: the most that can be given
	// HardLimits holds, by name ("RLIMIT_NOFILE"), the limits that this process
	// cannot exceed; with CAP_SYS_RESOURCE it is not looked at.
	HardLimits map[string]uint64

	AppArmor, SELinux, Seccomp bool
	// ApparmorDefault is the profile of containers that name none; "" where it
	// could not be loaded.
	ApparmorDefault string

	Runtimes       []string // names of other runtimes than the built-in one
	DefaultRuntime string   // of containers that name none; "" is the built-in one

	DefaultIPC      container.IpcMode      // "" is private
	DefaultCgroupns container.CgroupnsMode // "" is private

	// UIDMap and GIDMap are those of containers' user namespaces; nil: containers
	// have none of their own.
	UIDMap, GIDMap []specs.LinuxIDMapping

	CPUs    int    // online
	CPUSet  string // usable processors, as "0-3"; "" is unknown
	MemSet  string // usable memory nodes
	Cgroups CgroupFacts

	// MaskedPaths are masked beside the default list: one thermal_throttle
	// directory a processor, where there are any.
	MaskedPaths []string
	RecursiveRO bool // mount_setattr can make a tree read-only (5.12)

	// Sysctl reports whether the kernel has it ("net.ipv4.ip_forward").
	Sysctl func(name string) bool
	// Devices lists the nodes that a privileged container gets.
	Devices func() ([]specs.LinuxDevice, error)
	// Device returns the node at a host path, or all nodes below a directory;
	// their paths are the host's.
	Device func(path string) ([]specs.LinuxDevice, error)
	CDI    CDI // nil: there are no such devices
}

// CgroupFacts says which limits the kernel can set.
type CgroupFacts struct {
	Memory, Swap, Reservation, Swappiness, OOMKillDisable bool
	CPUShares, CPUQuota, CPURealtime, CPUSet, Pids        bool
	BlkioWeight, BlkioWeightDevice, BlkioThrottle         bool
}

// AllCgroups is a kernel that has every controller of cgroup v1.
func AllCgroups() CgroupFacts {
	return CgroupFacts{
		Memory: true, Swap: true, Reservation: true, Swappiness: true, OOMKillDisable: true,
		CPUShares: true, CPUQuota: true, CPURealtime: true, CPUSet: true, Pids: true,
		BlkioWeight: true, BlkioWeightDevice: true, BlkioThrottle: true,
	}
}
