package containers

import (
	"context"
	"io"
	"os"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/logs"
	sknet "github.com/skiff-containers/skiff/internal/network"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// Networks makes network namespaces: network.Manager.
type Networks interface {
	NewSandbox(ctx context.Context, s sknet.SandboxSpec) (Sandbox, error)
	// AdoptSandbox takes over the namespace of a process that outlived the daemon.
	// The process is the one that started at those clock ticks.
	AdoptSandbox(ctx context.Context, s sknet.SandboxState, pid int, ticks uint64) (Sandbox, error)
	// Lookup finds a network by id, name or unique prefix of an id.
	Lookup(nameOrID string) (sknet.NetworkInfo, error)
}

// Sandbox is network.Sandbox.
type Sandbox interface {
	NetNS() *os.File // nil for the host's
	State() sknet.SandboxState
	Endpoints() map[string]*network.EndpointSettings // operational, by network name
	Interfaces() []string                            // those of the endpoints, by their names inside
	Ports() network.PortMap
	ResolvConf() []byte
	Hosts() []byte
	OnFilesChanged(f func())
	Connect(ctx context.Context, e sknet.EndpointSpec) error
	Disconnect(ctx context.Context, networkID string) error
	SetName(name string)
	SetLinks(links []sknet.Link)
	Close(ctx context.Context) error
}

// Image is an image resolved for a container.
type Image struct {
	ID       string              // of the configuration
	Manifest *ocispec.Descriptor // its manifest, if known
	Platform ocispec.Platform
	Config   dockerspec.DockerOCIImageConfig
	ChainID  string // names its topmost layer
	// Handle is the image store's own, passed back to it. It is nil for an image
	// that was removed by force from under its container: then there are only ID
	// and ChainID to find the layers by.
	Handle any
}

// Images is the image store behind an adapter. Who has an image it learns from
// [Service.UsersOfImage]: a start or create writes nothing to keep an image. An
// image that is removed in spite of its containers is pinned for them by the
// store; Unpin lets it go.
type Images interface {
	// Resolve finds an image by name, id or prefix; NotFound if there is none.
	Resolve(ctx context.Context, ref string, p *ocispec.Platform) (*Image, error)
	// Confirm waits for a removal that is under way, and tells whether the image
	// is still there that ref led to; NotFound if not.
	Confirm(ctx context.Context, ref string, p *ocispec.Platform, imageID string) error
	// Lowers lists the directories of its layers, topmost first.
	Lowers(ctx context.Context, img *Image) ([]string, error)
	// Unpin ends what a removal by force pinned for a container; nothing is no
	// error.
	Unpin(ctx context.Context, imageID, containerID string) error
	// Size is what its layers take, in bytes.
	Size(ctx context.Context, img *Image) (int64, error)
	// Descendants returns the ids of the image and of all made from it.
	Descendants(ctx context.Context, ref string) ([]string, error)
	// ShortName says how "IMAGE" of a list shows it: the name it was created by
	// for as long as that still names the same image, else the image's id.
	ShortName(ref, imageID string) string
	Commit(ctx context.Context, c Commit) (imageID string, err error)
}

// Commit asks for an image made of a container's writable layer.
type Commit struct {
	Parent      *Image // nil for none
	Upper       string
	Config      dockerspec.DockerOCIImageConfig
	Author      string
	Comment     string
	CreatedBy   string
	Ref         string
	ContainerID string
}

// Volume is a volume in use.
type Volume struct {
	Name, Driver string
	Path         string // the directory that containers see, while it is mounted
	Anonymous    bool
}

// MountedVolume is what there is to know of a volume that is mounted.
type MountedVolume struct {
	Fleeting bool // what is copied there is lost when it is unmounted
	Foreign  bool // its owners are those of the host, as of a bind's
}

// Volumes is engine/volumes behind an adapter.
type Volumes interface {
	// Acquire finds or makes a volume and keeps it for the container; without a
	// name it makes an anonymous one.
	Acquire(ctx context.Context, name, driver string, opts, labels map[string]string, containerID string) (Volume, error)
	Release(ctx context.Context, name, containerID string) error
	// Mount makes its files be there for a user, a container or a request, until
	// Unmount: a volume may be a file system of its own (NFS, tmpfs).
	Mount(ctx context.Context, name, user string) (MountedVolume, error)
	// Hold is Mount for a container that runs since before this daemon.
	Hold(name, user string)
	Unmount(ctx context.Context, name, user string) error
	// Keep lets an anonymous volume outlive the container it was made for; one
	// whose container is gone without that is removed at boot.
	Keep(ctx context.Context, name string) error
	Remove(ctx context.Context, name string) error
}

// LogStore is package logs.
type LogStore interface {
	// Parse checks a log driver's options, and says where the log goes.
	Parse(c container.LogConfig, dir string, rec *Record) (runtime.Log, error)
	Open(ctx context.Context, l runtime.Log, o logs.ReadOptions) (logs.Reader, error)
	// Forward sends a log on to where its driver says, from where that was left,
	// until ctx ends; nil for a driver that keeps logs on this host. With start, a
	// remote that does not answer is an error where it is one for docker; else it
	// is tried again and again.
	Forward(ctx context.Context, rec *Record, start bool) (LogForwarder, error)
}

// LogForwarder sends a container's log on: remote.Forwarder.
type LogForwarder interface {
	Finish()               // the container has ended: what is left is sent
	Done() <-chan struct{} // closed after that
	Stop()                 // at once; the place is kept
}

// Root is a container's file system, as its processes see it.
type Root interface {
	Stat(ctx context.Context, path string) (*container.PathStat, error)
	// Tar archives path as docker cp wants it: under its own last name.
	Tar(ctx context.Context, path string, w io.Writer) error
	Untar(ctx context.Context, path string, r io.Reader, o UntarOptions) error
	Export(ctx context.Context, w io.Writer) error
	// CheckUser refuses a user or group that the root's own files do not know.
	CheckUser(user string) error
	Close() error
}

// UntarOptions are those of an upload into a container.
type UntarOptions struct {
	NoOverwriteDirNonDir bool
	User                 *runtime.User // owner of what is made; nil: as in the archive
}

// RootMount is a directory seen at a place of a stopped container's root.
type RootMount struct {
	Source, Destination string
	Subpath             string // of Source: no link in it leads out
	ReadOnly            bool
}

// Layers is package layer.
type Layers interface {
	OpenPID(ctx context.Context, pid int) (Root, error)
	// OpenMount opens the process's root file system alone; EINVAL if the kernel
	// does not part it from what is mounted in it.
	OpenMount(ctx context.Context, pid int) (Root, error)
	OpenRoot(ctx context.Context, rootfs runtime.Rootfs, mounts []RootMount) (Root, error)
	Changes(ctx context.Context, lowers []string, upper string) ([]container.FilesystemChange, error)
	// CopyUp fills dir, or a place in it, with what the root has at path, if it is
	// an empty directory; owners become what owners says, if anything.
	CopyUp(ctx context.Context, rootfs runtime.Rootfs, path, dir, sub string, owners *userns.Map) error
	DiskUsage(ctx context.Context, dir string) (int64, error)
	// Stubs returns the directory, in base, of the layer that lies over those of an
	// image; one call at a time.
	Stubs(base string, lowers []string) (string, error)
}

// Events is events.Bus.
type Events interface {
	Publish(t apievents.Type, a apievents.Action, id string, attrs map[string]string)
}

// Cgroups reads what a control group has used, and lets one and those above it
// have microseconds of real time; see [NewCgroups].
type Cgroups interface {
	GiveRealtime(parent string, period, runtime int64) error
	Stats(path string) (*cgroup.Stats, error)
	// WatchOOM calls tell, from any goroutine, when processes of the group were
	// killed because its memory was used up: at once if they were before, unless
	// that is known.
	WatchOOM(path string, known bool, tell func()) (stop func(), err error)
}

// Records is *meta.Table[Record].
type Records interface {
	Put(key string, r Record) error
	Delete(key string) error
	All() ([]Record, error)
}
