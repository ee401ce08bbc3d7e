package apiserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/engine/builds"
	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/engine/events"
	"github.com/skiff-containers/skiff/internal/engine/images"
	enginesystem "github.com/skiff-containers/skiff/internal/engine/system"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

type fakeImages struct{ *fake }

func (f fakeImages) Pull(_ context.Context, o images.PullOptions, p progress.Sink) error {
	f.pulled = o
	if strings.Contains(o.Ref, "missing") {
		return errs.Newf(errs.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login'", o.Ref)
	}
	p.Emit(progress.Event{Status: "Pulling from library/busybox", ID: "latest"})
	for i := range int64(10) {
		p.Emit(progress.Event{Status: "Downloading", ID: "aaaabbbbcccc", Current: i * 100, Total: 1000})
	}
	if strings.Contains(o.Ref, "broken") {
		return errs.New(errs.Internal, "the registry went away")
	}
	p.Emit(progress.Event{Status: "Pull complete", ID: "aaaabbbbcccc"})
	p.Emit(progress.Event{Status: "Status: Downloaded newer image for " + o.Ref})
	f.mu.Lock()
	f.tags = append(f.tags, o.Ref)
	f.mu.Unlock()
	return nil
}

func (f fakeImages) Push(_ context.Context, o images.PushOptions, p progress.Sink) error {
	p.Emit(progress.Event{Status: "The push refers to repository [docker.io/library/" + o.Ref + "]"})
	p.Emit(progress.Event{Aux: map[string]any{"Tag": "latest", "Digest": "sha256:x", "Size": 1}})
	return nil
}

func (f fakeImages) Tag(_ context.Context, source, target string) error {
	if source == "missing" {
		return errs.Newf(errs.NotFound, "No such image: %s", source)
	}
	f.mu.Lock()
	f.tags = append(f.tags, target)
	f.mu.Unlock()
	return nil
}

func (f fakeImages) Remove(_ context.Context, ref string, _ images.RemoveOptions) ([]image.DeleteResponse, error) {
	return []image.DeleteResponse{{Untagged: ref}}, nil
}

func (f fakeImages) List(context.Context, images.ListOptions) ([]image.Summary, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []image.Summary{
		{ID: "sha256:" + strings.Repeat("a", 64), RepoTags: slices.Clone(f.tags), Size: 4096, Created: 1, Containers: 2, SharedSize: -1, Descriptor: &ocispec.Descriptor{}},
		{ID: "sha256:" + strings.Repeat("b", 64), Size: 1, SharedSize: -1},
	}, nil
}

func (f fakeImages) Inspect(_ context.Context, ref string, _ *ocispec.Platform, _ bool) (*image.InspectResponse, error) {
	if ref == "missing" {
		return nil, errs.Newf(errs.NotFound, "No such image: %s", ref)
	}
	return &image.InspectResponse{
		ID: "sha256:" + strings.Repeat("a", 64), RepoTags: []string{ref}, Os: "linux", Architecture: "amd64", Size: 4096,
		Config: &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Env: []string{"A=b"}}}, RootFS: image.RootFS{Type: "layers"},
	}, nil
}

func (f fakeImages) History(context.Context, string, *ocispec.Platform) ([]image.HistoryResponseItem, error) {
	return []image.HistoryResponseItem{{ID: "sha256:a", CreatedBy: "me"}}, nil
}

func (f fakeImages) Load(_ context.Context, r io.Reader, _ []ocispec.Platform, p progress.Sink) (err error) {
	f.context, err = io.ReadAll(r)
	p.Emit(progress.Event{Status: "Loading layer", ID: "aaaabbbbcccc", Current: 1, Total: 2})
	p.Emit(progress.Event{Stream: "Loaded image: busybox:latest\n"})
	return err
}

func (f fakeImages) Save(_ context.Context, refs []string, _ []ocispec.Platform, w io.Writer) error {
	if refs[0] == "missing" {
		return errs.Newf(errs.NotFound, "No such image: %s", refs[0])
	}
	_, err := w.Write(archive("manifest.json", strings.Join(refs, ",")))
	return err
}

