package build

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/snapshot"
)

// Options are what a Builder needs of the rest of the engine.
type Options struct {
	Root     string // BuildKit's databases
	StateDir string // run-time files: a step's hosts and resolv.conf, mount points
	Store    *snapshot.Store
	Launcher Launcher
	Networks Networks

	RegistryHosts docker.RegistryHosts // nil: BuildKit's defaults
	CgroupParent  string               // of the steps' cgroups
	HostGateway   net.IP               // what "host-gateway" means in --add-host
	Insecure      bool                 // allow the security.insecure entitlement
	HostNetwork   bool                 // allow the network.host entitlement
	Cache         CacheLimits
	MaxParallel   int // steps at once; 0: no limit
	// ApparmorProfile confines the steps; "" is none.
	ApparmorProfile string
	Version         string

	// Record keeps an image that a build made under its names; its blobs and
	// layers are protected by the lease in ctx. Nil: plain records are written.
	Record func(context.Context, Image) error
	Log    *slog.Logger
}

// Image tells of an image that a build made.
type Image struct {
	ID       digest.Digest      // of the configuration
	Manifest ocispec.Descriptor // what the names point to
	Names    []string           // normalised references; none: dangling
}

// CacheLimits bound the build cache; zero fields have defaults that depend on
// the disk's size.
type CacheLimits struct {
	Disabled      bool  // never collect by itself
	ReservedSpace int64 // what is kept in any case, in bytes
	MaxUsedSpace  int64
	MinFreeSpace  int64
	Policy        []PruneOptions // what is collected, in turn; nil: BuildKit's rules
}

// Launcher runs the processes of build steps. It is a subset of the runtime
// room's Runtime, in plain types.
type Launcher interface {
	// Run starts a container. The channel gets one answer when it has ended.
	Run(ctx context.Context, r *Run) (<-chan Exit, error)
	// Exec starts one more process in a running container.
	Exec(ctx context.Context, e *Exec) (<-chan Exit, error)
	// Kill signals a container's process, or that of an exec.
	Kill(ctx context.Context, id, execID string, signal int) error
	// Resize sets the size of a process's terminal.
	Resize(ctx context.Context, id, execID string, height, width uint) error
	// Delete forgets a container that has ended, or kills it.
	Delete(ctx context.Context, id string) error
}

// Run asks for a container.
type Run struct {
	ID     string
	Spec   *specs.Spec // Root.Path is unused: see Rootfs
	Rootfs Rootfs
	// User, unless empty, is looked up in the container's own /etc/passwd and
	// /etc/group and then replaces Spec.Process.User.
	User string
	// TTY gives the process a terminal, which the launcher makes and joins with
	// Stdio's first two.
	TTY   bool
	Stdio [3]*os.File // else descriptors 0, 1 and 2; the caller closes them after Run
	// NetNS is the network namespace to join; nil means what the spec says.
	NetNS *os.File
	// Insecure says that the step may do what root of the host may.
	Insecure bool
}

// Rootfs is an overlay, or a directory to bind.
type Rootfs struct {
	Lower       []string // topmost first
	Upper, Work string
	Volatile    bool
	Bind        string
}

// Exec asks for one more process.
type Exec struct {
	ID, ExecID string
	Process    *specs.Process
	User       string
	Seccomp    *specs.LinuxSeccomp
	TTY        bool
	Stdio      [3]*os.File
}

// Exit tells how a process ended: 128+n if killed by signal n.
type Exit struct {
	Code int
	OOM  bool
	Err  error // it was lost sight of
}

// Networks makes network namespaces for build steps.
type Networks interface {
	// New makes one connected to the network of that name or id, "" for the
	// default bridge; "container:NAME" is a container's own.
	New(ctx context.Context, id, hostname, network string) (Network, error)
	// HostResolvConf is the resolv.conf of steps that share the host's network.
	HostResolvConf(ctx context.Context) ([]byte, error)
}

// Network is a live network namespace.
type Network interface {
	NetNS() *os.File
	ResolvConf() []byte
	Hosts() []byte
	io.Closer
}

// Default limits that no option names.
const (
	// stopGrace is how long a cancelled step may take to die of SIGKILL.
	stopGrace = 10 * time.Second
	// historyKeep and historyMax bound the records of finished builds.
	historyKeep = 7 * 24 * time.Hour
	historyMax  = 50
)
