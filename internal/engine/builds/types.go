// Package builds makes images from Dockerfiles.
package builds

import (
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Options are those of POST /build (version 1).
type Options struct {
	Tags                           []string
	Dockerfile                     string // path in the context; "" is Dockerfile
	Remote                         string // a git or http context instead of the body
	Target, Platform               string
	BuildArgs                      map[string]*string
	Labels                         map[string]string
	NoCache, Pull, Quiet           bool
	Remove, ForceRemove            bool // of intermediate containers: nothing here makes any
	Squash                         bool
	CacheFrom                      []string
	NetworkMode                    string
	ExtraHosts                     []string
	ShmSize                        int64
	Ulimits                        []*container.Ulimit
	CgroupParent                   string
	Memory, MemorySwap             int64
	CPUShares, CPUPeriod, CPUQuota int64
	CPUSetCPUs, CPUSetMems         string
	SessionID, BuildID             string
	Version                        string // "1", or "2" for BuildKit's own progress
	AuthConfigs                    map[string]registry.AuthConfig
	Outputs                        []map[string]string
}

// PruneOptions are those of POST /build/prune.
type PruneOptions struct {
	All                                       bool
	ReservedSpace, MaxUsedSpace, MinFreeSpace int64
	Filters                                   filter.Set
}
