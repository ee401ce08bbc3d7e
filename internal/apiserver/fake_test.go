package apiserver

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	"github.com/moby/moby/api/types/volume"

	"github.com/skiff-containers/skiff/internal/engine/builds"
	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/engine/events"
	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/kit/ids"
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

	checkpoints []string

	in      *io.PipeReader
	inW     *io.PipeWriter
	out     *output
	exited  chan struct{}
	next    chan struct{} // closed at the next exit
	removed chan struct{}
	kill    chan struct{}
	size    [2]uint
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
	if o.Request.HostConfig.LogConfig.Type == "" {
		o.Request.HostConfig.LogConfig.Type = "local"
	}
	c := &fakeContainer{
		id: ids.New(), name: o.Name, opts: o, state: container.StateCreated,
		exited: make(chan struct{}), next: make(chan struct{}), removed: make(chan struct{}), kill: make(chan struct{}),
	}
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

func (f fakeContainers) Pause(context.Context, string) error { return nil }

func (f fakeContainers) Unpause(context.Context, string) error { return nil }

func (f fakeContainers) Checkpoint(_ context.Context, id string, o containers.CheckpointOptions) error {
	c, err := f.find(id)
	if err == nil {
		c.checkpoints = append(c.checkpoints, o.ID)
	}
	return err
}

func (f fakeContainers) Checkpoints(_ context.Context, id, _ string) ([]string, error) {
	c, err := f.find(id)
	if err != nil {
		return nil, err
	}
	return c.checkpoints, nil
}

func (f fakeContainers) RemoveCheckpoint(_ context.Context, id, _, name string) error {
	c, err := f.find(id)
	if err == nil {
		c.checkpoints = slices.DeleteFunc(c.checkpoints, func(n string) bool { return n == name })
	}
	return err
}

func (f fakeContainers) StartFrom(ctx context.Context, id, _, _ string) error {
	return f.Start(ctx, id)
}

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
		out = append(out, container.Summary{
			ID: c.id, Names: []string{"/" + c.name}, Image: c.opts.Request.Image, State: c.state, Status: "Up", Command: "x",
			Labels: c.opts.Request.Labels, Health: &container.HealthSummary{Status: container.Healthy},
		})
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
