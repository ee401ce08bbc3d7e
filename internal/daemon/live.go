package daemon

import (
	"maps"
	"slices"

	"github.com/moby/moby/api/types/container"
	apisystem "github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/network"
	"github.com/skiff-containers/skiff/internal/remote"
)

// What the rooms are told of the configuration when they are made, and again at
// every reload.

func (c *Config) registries() remote.Settings {
	return remote.Settings{InsecureRegistries: c.InsecureRegistries, Mirrors: c.Mirrors, Attempts: c.MaxAttempts}
}

func (c *Config) transferLimits() images.Limits {
	return images.Limits{Downloads: c.MaxDownloads, Uploads: c.MaxUploads}
}

// live puts what can change into l, which has the rest.
func (c *Config) live(l containers.Live) containers.Live {
	l.Runtimes, l.StopTimeout, l.Spec.ShmSize = c.externals(), &c.StopTimeout, c.ShmSize
	h := &l.Spec.Host
	h.Runtimes, h.DefaultRuntime = slices.Sorted(maps.Keys(l.Runtimes)), c.defaultRuntime()
	h.DefaultIPC, h.DefaultCgroupns = container.IpcMode(c.IpcMode), container.CgroupnsMode(c.CgroupnsMode)
	return l
}

// addressPools are what subnets are cut from, for info.
func (c *Config) addressPools() []apisystem.NetworkAddressPool {
	pools, err := c.pools()
	if err != nil || len(pools) == 0 { // a wrong one has kept the daemon from starting
		pools = network.DefaultPools()
	}
	out := make([]apisystem.NetworkAddressPool, 0, len(pools))
	for _, p := range pools {
		out = append(out, apisystem.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	return out
}

// cacheLimits are the builder's; a share is one of the data root's disk.
func (c *Config) cacheLimits() (build.CacheLimits, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(c.DataRoot, &st); err != nil {
		return build.CacheLimits{}, err
	}
	return c.Builder.limits(int64(st.Blocks) * st.Bsize)
}
