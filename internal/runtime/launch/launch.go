//go:build linux

// Package launch turns a child of the shim into a container's process.
//
// There are two halves. The shim calls [Start] or [Exec], which clone a child
// (this same program, run from its sealed copy under the name [InitName]) into
// fresh or existing namespaces and the container's control group. The child,
// in [Main], makes the mounts by descriptor, changes its root, gives up what
// the container may not have and executes the command. The halves talk over a
// socket that closes by itself when the command is executed: silence is success.
//
// All of the runtime specification is done or refused by name, before anything
// is made (check.go). Where the child lacks a right, in a user namespace above
// all, the parent prepares for it (userns.go): the child finds descriptors. A
// user or time namespace is joined by a plain fork of one thread (fork.go).
// Between create and start a child may wait at a gate (gate.go).
//
// Rules that keep the host safe from the image: nothing of it is opened but
// below its own root (openat2, RESOLVE_IN_ROOT); every mount goes to a
// descriptor; /dev is ours and made before; /proc is written through a private
// handle; every descriptor closes on exec; the child cannot be traced or read
// before it has become the command.
package launch

import (
	"io"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// Names under which the shim's program runs as something else: argv[0].
const (
	InitName   = "skiff-launch" // sets a container's process up
	ReaperName = "skiff-init"   // stays as process 1 of a container
)

// The child's descriptors, beside standard streams.
const (
	fdControl = 3
	fdJoin    = 4 // pidfd of the container's first process, for an exec
	fdRoot    = 5 // that process's root
	fdMore    = 4 // the first of those that a request names, for a start
)

// A request tells the child what to become.
type request struct {
	ID      string
	Exec    bool // join a container, make none
	Spec    *world
	Process *command
	Rootfs  *runtime.Rootfs
	User    *runtime.User
	Seccomp *seccomp.Program
	ByPage  bool // the kernel takes the root's layers in one string only
	TTY     bool
	Console [2]uint
	Init    bool
	NetNS   bool // it has a network namespace that was passed along, and is not the host's
	OwnIO   bool // the streams are the shim's: give them to the user

	MountPoint string // where the root is attached before it becomes "/"
	Cgroups    []cgroup.Mount
	CgroupPath string
	PIDsFile   string // limit of processes: set at the very end, since the
	PIDsMax    string // launcher's threads count too; without a value it stays

	Files        [2]int // descriptors for the command: the first, and how many
	NoNewKeyring bool

	Hooks  *hookWork
	Shared bool // the mounts are not the container's own: the host's, or joined by path

	// Descriptors that the parent opened; 0 is none.
	Gate    int
	MountNS int   // to be joined
	GroupNS int   // the control groups', to be joined
	Tasks   []int // files of resctrl that this process enters itself in
	Made    made  // what a user namespace's root may not make itself
	UserNS  bool  // this process is in one
}

// made is what the parent has prepared where the child lacks the right to.
type made struct {
	Root    int
	Sources []int // by index of Spec.Mounts
	Dev     bool  // the source of /dev has its devices
	PIDs    int   // as PIDsFile
	Sysctls bool  // the network's sysctls are set
}

// The types below hold what the child needs of a specification, and no more.

type world struct {
	Root       specs.Root
	Hostname   string
	Domainname string
	Mounts     []mount
	Linux      kernel
}

type mount struct {
	Destination string
	Type        string
	Source      string
	Options     []string
}

type kernel struct {
	Sysctl            map[string]string
	Namespaces        []specs.LinuxNamespace // those that are not the host's
	Devices           []specs.LinuxDevice
	RootfsPropagation string
	MaskedPaths       []string
	ReadonlyPaths     []string
	MountLabel        string
}

type command struct {
	ConsoleSize     *specs.Box
	User            specs.User
	Args            []string
	Env             []string
	Cwd             string
	Capabilities    *specs.LinuxCapabilities
	Rlimits         []specs.POSIXRlimit
	NoNewPrivileges bool
	ApparmorProfile string
	OOMScoreAdj     *int
	IOPriority      *specs.LinuxIOPriority
	Scheduler       *specs.Scheduler
	SelinuxLabel    string
	CPUs            string // to be bound to
	Personality     specs.LinuxPersonalityDomain
	MemoryPolicy    *specs.LinuxMemoryPolicy
}

func worldOf(s *specs.Spec) *world {
	w := &world{
		Hostname: s.Hostname, Domainname: s.Domainname,
		Linux: kernel{
			Sysctl: s.Linux.Sysctl, Namespaces: s.Linux.Namespaces, Devices: s.Linux.Devices,
			RootfsPropagation: s.Linux.RootfsPropagation, MaskedPaths: s.Linux.MaskedPaths, ReadonlyPaths: s.Linux.ReadonlyPaths,
			MountLabel: s.Linux.MountLabel,
		},
	}
	if s.Root != nil {
		w.Root = *s.Root
	}
	for _, m := range s.Mounts {
		w.Mounts = append(w.Mounts, mount{m.Destination, m.Type, m.Source, m.Options})
	}
	return w
}

// commandOf is a process with what its container's specification says of all of
// its processes.
func commandOf(p *specs.Process, personality *specs.LinuxPersonality, policy *specs.LinuxMemoryPolicy) *command {
	c := &command{
		p.ConsoleSize, p.User, p.Args, p.Env, p.Cwd, p.Capabilities, p.Rlimits, p.NoNewPrivileges,
		p.ApparmorProfile, p.OOMScoreAdj, p.IOPriority, p.Scheduler, p.SelinuxLabel, "", "", policy,
	}
	if personality != nil {
		c.Personality = personality.Domain
	}
	return c
}

// An answer comes from the child: the terminal, the listener of its seccomp
// filter or its mount namespace (with a descriptor), that it waits for the hooks of the runtime or at
// its gate, that it is about to execute the command, or why it failed.
type answer struct {
	Console  bool
	Mounts   bool
	Listener bool
	Hooks    bool
	Reaper   bool
	Created  bool
	Ready    bool
	Code     int
	Text     string
	Invalid  bool
}

// rawFD reads and writes a descriptor without the runtime's poller.
type rawFD int

func (fd rawFD) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (fd rawFD) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(int(fd), p[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
