package apiserver

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/engine/builds"
	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/engine/images"
	enginesystem "github.com/skiff-containers/skiff/internal/engine/system"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// Backends is what the API asks: one interface a noun. Every id argument may
// be a name, an id or a unique prefix of one.
type Backends struct {
	Containers Containers
	Images     Images
	Networks   Networks
	Volumes    Volumes
	Builds     Builds
	System     System
}

// Containers is implemented by engine/containers.
type Containers interface {
	Create(ctx context.Context, o containers.CreateOptions) (container.CreateResponse, error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string, o containers.StopOptions) error
	Restart(ctx context.Context, id string, o containers.StopOptions) error
	Kill(ctx context.Context, id, signal string) error
	Pause(ctx context.Context, id string) error
	Unpause(ctx context.Context, id string) error
	Rename(ctx context.Context, id, name string) error
	Remove(ctx context.Context, id string, o containers.RemoveOptions) error
	// Wait returns at once; the channel then gets one answer when the condition holds.
	Wait(ctx context.Context, id string, c container.WaitCondition) (<-chan container.WaitResponse, error)
	Update(ctx context.Context, id string, u container.UpdateConfig) (container.UpdateResponse, error)
	Inspect(ctx context.Context, id string, size bool) (*container.InspectResponse, error)
	List(ctx context.Context, o containers.ListOptions) ([]container.Summary, error)
	Prune(ctx context.Context, f filter.Set) (container.PruneReport, error)
	Commit(ctx context.Context, o containers.CommitOptions) (imageID string, err error)
	ContainerStreams
	ContainerFiles
	Checkpoints
	Execs
}

// ContainerStreams are the verbs that move bytes for as long as a client stays.
type ContainerStreams interface {
	Logs(ctx context.Context, id string, o containers.LogsOptions) (*containers.Logs, error)
	Attach(ctx context.Context, id string, o containers.AttachOptions) (containers.Session, error)
	Resize(ctx context.Context, id string, height, width uint) error
	Top(ctx context.Context, id string, psArgs []string) (container.TopResponse, error)
	// Stats calls each with a sample: once (oneShot: without the second sample
	// that CPU percentages need), or every second until ctx ends.
	Stats(ctx context.Context, id string, stream, oneShot bool, each func(*container.StatsResponse) error) error
}

// Checkpoints are containers saved to disk.
type Checkpoints interface {
	Checkpoint(ctx context.Context, id string, o containers.CheckpointOptions) error
	Checkpoints(ctx context.Context, id, dir string) (names []string, err error)
	RemoveCheckpoint(ctx context.Context, id, dir, name string) error
	StartFrom(ctx context.Context, id, dir, name string) error
}

// ContainerFiles reach into a container's file system, running or not.
type ContainerFiles interface {
	Changes(ctx context.Context, id string) ([]container.FilesystemChange, error)
	Export(ctx context.Context, id string, w io.Writer) error
	StatPath(ctx context.Context, id, path string) (*containers.PathStat, error)
	GetArchive(ctx context.Context, id, path string) (io.ReadCloser, *containers.PathStat, error)
	PutArchive(ctx context.Context, id, path string, o containers.PutArchiveOptions, r io.Reader) error
}

// Execs are further processes in a running container.
type Execs interface {
	ExecCreate(ctx context.Context, id string, r *container.ExecCreateRequest) (execID string, err error)
	// ExecStart starts it; with a nil session it runs detached.
	ExecStart(ctx context.Context, execID string, o containers.ExecStartOptions) error
	ExecAttach(ctx context.Context, execID string, o containers.ExecStartOptions) (containers.Session, error)
	ExecInspect(ctx context.Context, execID string) (*container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, execID string, height, width uint) error
}

// Images is implemented by engine/images.
type Images interface {
	Pull(ctx context.Context, o images.PullOptions, p progress.Sink) error
	Push(ctx context.Context, o images.PushOptions, p progress.Sink) error
	Tag(ctx context.Context, source, target string) error
	Remove(ctx context.Context, ref string, o images.RemoveOptions) ([]image.DeleteResponse, error)
	List(ctx context.Context, o images.ListOptions) ([]image.Summary, error)
	Inspect(ctx context.Context, ref string, p *ocispec.Platform, manifests bool) (*image.InspectResponse, error)
	History(ctx context.Context, ref string, p *ocispec.Platform) ([]image.HistoryResponseItem, error)
	Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, p progress.Sink) error
	Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error
	Import(ctx context.Context, r io.Reader, o images.ImportOptions, p progress.Sink) (id string, err error)
	Prune(ctx context.Context, f filter.Set) (image.PruneReport, error)
	Search(ctx context.Context, term string, limit int, f filter.Set, a *registry.AuthConfig) ([]registry.SearchResult, error)
	Distribution(ctx context.Context, ref string, a *registry.AuthConfig) (*registry.DistributionInspect, error)
	Login(ctx context.Context, a *registry.AuthConfig) (registry.AuthResponse, error)
}

// Networks is implemented by engine/networks.
type Networks interface {
	Create(ctx context.Context, r *network.CreateRequest) (network.CreateResponse, error)
	List(ctx context.Context, f filter.Set) ([]network.Inspect, error)
	Inspect(ctx context.Context, id string) (*network.Inspect, error)
	Remove(ctx context.Context, id string) error
	Connect(ctx context.Context, id string, r *network.ConnectRequest) error
	Disconnect(ctx context.Context, id string, r *network.DisconnectRequest) error
	Prune(ctx context.Context, f filter.Set) (network.PruneReport, error)
}

// Volumes is implemented by engine/volumes.
type Volumes interface {
	Create(ctx context.Context, r *volume.CreateRequest) (*volume.Volume, error)
	List(ctx context.Context, f filter.Set) (*volume.ListResponse, error)
	Inspect(ctx context.Context, name string) (*volume.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, f filter.Set) (volume.PruneReport, error)
}

// Builds is implemented by engine/builds.
type Builds interface {
	// Build serves POST /build version 1: context is the tar in the body.
	Build(ctx context.Context, o builds.Options, context io.Reader, p progress.Sink) (imageID string, err error)
	Cancel(ctx context.Context, buildID string) error
	Prune(ctx context.Context, o builds.PruneOptions) (*build.CachePruneReport, error)
	DiskUsage(ctx context.Context) ([]*build.CacheRecord, error)
	// ServeGRPC answers BuildKit's gRPC API on a connection hijacked from
	// POST /grpc, ServeSession a client's session from POST /session; both
	// return when it ends. Header is the request's.
	ServeGRPC(ctx context.Context, conn io.ReadWriteCloser, header http.Header) error
	ServeSession(ctx context.Context, conn io.ReadWriteCloser, header http.Header) error
	// GRPCHandler serves the same API over native h2c.
	GRPCHandler() http.Handler
}

// System is implemented by engine/system.
type System interface {
	Info(ctx context.Context) (*system.Info, error)
	Version(ctx context.Context) (*system.VersionResponse, error)
	DiskUsage(ctx context.Context, o enginesystem.DiskUsageOptions) (*system.DiskUsage, error)
	// Events subscribes: every event after Events returned is read, and those
	// before back to since, until `until` has passed (zero: for ever).
	Events(ctx context.Context, since, until time.Time, f filter.Set) (EventReader, error)
}

// EventReader reads events in order: [io.EOF] after the last.
type EventReader = enginesystem.EventReader
