package apiserver

import (
	"net/http"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	enginesystem "github.com/skiff-containers/skiff/internal/engine/system"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func (s *Server) info(w http.ResponseWriter, r *request) error {
	i, err := s.System.Info(r.Context())
	if err != nil {
		return err
	}
	return ok(w, infoFor(r.v, *i))
}

// oldInfo is /info before 1.50, when nothing of it had been dropped.
type oldInfo struct {
	system.Info
	RegistryConfig    *oldRegistryConfig
	ContainerdCommit  oldCommit
	RuncCommit        oldCommit
	InitCommit        oldCommit
	BridgeNfIptables  bool
	BridgeNfIP6tables bool `json:"BridgeNfIp6tables"`
}

type oldRegistryConfig struct {
	*registry.ServiceConfig
	AllowNondistributableArtifactsCIDRs     []string
	AllowNondistributableArtifactsHostnames []string
}

type oldCommit struct {
	ID       string
	Expected string `json:",omitempty"`
}

// infoFor tells of the engine as version v does.
func infoFor(v apiVersion, i system.Info) any {
	if v.before(44) {
		i.CDISpecDirs = nil
		bare := make(map[string]system.RuntimeWithStatus, len(i.Runtimes))
		for name, rt := range i.Runtimes {
			bare[name] = system.RuntimeWithStatus{Runtime: rt.Runtime}
		}
		i.Runtimes = bare
	}
	if v.before(46) {
		i.Containerd = nil
	}
	if v.before(49) {
		i.FirewallBackend = nil
	}
	if v.before(53) {
		i.NRI = nil
	}
	if !v.before(50) {
		return &i
	}
	i.DiscoveredDevices = nil
	old := &oldInfo{
		Info:             i,
		ContainerdCommit: oldCommit{ID: i.ContainerdCommit.ID},
		RuncCommit:       oldCommit{ID: i.RuncCommit.ID},
		InitCommit:       oldCommit{ID: i.InitCommit.ID},
	}
	if i.RegistryConfig != nil {
		old.RegistryConfig = &oldRegistryConfig{ServiceConfig: i.RegistryConfig}
	}
	if v.before(49) {
		for _, c := range []*oldCommit{&old.ContainerdCommit, &old.RuncCommit, &old.InitCommit} {
			c.Expected = c.ID
		}
	}
	return old
}

// legacyUsage is /system/df as it was before 1.52.
type legacyUsage struct {
	LayersSize  int64
	Images      any                 `json:",omitempty"`
	Containers  summaries           `json:",omitzero"`
	Volumes     []volume.Volume     `json:",omitzero"`
	BuildCache  []build.CacheRecord `json:",omitzero"`
	BuilderSize int64               // was 0 long before it went
}

// bothUsages tells both ways, as docker does for programs that take whatever
// version is the newest; verbose is asked for only by those who know better.
type bothUsages struct {
	*legacyUsage
	*system.DiskUsage
}

func (s *Server) diskUsage(w http.ResponseWriter, r *request) error {
	var o enginesystem.DiskUsageOptions
	if !r.v.before(42) {
		for _, t := range r.all("type") {
			switch system.DiskUsageObject(t) {
			case system.ContainerObject:
				o.Containers = true
			case system.ImageObject:
				o.Images = true
			case system.VolumeObject:
				o.Volumes = true
			case system.BuildCacheObject:
				o.BuildCache = true
			default:
				return errs.Newf(errs.Invalid, "unknown object type: %s", t)
			}
		}
	}
	verbose := !r.v.before(52) && r.flag("verbose")
	o.Verbose = true // the legacy form has the objects in it
	u, err := s.System.DiskUsage(r.Context(), o)
	switch {
	case err != nil:
		return err
	case verbose:
		return ok(w, u)
	case r.v.before(52):
		return ok(w, legacyUsageOf(r.v, u))
	}
	return ok(w, bothUsages{legacyUsageOf(r.v, u), sumsOf(u)})
}

// sumsOf leaves the objects out: the legacy form has them.
func sumsOf(u *system.DiskUsage) *system.DiskUsage {
	out := *u
	if u.ImageUsage != nil {
		sums := *u.ImageUsage
		sums.Items, out.ImageUsage = nil, &sums
	}
	if u.ContainerUsage != nil {
		sums := *u.ContainerUsage
		sums.Items, out.ContainerUsage = nil, &sums
	}
	if u.VolumeUsage != nil {
		sums := *u.VolumeUsage
		sums.Items, out.VolumeUsage = nil, &sums
	}
	if u.BuildCacheUsage != nil {
		sums := *u.BuildCacheUsage
		sums.Items, out.BuildCacheUsage = nil, &sums
	}
	return &out
}

func legacyUsageOf(v apiVersion, u *system.DiskUsage) *legacyUsage {
	var l legacyUsage
	if u.ImageUsage != nil {
		l.LayersSize = u.ImageUsage.TotalSize
		l.Images = imagesFor(v, u.ImageUsage.Items, true)
	}
	if u.ContainerUsage != nil {
		l.Containers = oldSummaries(v, list(u.ContainerUsage.Items))
	}
	if u.VolumeUsage != nil {
		l.Volumes = list(u.VolumeUsage.Items)
	}
	if u.BuildCacheUsage != nil {
		l.BuildCache = list(u.BuildCacheUsage.Items)
	}
	return &l
}