func (f fakeImages) Import(_ context.Context, r io.Reader, _ images.ImportOptions, p progress.Sink) (string, error) {
	_, err := io.Copy(io.Discard, r)
	id := "sha256:" + strings.Repeat("d", 64)
	p.Emit(progress.Event{Status: id})
	return id, err
}

func (f fakeImages) Prune(_ context.Context, fs filter.Set) (image.PruneReport, error) {
	f.prunedBy = fs
	return image.PruneReport{SpaceReclaimed: 5}, nil
}

func (f fakeImages) Search(_ context.Context, term string, _ int, _ filter.Set, _ *registry.AuthConfig) ([]registry.SearchResult, error) {
	return []registry.SearchResult{{Name: term}}, nil
}

func (f fakeImages) Distribution(context.Context, string, *registry.AuthConfig) (*registry.DistributionInspect, error) {
	return &registry.DistributionInspect{}, nil
}

func (f fakeImages) Login(_ context.Context, a *registry.AuthConfig) (registry.AuthResponse, error) {
	if a.Password != "right" {
		return registry.AuthResponse{}, errs.New(errs.Unauthorized, "unauthorized: incorrect username or password")
	}
	return registry.AuthResponse{Status: "Login Succeeded"}, nil
}

type fakeNetworks struct{ *fake }

func (f fakeNetworks) Create(_ context.Context, r *network.CreateRequest) (network.CreateResponse, error) {
	n := network.Inspect{Network: network.Network{ID: ids.New(), Name: r.Name, Driver: "bridge", Scope: "local"}}
	f.mu.Lock()
	f.networks = append(f.networks, n)
	f.mu.Unlock()
	return network.CreateResponse{ID: n.ID}, nil
}

func (f fakeNetworks) List(context.Context, filter.Set) ([]network.Inspect, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.networks), nil
}

func (f fakeNetworks) Inspect(_ context.Context, id string) (*network.Inspect, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.networks {
		if n.Name == id || strings.HasPrefix(n.ID, id) {
			return &n, nil
		}
	}
	return nil, errs.Newf(errs.NotFound, "network %s not found", id)
}

func (f fakeNetworks) Remove(ctx context.Context, id string) error {
	n, err := f.Inspect(ctx, id)
	if err == nil {
		f.mu.Lock()
		f.networks = slices.DeleteFunc(f.networks, func(o network.Inspect) bool { return o.ID == n.ID })
		f.mu.Unlock()
	}
	return err
}
func (f fakeNetworks) Connect(context.Context, string, *network.ConnectRequest) error { return nil }
func (f fakeNetworks) Disconnect(context.Context, string, *network.DisconnectRequest) error {
	return nil
}

func (f fakeNetworks) Prune(context.Context, filter.Set) (network.PruneReport, error) {
	return network.PruneReport{NetworksDeleted: []string{"x"}}, nil
}

type fakeVolumes struct{ *fake }

func (f fakeVolumes) Create(_ context.Context, r *volume.CreateRequest) (*volume.Volume, error) {
	v := &volume.Volume{Name: r.Name, Driver: "local", Scope: "local", Mountpoint: "/v/" + r.Name}
	if v.Name == "" {
		v.Name = ids.New()
	}
	f.mu.Lock()
	f.volumes[v.Name] = v
	f.mu.Unlock()
	return v, nil
}

func (f fakeVolumes) List(context.Context, filter.Set) (*volume.ListResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out volume.ListResponse
	for _, v := range f.volumes {
		out.Volumes = append(out.Volumes, *v)
	}
	return &out, nil
}

func (f fakeVolumes) Inspect(_ context.Context, name string) (*volume.Volume, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := f.volumes[name]; v != nil {
		return v, nil
	}
	return nil, errs.Newf(errs.NotFound, "get %s: no such volume", name)
}

