package apiserver

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/storage"
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

// fake is an engine of goroutines: a container's "process" is a function of its
// command (echo, cat, exit, sleep, fail).
type fake struct {
	bus *events.Bus

	mu       sync.Mutex
	all      []*fakeContainer
	execs    map[string]*fakeExec
	volumes  map[string]*volume.Volume
	networks []network.Inspect
	tags     []string
	built    builds.Options
	context  []byte // of the last build or load
	pulled   images.PullOptions
	put      []byte
	prunedBy filter.Set
	lastAll  bool
}

type fakeContainer struct {
	id, name string
	opts     containers.CreateOptions
	state    container.ContainerState
	code     int
	in       *io.PipeReader
	inW      *io.PipeWriter
	out      *output
	exited   chan struct{}
	next     chan struct{} // closed at the next exit
	removed  chan struct{}
	kill     chan struct{}
	size     [2]uint
}

type fakeExec struct {
	id, container string
	req           *container.ExecCreateRequest
	code          *int
	size          [2]uint
}

// output is what a process printed; readers follow it.
type output struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  []byte // frames unless tty
	tty  bool
	done bool
}

func newOutput(tty bool) *output {
	o := &output{tty: tty}
	o.cond = sync.NewCond(&o.mu)
	return o
}

func (o *output) print(stream byte, p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.tty {
		head := [8]byte{stream}
		binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
		o.buf = append(o.buf, head[:]...)
	}
	o.buf = append(o.buf, p...)
	o.cond.Broadcast()
}

func (o *output) close() {
	o.mu.Lock()
	o.done = true
	o.cond.Broadcast()
	o.mu.Unlock()
}

// reader reads from the start, until the end if follow.
type reader struct {
	o      *output
	at     int
	follow bool
	closed bool
}

func (r *reader) Read(p []byte) (int, error) {
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	for r.at == len(r.o.buf) {
		if r.o.done || !r.follow || r.closed {
			return 0, io.EOF
		}
		r.o.cond.Wait()
	}
	n := copy(p, r.o.buf[r.at:])
	r.at += n
	return n, nil
}

func (r *reader) Close() error {
	r.o.mu.Lock()
	r.closed = true
	r.o.cond.Broadcast()
	r.o.mu.Unlock()
	return nil
}

// session joins an output and an input.
type session struct {
	*reader
	in *io.PipeWriter
}

func (s *session) Write(p []byte) (int, error) {
	if s.in == nil {
		return len(p), nil
	}
	return s.in.Write(p)
}

func (s *session) CloseWrite() error {
	if s.in != nil {
		_ = s.in.Close()
	}
	return nil
}
func (s *session) TTY() bool { return s.o.tty }

func newFake() *fake {
	return &fake{
		bus:      events.New(),
		execs:    map[string]*fakeExec{},
		volumes:  map[string]*volume.Volume{},
		tags:     []string{"busybox:latest"},
		networks: []network.Inspect{{Network: network.Network{ID: ids.New(), Name: "bridge", Driver: "bridge", Scope: "local", EnableIPv4: true}}},
	}
}

func (f *fake) backends() Backends {
	return Backends{Containers: fakeContainers{f}, Images: fakeImages{f}, Networks: fakeNetworks{f}, Volumes: fakeVolumes{f}, Builds: fakeBuilds{f}, System: fakeSystem{f}}
}

type fakeContainers struct{ *fake }

func (f *fake) find(id string) (*fakeContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		if c.name == strings.TrimPrefix(id, "/") || strings.HasPrefix(c.id, id) {
			return c, nil
		}
	}
	return nil, errs.Newf(errs.NotFound, "No such container: %s", id)
}

