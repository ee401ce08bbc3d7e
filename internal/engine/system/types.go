// Package system tells of the engine itself: info, version, disk usage, and the
// event stream's read side.
package system

import (
	"context"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// DiskUsageOptions says which objects GET /system/df counts; none set is all.
type DiskUsageOptions struct {
	Containers, Images, Volumes, BuildCache, Verbose bool
}

// EventReader reads events in order: [io.EOF] after the last.
type EventReader interface {
	Next(ctx context.Context) (apievents.Message, error)
}

// Config is what the daemon knows of itself and tells in /info and /version.
type Config struct {
	ID              string // of this installation; stays the same
	Root            string // the data directory
	Version, Commit string
	BuildTime       string // RFC 3339
	Debug           bool
	Labels          []string
	Warnings        []string // of the configuration, beside those of the host

	Driver         string // layer store
	DriverStatus   [][2]string
	LoggingDriver  string // the default one
	LogDrivers     []string
	VolumeDrivers  []string
	NetworkDrivers []string
	AddressPools   []system.NetworkAddressPool
	Firewall       *system.FirewallInfo

	CgroupDriver    string // "" is cgroupfs
	SeccompProfile  string // "" is builtin; or "unconfined", or a path
	NoNewPrivileges bool
	UserNS          bool // containers are in user namespaces
	Experimental    bool
	LiveRestore     bool
	Runtimes        map[string]system.Runtime
	DefaultRuntime  string
	InitBinary      string

	InsecureRegistries []string // hosts, host:port or address ranges
	Mirrors            []string
	HTTPProxy          string
	HTTPSProxy         string
	NoProxy            string

	Components []system.ComponentVersion // further ones: BuildKit, the shim, …
}

// Devices lists what vendors describe in files (CDI).
type Devices interface {
	Dirs() []string
	List() []string
}

// Containers counts containers.
type Containers interface {
	States(ctx context.Context) (running, paused, stopped int, err error)
	// DiskUsage; see [ContainerUsage].
	DiskUsage(ctx context.Context, verbose bool) (*container.DiskUsage, error)
}

// Images counts images.
type Images interface {
	Count(ctx context.Context) (int, error)
	// DiskUsage; see [ImageUsage].
	DiskUsage(ctx context.Context, verbose bool) (*image.DiskUsage, error)
}

// Volumes counts volumes.
type Volumes interface {
	// DiskUsage; see [VolumeUsage].
	DiskUsage(ctx context.Context, verbose bool) (*volume.DiskUsage, error)
}

// BuildCache lists what the builder keeps.
type BuildCache interface {
	DiskUsage(ctx context.Context) ([]*build.CacheRecord, error)
}