func (f fakeVolumes) Remove(ctx context.Context, name string, force bool) error {
	if _, err := f.Inspect(ctx, name); err != nil {
		if force {
			return nil
		}
		return err
	}
	f.mu.Lock()
	delete(f.volumes, name)
	f.mu.Unlock()
	return nil
}

func (f fakeVolumes) Prune(_ context.Context, fs filter.Set) (volume.PruneReport, error) {
	f.prunedBy = fs
	return volume.PruneReport{}, nil
}

type fakeBuilds struct{ *fake }

type stepError struct{ code int }

func (e *stepError) Error() string { return fmt.Sprintf("step returned a non-zero code: %d", e.code) }
func (e *stepError) ExitCode() int { return e.code }

func (f fakeBuilds) Build(_ context.Context, o builds.Options, r io.Reader, p progress.Sink) (string, error) {
	f.built = o
	p.Emit(progress.Event{Stream: "Step 1/1 : FROM busybox\n"}) // before the context was read
	var err error
	if f.context, err = io.ReadAll(r); err != nil {
		return "", err
	}
	if o.Target == "broken" {
		return "", &stepError{42}
	}
	p.Emit(progress.Event{Aux: build.Result{ID: "sha256:" + strings.Repeat("e", 64)}})
	p.Emit(progress.Event{Stream: "Successfully built eeeeeeeeeeee\n"})
	return "sha256:" + strings.Repeat("e", 64), nil
}
func (f fakeBuilds) Cancel(context.Context, string) error { return nil }
func (f fakeBuilds) Prune(context.Context, builds.PruneOptions) (*build.CachePruneReport, error) {
	return &build.CachePruneReport{SpaceReclaimed: 3}, nil
}
func (f fakeBuilds) DiskUsage(context.Context) ([]*build.CacheRecord, error) { return nil, nil }

// ServeGRPC echoes: enough to see both directions.
func (f fakeBuilds) ServeGRPC(_ context.Context, c io.ReadWriteCloser, _ http.Header) error {
	_, err := io.Copy(c, c)
	return err
}

func (f fakeBuilds) ServeSession(ctx context.Context, c io.ReadWriteCloser, h http.Header) error {
	return f.ServeGRPC(ctx, c, h)
}

func (f fakeBuilds) GRPCHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, r.Proto)
		w.Header().Set("Grpc-Status", "0")
	})
}

type fakeSystem struct{ *fake }

func (f fakeSystem) Info(context.Context) (*system.Info, error) {
	return &system.Info{
		ID: "fake", Name: "host", Driver: "overlay2", ServerVersion: "0.0", OSType: "linux", RegistryConfig: &registry.ServiceConfig{},
		ContainerdCommit: system.Commit{ID: "abc"}, FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		Runtimes: map[string]system.RuntimeWithStatus{"skiff": {Status: map[string]string{"a": "b"}}},
	}, nil
}

func (f fakeSystem) Version(context.Context) (*system.VersionResponse, error) {
	return &system.VersionResponse{Version: "0.0", Os: "linux", Arch: "amd64", Components: []system.ComponentVersion{{Name: "Engine", Version: "0.0"}}}, nil
}

func (f fakeSystem) DiskUsage(ctx context.Context, o enginesystem.DiskUsageOptions) (*system.DiskUsage, error) {
	u := &system.DiskUsage{}
	all := !o.Containers && !o.Images && !o.Volumes && !o.BuildCache
	if o.Images || all {
		is, _ := fakeImages(f).List(ctx, images.ListOptions{})
		u.ImageUsage = &image.DiskUsage{TotalSize: 4097, TotalCount: 2, Items: is}
	}
	if o.Containers || all {
		u.ContainerUsage = &container.DiskUsage{}
	}
	if o.Volumes || all {
		u.VolumeUsage = &volume.DiskUsage{}
	}
	if o.BuildCache || all {
		u.BuildCacheUsage = &build.DiskUsage{}
	}
	return u, nil
}