func (f fakeContainers) Create(_ context.Context, o containers.CreateOptions) (container.CreateResponse, error) {
	if !slices.Contains(f.tags, strings.TrimSuffix(o.Request.Image, ":latest")+":latest") {
		return container.CreateResponse{}, errs.Newf(errs.NotFound, "No such image: %s", o.Request.Image)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		if c.name == o.Name && o.Name != "" {
			return container.CreateResponse{}, errs.Newf(errs.Conflict, "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+o.Name, c.id)
		}
	}
	if o.Request.HostConfig.LogConfig.Type == "" { // docker-py reads the logs of no other
		o.Request.HostConfig.LogConfig.Type = "json-file"
	}
	c := &fakeContainer{id: ids.New(), name: o.Name, opts: o, state: container.StateCreated,
		exited: make(chan struct{}), next: make(chan struct{}), removed: make(chan struct{}), kill: make(chan struct{})}
	if c.name == "" {
		c.name = "fake_" + c.id[:4]
	}
	c.in, c.inW = io.Pipe()
	c.out = newOutput(o.Request.Tty)
	f.all = append(f.all, c)
	f.bus.Publish(apievents.ContainerEventType, apievents.ActionCreate, c.id, map[string]string{"name": c.name, "image": o.Request.Image})
	return container.CreateResponse{ID: c.id}, nil
}

func (f fakeContainers) Start(_ context.Context, id string) error {
	c, err := f.find(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.state == container.StateRunning {
		return errs.New(errs.Unchanged, "container already started")
	}
	c.state = container.StateRunning
	go f.process(c)
	f.bus.Publish(apievents.ContainerEventType, apievents.ActionStart, c.id, map[string]string{"name": c.name, "image": c.opts.Request.Image})
	return nil
}

func (f fakeContainers) process(c *fakeContainer) {
	code := run(append(c.opts.Request.Entrypoint, c.opts.Request.Cmd...), c.in, c.out, c.kill)
	c.out.close()
	_ = c.in.Close()
	f.mu.Lock()
	c.state, c.code = container.StateExited, code
	f.mu.Unlock()
	close(c.exited)
	f.bus.Publish(apievents.ContainerEventType, apievents.ActionDie, c.id, map[string]string{"name": c.name, "exitCode": strconv.Itoa(code)})
	if c.opts.Request.HostConfig.AutoRemove {
		_ = f.Remove(context.Background(), c.id, containers.RemoveOptions{})
	}
}

// run is every program there is.
func run(cmd []string, in io.Reader, out *output, kill <-chan struct{}) int {
	if len(cmd) == 0 {
		cmd = []string{"sleep"}
	}
	switch cmd[0] {
	case "echo":
		out.print(1, []byte(strings.Join(cmd[1:], " ")+"\n"))
	case "warn":
		out.print(2, []byte(strings.Join(cmd[1:], " ")+"\n"))
	case "cat":
		b := make([]byte, 4096)
		for {
			n, err := in.Read(b)
			if n > 0 {
				out.print(1, b[:n])
			}
			if err != nil {
				return 0
			}
		}
	case "exit":
		n, _ := strconv.Atoi(cmd[1])
		return n
	case "sleep":
		<-kill
		return 137
	}
	return 0
}

func (f fakeContainers) Stop(ctx context.Context, id string, _ containers.StopOptions) error {
	return f.Kill(ctx, id, "TERM")
}

func (f fakeContainers) Kill(_ context.Context, id, _ string) error {
	c, err := f.find(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	running := c.state == container.StateRunning
	f.mu.Unlock()
	if !running {
		return errs.Newf(errs.Conflict, "container %s is not running", id)
	}
	close(c.kill)
	<-c.exited
	return nil
}

func (f fakeContainers) Restart(context.Context, string, containers.StopOptions) error { return nil }
func (f fakeContainers) Pause(context.Context, string) error                           { return nil }
func (f fakeContainers) Unpause(context.Context, string) error                         { return nil }

func (f fakeContainers) Rename(_ context.Context, id, name string) error {
	c, err := f.find(id)
	if err == nil {
		c.name = name
	}
	return err
}

func (f fakeContainers) Remove(_ context.Context, id string, o containers.RemoveOptions) error {
	c, err := f.find(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.state == container.StateRunning && !o.Force {
		return errs.Newf(errs.Conflict, "cannot remove container %q: container is running: stop the container before removing or force remove", "/"+c.name)
	}
	f.all = slices.DeleteFunc(f.all, func(o *fakeContainer) bool { return o == c })
	close(c.removed)
	return nil
}

func (f fakeContainers) Wait(ctx context.Context, id string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	c, err := f.find(id)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	created := c.state == container.StateCreated
	f.mu.Unlock()
	ch := make(chan container.WaitResponse, 1)
	if created && cond == container.WaitConditionNotRunning {
		ch <- container.WaitResponse{}
		return ch, nil
	}
	go func() {
		done := c.exited
		if cond == container.WaitConditionRemoved {
			done = c.removed
		}
		select {
		case <-done:
			ch <- container.WaitResponse{StatusCode: int64(c.code)}
		case <-ctx.Done():
		}
	}()
	return ch, nil
}

func (f fakeContainers) Update(context.Context, string, container.UpdateConfig) (container.UpdateResponse, error) {
	return container.UpdateResponse{}, nil
}

func (f fakeContainers) Inspect(_ context.Context, id string, _ bool) (*container.InspectResponse, error) {
	c, err := f.find(id)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &container.InspectResponse{
		ID: c.id, Name: "/" + c.name, Created: time.Unix(1, 0).UTC().Format(time.RFC3339Nano), Image: "sha256:" + strings.Repeat("a", 64),
		State:  &container.State{Status: c.state, Running: c.state == container.StateRunning, ExitCode: c.code},
		Config: c.opts.Request.Config, HostConfig: c.opts.Request.HostConfig, Args: []string{}, Driver: "overlayfs", Platform: "linux",
		Storage: &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: "overlayfs"}}},
		Mounts:  []container.MountPoint{{Type: mount.TypeVolume, Name: "v", Destination: "/v", RW: true}},
		NetworkSettings: &container.NetworkSettings{Ports: network.PortMap{}, Networks: map[string]*network.EndpointSettings{
			"bridge": {IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16, Gateway: netip.MustParseAddr("172.17.0.1")},
			"mine":   {Aliases: []string{"alias"}},
		}},
	}, nil
}

func (f fakeContainers) List(_ context.Context, o containers.ListOptions) ([]container.Summary, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastAll = o.All
	var out []container.Summary
	for _, c := range f.all {
		if c.state != container.StateRunning && !o.All || !o.Filters.Fuzzy("name", c.name) {
			continue
		}
		out = append(out, container.Summary{ID: c.id, Names: []string{"/" + c.name}, Image: c.opts.Request.Image, State: c.state, Status: "Up", Command: "x",
			Labels: c.opts.Request.Labels, Health: &container.HealthSummary{Status: container.Healthy}})
	}
	return out, nil
}

func (f fakeContainers) Prune(_ context.Context, fs filter.Set) (container.PruneReport, error) {
	f.prunedBy = fs
	return container.PruneReport{ContainersDeleted: []string{"x"}, SpaceReclaimed: 7}, nil
}

func (f fakeContainers) Commit(_ context.Context, o containers.CommitOptions) (string, error) {
	if _, err := f.find(o.Container); err != nil {
		return "", err
	}
	return "sha256:" + strings.Repeat("c", 64), nil
}

func (f fakeContainers) Logs(ctx context.Context, id string, o containers.LogsOptions) (*containers.Logs, error) {
	c, err := f.find(id)
	if err != nil {
		return nil, err
	}
	r := &reader{o: c.out, follow: o.Follow}
	context.AfterFunc(ctx, func() { _ = r.Close() })
	return &containers.Logs{TTY: c.out.tty, WriterTo: copier{r}, Closer: r}, nil
}

type copier struct{ io.Reader }

func (c copier) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, c.Reader) }

