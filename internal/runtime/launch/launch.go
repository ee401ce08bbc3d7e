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
// Rules that keep the host safe from the image: nothing of it is opened but
// below its own root (openat2, RESOLVE_IN_ROOT); every mount goes to a
// descriptor; /dev is ours and made before; /proc is written through a private
// handle; every descriptor closes on exec; the child cannot be traced or read
// before it has become the command.
package launch

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
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
)

// A request tells the child what to become.
type request struct {
	ID      string           `json:"id"`
	Exec    bool             `json:"exec,omitempty"` // join a container, make none
	Spec    *world           `json:"spec,omitempty"`
	Process *command         `json:"process"`
	Rootfs  *runtime.Rootfs  `json:"rootfs,omitempty"`
	User    *runtime.User    `json:"user,omitempty"`
	Seccomp *seccomp.Program `json:"seccomp,omitempty"`
	TTY     bool             `json:"tty,omitempty"`
	Console [2]uint          `json:"console,omitempty"`
	Init    bool             `json:"init,omitempty"`
	NetNS   bool             `json:"netns,omitempty"` // it has a network namespace that was passed along
	OwnIO   bool             `json:"ownIO,omitempty"` // the streams are the shim's: give them to the user

	MountPoint string         `json:"mountPoint,omitempty"` // where the root is attached before it becomes "/"
	Cgroups    []cgroup.Mount `json:"cgroups,omitempty"`
	CgroupPath string         `json:"cgroupPath,omitempty"`
	PIDsFile   string         `json:"pidsFile,omitempty"` // limit of processes: set at the very end,
	PIDsMax    string         `json:"pidsMax,omitempty"`  // since the launcher's threads count too
}

// The types below hold what the child needs of a specification, and no more: a
// fresh process pays some microseconds for every type that encoding/json meets,
// and the whole of specs.Spec costs it almost a millisecond.

type world struct {
	Root       specs.Root `json:"root"`
	Hostname   string     `json:"hostname,omitempty"`
	Domainname string     `json:"domainname,omitempty"`
	Mounts     []mount    `json:"mounts,omitempty"`
	Linux      kernel     `json:"linux"`
}

type mount struct {
	Destination string   `json:"d"`
	Type        string   `json:"t,omitempty"`
	Source      string   `json:"s,omitempty"`
	Options     []string `json:"o,omitempty"`
}

type kernel struct {
	Sysctl            map[string]string      `json:"sysctl,omitempty"`
	Namespaces        []specs.LinuxNamespace `json:"namespaces,omitempty"`
	Devices           []specs.LinuxDevice    `json:"devices,omitempty"`
	RootfsPropagation string                 `json:"propagation,omitempty"`
	MaskedPaths       []string               `json:"masked,omitempty"`
	ReadonlyPaths     []string               `json:"readonly,omitempty"`
}

type command struct {
	ConsoleSize     *specs.Box               `json:"console,omitempty"`
	User            specs.User               `json:"user"`
	Args            []string                 `json:"args"`
	Env             []string                 `json:"env,omitempty"`
	Cwd             string                   `json:"cwd,omitempty"`
	Capabilities    *specs.LinuxCapabilities `json:"caps,omitempty"`
	Rlimits         []specs.POSIXRlimit      `json:"rlimits,omitempty"`
	NoNewPrivileges bool                     `json:"nnp,omitempty"`
	ApparmorProfile string                   `json:"apparmor,omitempty"`
	OOMScoreAdj     *int                     `json:"oom,omitempty"`
	IOPriority      *specs.LinuxIOPriority   `json:"ionice,omitempty"`
}

func worldOf(s *specs.Spec) *world {
	w := &world{
		Hostname: s.Hostname, Domainname: s.Domainname,
		Linux: kernel{
			Sysctl: s.Linux.Sysctl, Namespaces: s.Linux.Namespaces, Devices: s.Linux.Devices,
			RootfsPropagation: s.Linux.RootfsPropagation, MaskedPaths: s.Linux.MaskedPaths, ReadonlyPaths: s.Linux.ReadonlyPaths,
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

func commandOf(p *specs.Process) *command {
	return &command{
		p.ConsoleSize, p.User, p.Args, p.Env, p.Cwd, p.Capabilities, p.Rlimits, p.NoNewPrivileges,
		p.ApparmorProfile, p.OOMScoreAdj, p.IOPriority,
	}
}

// An answer comes from the child: the terminal (with a descriptor), that it is
// about to execute the command, or why it failed.
type answer struct {
	Console bool   `json:"console,omitempty"`
	Ready   bool   `json:"ready,omitempty"`
	Code    int    `json:"code,omitempty"`
	Text    string `json:"text,omitempty"`
	Invalid bool   `json:"invalid,omitempty"`
}

const maxMessage = 16 << 20

// Both ends write whole messages to a stream socket: 4 bytes of length, JSON.

func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(body) > maxMessage {
		return nil, fmt.Errorf("message of %d bytes is too long", len(body))
	}
	return append(binary.LittleEndian.AppendUint32(make([]byte, 0, len(body)+4), uint32(len(body))), body...), nil
}

func decode(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxMessage {
		return fmt.Errorf("message of %d bytes is too long", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, v)
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