func (f fakeSystem) Events(_ context.Context, since, until time.Time, fs filter.Set) (EventReader, error) {
	return f.bus.Subscribe(events.Query{Since: since, Until: until, Filters: fs})
}

func (f fakeContainers) StatPath(_ context.Context, id, path string) (*containers.PathStat, error) {
	if _, err := f.find(id); err != nil {
		return nil, err
	}
	if strings.Contains(path, "missing") {
		return nil, errs.Newf(errs.NotFound, "Could not find the file %s in container %s", path, id)
	}
	st := &containers.PathStat{Name: "hostname", Size: 4, Mode: 0o644, Mtime: time.Unix(1, 0)}
	if strings.HasSuffix(path, "/") || path == "/tmp" {
		st.Name, st.Mode = "tmp", os.ModeDir|0o755
	}
	return st, nil
}

func (f fakeContainers) GetArchive(ctx context.Context, id, path string) (io.ReadCloser, *containers.PathStat, error) {
	st, err := f.StatPath(ctx, id, path)
	if err != nil {
		return nil, nil, err
	}
	return io.NopCloser(bytes.NewReader(archive("hostname", "fake"))), st, nil
}

func (f fakeContainers) PutArchive(_ context.Context, id, _ string, _ containers.PutArchiveOptions, r io.Reader) (err error) {
	if _, err = f.find(id); err == nil {
		f.put, err = io.ReadAll(r)
	}
	return err
}

func (f fakeContainers) ExecCreate(_ context.Context, id string, r *container.ExecCreateRequest) (string, error) {
	c, err := f.find(id)
	if err != nil {
		return "", err
	}
	e := &fakeExec{id: ids.New(), container: c.id, req: r}
	f.mu.Lock()
	f.execs[e.id] = e
	f.mu.Unlock()
	f.bus.Publish(apievents.ContainerEventType, events.WithDetail(apievents.ActionExecCreate, strings.Join(r.Cmd, " ")), c.id, map[string]string{"execID": e.id})
	return e.id, nil
}

func (f *fake) exec(id string) (*fakeExec, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.execs[id]; e != nil {
		return e, nil
	}
	return nil, errs.Newf(errs.NotFound, "No such exec instance: %s", id)
}

func (f fakeContainers) ExecStart(_ context.Context, id string, _ containers.ExecStartOptions) error {
	_, err := f.exec(id)
	return err
}

func (f fakeContainers) ExecAttach(_ context.Context, id string, o containers.ExecStartOptions) (containers.Session, error) {
	e, err := f.exec(id)
	if err != nil {
		return nil, err
	}
	code := 0
	if e.req.Cmd[0] == "nosuch" {
		code = 127
		e.code = &code
		return nil, errs.New(errs.Invalid, `exec failed: "nosuch": executable file not found in $PATH`)
	}
	if o.ConsoleSize != nil {
		e.size = *o.ConsoleSize
	}
	out := newOutput(e.req.Tty)
	r, w := io.Pipe()
	go func() {
		code := run(e.req.Cmd, r, out, nil)
		f.mu.Lock()
		e.code = &code
		f.mu.Unlock()
		_ = r.Close()
		out.close()
	}()
	s := &session{reader: &reader{o: out, follow: true}}
	if e.req.AttachStdin {
		s.in = w
	}
	return s, nil
}

func (f fakeContainers) ExecInspect(_ context.Context, id string) (*container.ExecInspectResponse, error) {
	e, err := f.exec(id)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &container.ExecInspectResponse{
		ID: e.id, ContainerID: e.container, ExitCode: e.code, Running: e.code == nil,
		ProcessConfig: &container.ExecProcessConfig{Tty: e.req.Tty, Entrypoint: e.req.Cmd[0], Arguments: e.req.Cmd[1:]},
	}, nil
}

func (f fakeContainers) ExecResize(_ context.Context, id string, h, w uint) error {
	e, err := f.exec(id)
	if err == nil {
		e.size = [2]uint{h, w}
	}
	return err
}
