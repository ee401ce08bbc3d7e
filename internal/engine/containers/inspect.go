package containers

import (
	"context"
	"maps"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// Inspect tells everything of a container.
func (s *Service) Inspect(ctx context.Context, id string, size bool) (*container.InspectResponse, error) {
	c, err := s.index.get(id)
	if err != nil {
		return nil, err
	}
	v := c.look()
	rec, st := &v.rec, &v.st
	out := &container.InspectResponse{
		ID: rec.ID, Name: "/" + rec.Name, Created: stamp(rec.Created), Path: rec.Path, Args: rec.Args,
		State: stateOf(&v), Image: rec.ImageID, RestartCount: st.Restarts,
		Driver: s.o.Storage, Platform: firstOf(rec.Platform.OS, "linux"),
		LogPath: logPath(rec), ExecIDs: v.execs, HostConfig: s.shownLinks(rec), Config: rec.Config,
		Mounts: mountPoints(rec), NetworkSettings: s.networkSettings(&v),
		ImageManifestDescriptor: rec.Manifest,
		AppArmorProfile:         spec.ApparmorProfile(rec.HostConfig, s.spec().Host),
		GraphDriver: &storage.DriverData{Name: s.o.Storage, Data: map[string]string{
			"UpperDir": filepath.Join(s.dataDir(rec.ID), upperName), "WorkDir": filepath.Join(s.dataDir(rec.ID), workName),
		}},
	}
	if !st.neverStarted() || st.Phase.active() {
		dir := s.filesDir(rec)
		out.HostsPath, out.HostnamePath = filepath.Join(dir, hostsName), filepath.Join(dir, hostnameName)
		out.ResolvConfPath = filepath.Join(dir, resolvName)
	}
	if m := rec.Manifest; m != nil && m.Platform == nil {
		d := *m
		d.Platform = &rec.Platform
		out.ImageManifestDescriptor = &d
	}
	if size {
		rw, root, err := s.sizes(ctx, c, rec)
		if err != nil {
			return nil, err
		}
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	return out, nil
}

func stateOf(v *view) *container.State {
	st := &v.st
	out := &container.State{
		Status: container.ContainerState(st.Phase), Running: st.Phase.active(), Paused: st.Phase == Paused,
		Restarting: st.Phase == Restarting, Dead: st.Phase == Dead, OOMKilled: st.OOM, Pid: st.PID,
		ExitCode: st.ExitCode, Error: st.Error, StartedAt: stamp(st.StartedAt), FinishedAt: stamp(st.FinishedAt),
		Health: v.health,
	}
	return out
}

// stamp writes a time as docker does; the zero one is "0001-01-01T00:00:00Z".
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func logPath(rec *Record) string {
	if rec.Log.Driver == logs.DriverJSONFile {
		return rec.Log.Path
	}
	return ""
}

// mountPoints is how docker tells of mounts.
func mountPoints(rec *Record) []container.MountPoint {
	out := make([]container.MountPoint, 0, len(rec.Mounts))
	for _, m := range rec.Mounts {
		if m.Hidden {
			continue
		}
		out = append(out, container.MountPoint{
			Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver,
			Mode: m.Mode, RW: !m.ReadOnly, Propagation: propagationOf(m),
		})
	}
	return out
}

func propagationOf(m Mount) mount.Propagation {
	if m.Type == mount.TypeBind || m.Type == mount.TypeImage {
		return m.Propagation
	}
	return ""
}

// networkSettings is what is so now: operational while it runs, else declared.
func (s *Service) networkSettings(v *view) *container.NetworkSettings {
	out := &container.NetworkSettings{Networks: endpoints(v), Ports: ports(v)}
	if v.st.Phase.live() && !v.rec.HostConfig.NetworkMode.IsContainer() {
		out.SandboxID = v.rec.ID
		out.SandboxKey = "/proc/" + itoa(v.st.PID) + "/ns/net"
	}
	return out
}

// endpoints are the container's attachments by network name.
func endpoints(v *view) map[string]*network.EndpointSettings {
	if v.st.Phase.live() && v.net.endpoints != nil {
		out := maps.Clone(v.net.endpoints)
		// host and none have no endpoint of their own; docker shows one.
		for name, e := range v.rec.Endpoints {
			if out[name] == nil && !container.NetworkMode(name).IsUserDefined() && len(v.net.endpoints) == 0 {
				out[name] = e
			}
		}
		return out
	}
	if v.rec.Endpoints == nil {
		return map[string]*network.EndpointSettings{}
	}
	return v.rec.Endpoints
}

// ports are the published ports, with those only exposed.
func ports(v *view) network.PortMap {
	out := network.PortMap{}
	if !v.st.Phase.live() {
		return out
	}
	if !v.rec.HostConfig.NetworkMode.IsContainer() && !v.rec.HostConfig.NetworkMode.IsHost() {
		for p := range v.rec.Config.ExposedPorts {
			out[p] = nil
		}
	}
	maps.Copy(out, v.net.ports)
	return out
}

// sizes are those of the writable layer, and of all the container sees.
func (s *Service) sizes(ctx context.Context, c *ctr, rec *Record) (rw, root int64, err error) {
	if rw, err = s.o.Layers.DiskUsage(ctx, filepath.Join(s.dataDir(rec.ID), upperName)); err != nil {
		return 0, 0, err
	}
	img, err := s.imageOf(ctx, c, rec)
	if err != nil || img == nil {
		return rw, rw, nil //nolint:nilerr // the image is gone: its layers are not
	}
	size, err := s.o.Images.Size(ctx, img)
	if err != nil {
		return 0, 0, err
	}
	return rw, rw + size, nil
}
