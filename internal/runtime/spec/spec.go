// Package spec turns docker's container configuration into an OCI runtime
// specification. It is pure: whatever must be asked of the host comes in with
// [HostFacts], so that every rule here has a table or golden test.
//
//	warnings, err := spec.Validate(config, hostConfig, facts) // at create
//	s, warnings, err := spec.Build(spec.Input{…})             // at start
//
// Whatever a client can put into the configuration is honoured or refused by
// name; nothing is dropped in silence.
package spec

import (
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// Input is all that decides a container's specification.
type Input struct {
	ID, Name string
	// Hostname and Domainname inside the container; Hostname is also $HOSTNAME.
	Hostname, Domainname string

	Config     *container.Config // merged with the image's
	HostConfig *container.HostConfig
	Path       string   // the effective command
	Args       []string // its arguments, without Path

	// Mounts are resolved by the engine: volumes, binds, tmpfs and the files it
	// keeps for the container (hosts, hostname, resolv.conf). One at the
	// destination of a default mount (/dev/shm, /sys, …) replaces that.
	Mounts []Mount

	CgroupPath string // e.g. "/skiff/<id>": see [CgroupPath]

	// Namespaces to join for the "container:" modes, as paths. The network's is
	// joined by descriptor and not named here. JoinUser is that of the container
	// whose others are joined: they belong to it.
	JoinPID, JoinIPC, JoinUTS, JoinUser string
	// ShmPath is bound to /dev/shm instead of a tmpfs: the directory that a
	// container with --ipc=shareable shares with those that join it.
	ShmPath string

	Host HostFacts

	DefaultUlimits map[string]*container.Ulimit // the daemon's --default-ulimit
	DefaultShmSize int64                        // the daemon's; 0 is docker's 64 MiB
	// SeccompProfile is the daemon's default: "" or "builtin", "unconfined", or
	// a profile in docker's JSON.
	SeccompProfile string
	// NoNewPrivileges is the daemon's default.
	NoNewPrivileges bool
	// Env comes between docker's defaults and the configuration's: legacy links.
	Env []string
}

// Mount is one resolved mount.
type Mount struct {
	Destination string
	Type        string   // "" or "bind": Source is a host path; else a file system's type
	Source      string   // host path, or the file system's source (device, NFS export)
	Subpath     string   // of a bind: a place in Source, which no link leads out of
	Options     []string // of a file system: "size=…", "mode=…", "addr=…"

	ReadOnly               bool // recursively, where the kernel can
	ReadOnlyNonRecursive   bool
	ReadOnlyForceRecursive bool
	NonRecursive           bool
	Propagation            mount.Propagation
	// Inside says that the source's owners are ids of the container: in a user
	// namespace they are mapped.
	Inside bool
}