func (f fakeContainers) Attach(_ context.Context, id string, o containers.AttachOptions) (containers.Session, error) {
	c, err := f.find(id)
	if err != nil {
		return nil, err
	}
	s := &session{reader: &reader{o: c.out, follow: true}}
	if o.Stdin {
		s.in = c.inW
	}
	return s, nil
}

func (f fakeContainers) Resize(_ context.Context, id string, h, w uint) error {
	c, err := f.find(id)
	if err == nil {
		c.size = [2]uint{h, w}
	}
	return err
}

func (f fakeContainers) Top(_ context.Context, _ string, args []string) (container.TopResponse, error) {
	return container.TopResponse{Titles: []string{"PID", "ARGS"}, Processes: [][]string{{"1", strings.Join(args, " ")}}}, nil
}

func (f fakeContainers) Stats(ctx context.Context, id string, stream, _ bool, each func(*container.StatsResponse) error) error {
	c, err := f.find(id)
	if err != nil {
		return err
	}
	for i := uint64(1); ; i++ {
		if err := each(&container.StatsResponse{ID: c.id, Name: "/" + c.name, OSType: "linux", PidsStats: container.PidsStats{Current: i}, MemoryStats: container.MemoryStats{Usage: 1 << 20, Limit: 1 << 30}}); err != nil || !stream {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (f fakeContainers) Changes(context.Context, string) ([]container.FilesystemChange, error) {
	return nil, nil
}

func (f fakeContainers) Export(_ context.Context, id string, w io.Writer) error {
	if _, err := f.find(id); err != nil {
		return err
	}
	_, err := w.Write(archive("etc/hostname", "fake"))
	if err == nil && strings.HasPrefix(id, "broken") {
		err = errs.New(errs.Internal, "disk on fire")
	}
	return err
}

func archive(name, text string) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	_ = tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg})
	_, _ = io.WriteString(tw, text)
	_ = tw.Close()
	return b.Bytes()
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
	return &container.ExecInspectResponse{ID: e.id, ContainerID: e.container, ExitCode: e.code, Running: e.code == nil,
		ProcessConfig: &container.ExecProcessConfig{Tty: e.req.Tty, Entrypoint: e.req.Cmd[0], Arguments: e.req.Cmd[1:]}}, nil
}

func (f fakeContainers) ExecResize(_ context.Context, id string, h, w uint) error {
	e, err := f.exec(id)
	if err == nil {
		e.size = [2]uint{h, w}
	}
	return err
}

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
	return &image.InspectResponse{ID: "sha256:" + strings.Repeat("a", 64), RepoTags: []string{ref}, Os: "linux", Architecture: "amd64", Size: 4096,
		Config: &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Env: []string{"A=b"}}}, RootFS: image.RootFS{Type: "layers"}}, nil
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

func (f fakeImages) Import(_ context.Context, r io.Reader, _ images.ImportOptions, _ progress.Sink) (string, error) {
	_, err := io.Copy(io.Discard, r)
	return "sha256:" + strings.Repeat("d", 64), err
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
	return &system.Info{ID: "fake", Name: "host", Driver: "overlay2", ServerVersion: "0.0", OSType: "linux", RegistryConfig: &registry.ServiceConfig{},
		ContainerdCommit: system.Commit{ID: "abc"}, FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		Runtimes: map[string]system.RuntimeWithStatus{"skiff": {Status: map[string]string{"a": "b"}}}}, nil
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
