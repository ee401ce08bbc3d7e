package containers

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs"
	sknet "github.com/skiff-containers/skiff/internal/network"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// world is a service over fakes, and the fakes.
type world struct {
	*Service
	t        *testing.T
	dir      string
	rt       *fakeRuntime
	nets     *fakeNetworks
	images   *fakeImages
	volumes  *fakeVolumes
	layers   *fakeLayers
	bus      *fakeBus
	recs     *fakeRecords
	shm      *fakeShm
	quotas   *fakeQuotas
	groups   *fakeCgroups
	logs     LogStore
	failures *failures
}

// failures makes named steps fail.
type failures struct {
	mu   sync.Mutex
	next map[string]error
}

func (f *failures) set(step string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next[step] = err
}

func (f *failures) at(step string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next[step]
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), failures: &failures{next: map[string]error{}}}
	w.rt = &fakeRuntime{f: w.failures, ctrs: map[string]*fakeProc{}, execs: map[string]*fakeProc{}, pid: 100, deleted: map[string]int{}}
	w.nets = &fakeNetworks{f: w.failures, open: map[string]*fakeSandbox{}}
	w.images = &fakeImages{f: w.failures, pins: map[string]int{}}
	w.volumes = &fakeVolumes{f: w.failures, dir: filepath.Join(w.dir, "volumes"), held: map[string][]string{}, made: map[string]bool{}, mounted: map[string][]string{}}
	w.layers = &fakeLayers{f: w.failures}
	w.bus = &fakeBus{}
	w.shm = &fakeShm{f: w.failures, mounted: map[string]bool{}}
	w.quotas = &fakeQuotas{f: w.failures, limits: map[string]uint64{}}
	w.groups = &fakeCgroups{}
	w.recs = &fakeRecords{f: w.failures, rows: map[string]Record{}}
	w.logs = fakeLogs{}
	w.boot()
	t.Cleanup(w.down)
	return w
}

func (w *world) down() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		w.t.Error(err)
	}
}

// boot starts a service on what is there.
func (w *world) boot() {
	w.t.Helper()
	s, err := New(Options{
		DataRoot: filepath.Join(w.dir, "data"), ExecRoot: filepath.Join(w.dir, "run"),
		Runtime: w.rt, Networks: w.nets, Images: w.images, Volumes: w.volumes, Logs: w.logs, Layers: w.layers,
		Events: w.bus, Cgroups: w.groups, Records: w.recs, Pool: -1, Shm: w.shm, Quotas: w.quotas,
		Live: Live{Spec: SpecDefaults{Host: spec.HostFacts{
			CgroupV2: true, CgroupNS: true, Seccomp: true, Cgroups: spec.AllCgroups(), CPUs: 2, RecursiveRO: true,
			Capabilities: spec.DefaultCapabilities(), HardLimits: map[string]uint64{},
			Sysctl:  func(string) bool { return true },
			Devices: func() ([]specs.LinuxDevice, error) { return nil, nil },
			Device:  func(string) ([]specs.LinuxDevice, error) { return nil, nil },
		}}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service = s
	if err := s.Restore(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

type option func(*CreateOptions)

func withRm(o *CreateOptions) { o.Request.HostConfig.AutoRemove = true }

func withHost(f func(*container.HostConfig)) option {
	return func(o *CreateOptions) { f(o.Request.HostConfig) }
}

func withNetwork(mode container.NetworkMode) option {
	return withHost(func(h *container.HostConfig) { h.NetworkMode = mode })
}

func withConfig(f func(*container.Config)) option {
	return func(o *CreateOptions) { f(o.Request.Config) }
}

func withPolicy(name container.RestartPolicyMode, n int) option {
	return withHost(func(h *container.HostConfig) {
		h.RestartPolicy = container.RestartPolicy{Name: name, MaximumRetryCount: n}
	})
}

func request(name string, opts ...option) CreateOptions {
	o := CreateOptions{Name: name, Request: &container.CreateRequest{
		Config: &container.Config{Image: "busybox", Cmd: []string{"sleep", "1"}}, HostConfig: &container.HostConfig{},
	}}
	for _, f := range opts {
		f(&o)
	}
	return o
}

func (w *world) create(name string, opts ...option) string {
	w.t.Helper()
	r, err := w.Create(context.Background(), request(name, opts...))
	if err != nil {
		w.t.Fatalf("create %s: %v", name, err)
	}
	return r.ID
}

func (w *world) start(id string) {
	w.t.Helper()
	if err := w.Start(context.Background(), id); err != nil {
		w.t.Fatalf("start: %v", err)
	}
}

func (w *world) run(name string, opts ...option) string {
	w.t.Helper()
	id := w.create(name, opts...)
	w.start(id)
	return id
}

func (w *world) waitFor(id string, c container.WaitCondition) <-chan container.WaitResponse {
	w.t.Helper()
	ch, err := w.Wait(context.Background(), id, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return ch
}

func recv[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

// until waits for a condition that comes about in the background.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	w.t.Fatalf("never: %s", what)
}

func (w *world) phase(id string) Phase {
	c := w.index.exact(id)
	if c == nil {
		return ""
	}
	return c.status().Phase
}

// nothingLeft checks that no trace of any container remains.
func (w *world) nothingLeft() {
	w.t.Helper()
	w.until("the trash is empty", func() bool { e, _ := os.ReadDir(filepath.Join(w.dataRoot, trashName)); return len(e) == 0 })
	for _, dir := range []string{w.dataRoot, w.runRoot} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.Name() != trashName && e.Name() != stubsName {
				w.t.Errorf("left: %s", filepath.Join(dir, e.Name()))
			}
		}
	}
	w.until("no sandbox is open", func() bool { return w.nets.count() == 0 })
	w.until("the runtime knows nothing", func() bool { return w.rt.count() == 0 })
	if n := w.images.pinned(); n != 0 {
		w.t.Errorf("left: %d image pins", n)
	}
	if n := w.shm.count(); n != 0 {
		w.t.Errorf("left: %d mounts of shared memory", n)
	}
	if h := w.volumes.holders(); h != 0 {
		w.t.Errorf("left: %d volume references", h)
	}
	if m := w.volumes.mounts(); m != "" {
		w.t.Errorf("left mounted: %s", m)
	}
	if n := len(w.recs.keys()); n != 0 {
		w.t.Errorf("left: %d records", n)
	}
	if n := len(w.index.all()); n != 0 {
		w.t.Errorf("left: %d containers", n)
	}
	w.index.mu.RLock()
	defer w.index.mu.RUnlock()
	if len(w.index.byName) != 0 || len(w.index.ids) != 0 || len(w.index.coming) != 0 {
		w.t.Errorf("left: names %v", w.index.byName)
	}
}

// ---- runtime

type fakeProc struct {
	id, exec   string
	pid        int
	started    time.Time
	exit       *runtime.Exit
	ignoreTerm bool
}

type fakeRuntime struct {
	f  *failures
	mu sync.Mutex
	// onStart and onExec may end a process at once, or refuse it.
	onStart  func(l *runtime.Launch, p *fakeProc) error
	onExec   func(e *runtime.Exec, p *fakeProc) error
	onKill   func(id string)
	oom      string // whose end says so
	ticks    uint64 // when all processes started
	ctrs     map[string]*fakeProc
	execs    map[string]*fakeProc
	attached map[string][]*fakeStream
	pid      int
	deleted  map[string]int
	events   chan runtime.Exit
	launches []*runtime.Launch
	updates  []*specs.LinuxResources
}

var _ runtime.Runtime = (*fakeRuntime)(nil)

func (r *fakeRuntime) count() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.ctrs) }

func (r *fakeRuntime) Start(_ context.Context, l *runtime.Launch) (runtime.Started, error) {
	if err := r.f.at("runtime.Start"); err != nil {
		return runtime.Started{}, err
	}
	r.mu.Lock()
	if r.ctrs[l.ID] != nil {
		r.mu.Unlock()
		return runtime.Started{}, errs.Newf(errs.Conflict, "the shim has a container %s already", l.ID)
	}
	r.pid++
	p := &fakeProc{id: l.ID, pid: r.pid, started: time.Now()}
	r.ctrs[l.ID] = p
	r.launches = append(r.launches, l)
	hook := r.onStart
	r.mu.Unlock()
	if hook != nil {
		if err := hook(l, p); err != nil {
			r.mu.Lock()
			delete(r.ctrs, l.ID)
			r.mu.Unlock()
			return runtime.Started{}, err
		}
	}
	return runtime.Started{PID: p.pid, StartTicks: r.ticks, At: p.started}, nil
}

// end ends a container's process.
func (r *fakeRuntime) end(id string, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(r.ctrs[id], code)
}

// endOOM ends a container whose memory was used up.
func (r *fakeRuntime) endOOM(id string, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.oom = id
	r.endLocked(r.ctrs[id], code)
}

func (r *fakeRuntime) endLocked(p *fakeProc, code int) {
	if p == nil || p.exit != nil {
		return
	}
	p.exit = &runtime.Exit{ID: p.id, ExecID: p.exec, PID: p.pid, Code: code, Unknown: code == 255, OOM: r.oom == p.id, At: time.Now()}
	for _, s := range r.attached[p.id+"/"+p.exec] {
		_ = s.pw.Close()
	}
	if r.events != nil {
		r.events <- *p.exit
	}
}

func (r *fakeRuntime) Exec(_ context.Context, e *runtime.Exec) (runtime.Started, error) {
	if err := r.f.at("runtime.Exec"); err != nil {
		return runtime.Started{}, err
	}
	r.mu.Lock()
	r.pid++
	p := &fakeProc{id: e.ContainerID, exec: e.ExecID, pid: r.pid, started: time.Now()}
	r.execs[e.ExecID] = p
	hook := r.onExec
	r.mu.Unlock()
	if hook != nil {
		if err := hook(e, p); err != nil {
			return runtime.Started{}, err
		}
	}
	return runtime.Started{PID: p.pid, At: p.started}, nil
}

func (r *fakeRuntime) endExec(id string, code int, output string) {
	r.mu.Lock()
	p := r.execs[id]
	streams := r.attached[p.id+"/"+id]
	r.mu.Unlock()
	for _, s := range streams {
		if output != "" {
			_, _ = s.pw.Write(frame(1, output))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(p, code)
}

func frame(stream byte, text string) []byte {
	h := []byte{stream, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(h[4:], uint32(len(text)))
	return append(h, text...)
}

type fakeStream struct {
	*io.PipeReader
	pw *io.PipeWriter
	mu sync.Mutex
	in bytes.Buffer
}

func (s *fakeStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.Write(p)
}

func (s *fakeStream) typed() string { s.mu.Lock(); defer s.mu.Unlock(); return s.in.String() }

func (s *fakeStream) CloseWrite() error { return nil }
func (s *fakeStream) Close() error      { return s.PipeReader.Close() }

func (r *fakeRuntime) Attach(_ context.Context, id, exec string, _ runtime.Attach, _ runtime.IO, _ runtime.Log) (runtime.Stream, error) {
	if err := r.f.at("runtime.Attach"); err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	s := &fakeStream{PipeReader: pr, pw: pw}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attached == nil {
		r.attached = map[string][]*fakeStream{}
	}
	r.attached[id+"/"+exec] = append(r.attached[id+"/"+exec], s)
	return s, nil
}

func (r *fakeRuntime) stream(id, exec string) *fakeStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.attached[id+"/"+exec]
	return l[len(l)-1]
}

func (r *fakeRuntime) Kill(_ context.Context, id, exec string, sig int, _ bool) error {
	if err := r.f.at("runtime.Kill"); err != nil {
		return err
	}
	if r.onKill != nil {
		r.onKill(id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.ctrs[id]
	if exec != "" {
		p = r.execs[exec]
	}
	if p == nil {
		return errs.New(errs.NotFound, "no such process")
	}
	if p.exit != nil {
		return errs.New(errs.Conflict, "the process has ended")
	}
	if syscall.Signal(sig) == syscall.SIGKILL || syscall.Signal(sig) == syscall.SIGTERM && !p.ignoreTerm {
		r.endLocked(p, 128+sig)
	}
	return nil
}

func (r *fakeRuntime) Resize(context.Context, string, string, uint, uint) error { return nil }
func (r *fakeRuntime) Checkpoint(_ context.Context, id string, to runtime.Checkpoint) error {
	if err := r.f.at("runtime.Checkpoint"); err != nil {
		return err
	}
	if !to.LeaveRunning {
		r.end(id, 137)
	}
	return nil
}

func (r *fakeRuntime) Pause(context.Context, string) error { return r.f.at("runtime.Pause") }

func (r *fakeRuntime) Resume(context.Context, string) error { return r.f.at("runtime.Resume") }

func (r *fakeRuntime) Update(_ context.Context, _ string, res *specs.LinuxResources) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.updates = append(r.updates, res)
	return r.f.at("runtime.Update")
}

func (r *fakeRuntime) PIDs(_ context.Context, id string) ([]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return []int{r.ctrs[id].pid}, nil
}

func (r *fakeRuntime) List(context.Context) ([]runtime.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []runtime.State
	for _, p := range r.ctrs {
		out = append(out, runtime.State{ID: p.id, PID: p.pid, StartedAt: p.started, Exit: p.exit})
	}
	return out, nil
}

func (r *fakeRuntime) Events(ctx context.Context) (<-chan runtime.Exit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan runtime.Exit, 100000)
	for _, p := range r.ctrs {
		if p.exit != nil {
			ch <- *p.exit
		}
	}
	r.events = ch
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.events == ch {
			r.events = nil
		}
		close(ch)
	})
	return ch, nil
}

func (r *fakeRuntime) Delete(_ context.Context, id string) error {
	if err := r.f.at("runtime.Delete"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ctrs, id)
	r.deleted[id]++
	return nil
}

// ---- networks

type fakeNetworks struct {
	f       *failures
	mu      sync.Mutex
	open    map[string]*fakeSandbox
	made    []sknet.SandboxSpec
	adopted []string
}

func (n *fakeNetworks) count() int { n.mu.Lock(); defer n.mu.Unlock(); return len(n.open) }

func (n *fakeNetworks) NewSandbox(_ context.Context, s sknet.SandboxSpec) (Sandbox, error) {
	if err := n.f.at("NewSandbox"); err != nil {
		return nil, err
	}
	return n.add(s), nil
}

func (n *fakeNetworks) add(s sknet.SandboxSpec) *fakeSandbox {
	sb := &fakeSandbox{n: n, spec: s, eps: map[string]*network.EndpointSettings{}}
	for i, e := range s.Endpoints {
		c := e.Settings.Copy()
		c.NetworkID, c.EndpointID = e.Network, "ep-"+e.Network
		c.IPAddress, c.IPPrefixLen = netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + i)}), 16
		sb.eps[strings.TrimPrefix(e.Network, "id-")] = c
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.made = append(n.made, s)
	n.open[s.ID] = sb
	return sb
}

func (n *fakeNetworks) AdoptSandbox(_ context.Context, s sknet.SandboxState, _ int, _ uint64) (Sandbox, error) {
	n.mu.Lock()
	n.adopted = append(n.adopted, s.Spec.ID)
	n.mu.Unlock()
	return n.add(s.Spec), nil
}

func (n *fakeNetworks) Lookup(name string) (sknet.NetworkInfo, error) {
	name = strings.TrimPrefix(name, "id-")
	if name == "missing" {
		return sknet.NetworkInfo{}, errs.Newf(errs.NotFound, "network %s not found", name)
	}
	return sknet.NetworkInfo{ID: "id-" + name, Name: name, Driver: "bridge"}, nil
}

type fakeSandbox struct {
	n    *fakeNetworks
	spec sknet.SandboxSpec
	mu   sync.Mutex
	eps  map[string]*network.EndpointSettings
}

func (s *fakeSandbox) NetNS() *os.File { return nil }
func (s *fakeSandbox) State() sknet.SandboxState {
	return sknet.SandboxState{Spec: s.spec}
}

func (s *fakeSandbox) Endpoints() map[string]*network.EndpointSettings {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]*network.EndpointSettings{}
	for k, v := range s.eps {
		out[k] = v.Copy()
	}
	return out
}

func (s *fakeSandbox) Interfaces() (out []string) {
	for range s.Endpoints() {
		out = append(out, fmt.Sprint("eth", len(out)))
	}
	return out
}

func (s *fakeSandbox) Ports() network.PortMap {
	out := network.PortMap{}
	for _, p := range s.spec.Ports {
		out[p.Container] = append(out[p.Container], network.PortBinding{HostIP: netip.IPv4Unspecified(), HostPort: fmt.Sprint(cmp.Or(p.HostPort, 32768))})
	}
	return out
}
func (s *fakeSandbox) ResolvConf() []byte      { return []byte("nameserver 10.0.0.1\n") }
func (s *fakeSandbox) Hosts() []byte           { return []byte("127.0.0.1 localhost\n") }
func (s *fakeSandbox) OnFilesChanged(f func()) {}
func (s *fakeSandbox) Connect(_ context.Context, e sknet.EndpointSpec) error {
	if err := s.n.f.at("Connect"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := e.Settings.Copy()
	c.NetworkID = e.Network
	s.eps[strings.TrimPrefix(e.Network, "id-")] = c
	return nil
}

func (s *fakeSandbox) Disconnect(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.eps, strings.TrimPrefix(id, "id-"))
	return nil
}
func (s *fakeSandbox) SetName(name string) {}
func (s *fakeSandbox) SetLinks(l []sknet.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spec.Links = l
}

func (s *fakeSandbox) Close(context.Context) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.n.open[s.spec.ID] == s {
		delete(s.n.open, s.spec.ID)
	}
	return nil
}

// ---- images

type fakeImages struct {
	f        *failures
	mu       sync.Mutex
	pins     map[string]int
	onCommit func(Commit)
	onUnpin  func(id string) // is called before a pin goes
	config   dockerspec.DockerOCIImageConfig
	last     Commit
	confirm  func(id string) error
}

func (i *fakeImages) Resolve(_ context.Context, ref string, _ *ocispec.Platform) (*Image, error) {
	if err := i.f.at("Resolve"); err != nil {
		return nil, err
	}
	if ref == "missing" || i.f.at("Resolve "+ref) != nil {
		return nil, errs.Newf(errs.NotFound, "No such image: %s", ref)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return &Image{ID: "sha256:" + strings.TrimPrefix(ref, "sha256:"), ChainID: "sha256:chain", Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Config: i.config}, nil
}

func (i *fakeImages) Confirm(_ context.Context, _ string, _ *ocispec.Platform, id string) error {
	if i.confirm != nil {
		return i.confirm(id)
	}
	return i.f.at("Confirm")
}

func (i *fakeImages) Lowers(context.Context, *Image) ([]string, error) {
	return []string{"/lower"}, i.f.at("Lowers")
}

func (i *fakeImages) Unpin(_ context.Context, _, id string) error {
	if i.onUnpin != nil {
		i.onUnpin(id)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pins, id)
	return nil
}

func (i *fakeImages) pinned() int                                 { i.mu.Lock(); defer i.mu.Unlock(); return len(i.pins) }
func (i *fakeImages) Size(context.Context, *Image) (int64, error) { return 1000, nil }
func (i *fakeImages) Descendants(_ context.Context, ref string) ([]string, error) {
	return []string{"sha256:" + ref}, nil
}

func (i *fakeImages) ShortName(ref, id string) string {
	if "sha256:"+ref == id {
		return ref
	}
	return id
}

func (i *fakeImages) Commit(_ context.Context, c Commit) (string, error) {
	if i.onCommit != nil {
		i.onCommit(c)
	}
	i.last = c
	return "sha256:new", i.f.at("Commit")
}

// ---- volumes

type fakeVolumes struct {
	f       *failures
	dir     string
	mu      sync.Mutex
	n       int
	held    map[string][]string
	made    map[string]bool
	mounted map[string][]string // name → users
	memory  bool                // they are file systems in memory
	foreign bool                // they are the host's
}

// mounts lists which volumes are mounted, and for how many.
func (v *fakeVolumes) mounts() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for name, users := range v.mounted {
		if len(users) > 0 {
			out = append(out, fmt.Sprintf("%s×%d", name, len(users)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (v *fakeVolumes) Mount(_ context.Context, name, user string) (MountedVolume, error) {
	if err := v.f.at("Mount " + name); err != nil {
		return MountedVolume{}, err
	}
	v.Hold(name, user)
	v.mu.Lock()
	defer v.mu.Unlock()
	return MountedVolume{Fleeting: v.memory && len(v.mounted[name]) == 1, Foreign: v.foreign}, nil
}

func (v *fakeVolumes) Hold(name, user string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.mounted[name], user) {
		v.mounted[name] = append(v.mounted[name], user)
	}
}

func (v *fakeVolumes) Unmount(_ context.Context, name, user string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mounted[name] = slices.DeleteFunc(v.mounted[name], func(s string) bool { return s == user })
	return nil
}

func (v *fakeVolumes) holders() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.held {
		n += len(h)
	}
	return n
}

func (v *fakeVolumes) exists(name string) bool { v.mu.Lock(); defer v.mu.Unlock(); return v.made[name] }

func (v *fakeVolumes) Acquire(_ context.Context, name, driver string, _, _ map[string]string, id string) (Volume, error) {
	if err := v.f.at("Acquire"); err != nil {
		return Volume{}, err
	}
	if err := v.f.at("Acquire " + name); err != nil {
		return Volume{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	anonymous := name == ""
	if anonymous {
		v.n++
		name = fmt.Sprintf("anon%d", v.n)
	}
	path := filepath.Join(v.dir, name, "_data")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return Volume{}, err
	}
	v.made[name] = true
	if !slices.Contains(v.held[name], id) {
		v.held[name] = append(v.held[name], id)
	}
	return Volume{Name: name, Path: path, Driver: firstOf(driver, "local"), Anonymous: anonymous}, nil
}

func (v *fakeVolumes) Release(_ context.Context, name, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held[name] = slices.DeleteFunc(v.held[name], func(s string) bool { return s == id })
	return nil
}

func (v *fakeVolumes) Keep(context.Context, string) error { return v.f.at("Keep") }

func (v *fakeVolumes) Remove(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.held[name]) > 0 {
		return errs.New(errs.Conflict, "volume is in use")
	}
	delete(v.made, name)
	return nil
}

// ---- the rest

type fakeLogs struct{}

func (fakeLogs) Forward(context.Context, *Record, bool) (LogForwarder, error) { return nil, nil }

func (fakeLogs) Parse(c container.LogConfig, dir string, _ *Record) (runtime.Log, error) {
	if c.Type == "bad" {
		return runtime.Log{}, errs.New(errs.Invalid, `logger: no log driver named 'bad' is registered`)
	}
	return runtime.Log{Driver: c.Type, Path: filepath.Join(dir, "log")}, nil
}

func (fakeLogs) Open(_ context.Context, l runtime.Log, o logs.ReadOptions) (logs.Reader, error) {
	return &fakeReader{o}, nil
}

type fakeReader struct{ o logs.ReadOptions }

func (r *fakeReader) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, "logged\n")
	if r.o.Follow {
		<-r.o.Done
		_, err = io.WriteString(w, "ended\n")
	}
	return int64(n), err
}
func (r *fakeReader) Close() error { return nil }

type fakeLayers struct {
	f      *failures
	mu     sync.Mutex
	copied map[string]string // from, to
	opened []string
	owners *userns.Map // of the last copy
	welded bool        // no mount is to be had alone
	onOpen func()      // of a root
}

func (l *fakeLayers) OpenPID(_ context.Context, pid int) (Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, fmt.Sprint("pid ", pid))
	return fakeRoot{}, nil
}

func (l *fakeLayers) OpenMount(_ context.Context, pid int) (Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, fmt.Sprint("mount ", pid))
	if l.welded {
		return nil, fmt.Errorf("open_tree: %w", unix.EINVAL)
	}
	return fakeRoot{}, nil
}

func (l *fakeLayers) OpenRoot(_ context.Context, r runtime.Rootfs, m []RootMount) (Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, fmt.Sprint("root ", len(m)))
	if l.onOpen != nil {
		l.onOpen()
	}
	return fakeRoot{}, l.f.at("OpenRoot")
}

func (l *fakeLayers) Changes(context.Context, []string, string) ([]container.FilesystemChange, error) {
	return nil, nil
}

func (l *fakeLayers) CopyUp(_ context.Context, _ runtime.Rootfs, path, dir, sub string, owners *userns.Map) error {
	if err := l.f.at("CopyUp"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.copied == nil {
		l.copied = map[string]string{}
	}
	l.copied[path], l.owners = filepath.Join(dir, sub), owners
	return nil
}
func (l *fakeLayers) DiskUsage(context.Context, string) (int64, error) { return 10, nil }

func (l *fakeLayers) Stubs(base string, _ []string) (string, error) {
	if err := l.f.at("Stubs"); err != nil {
		return "", err
	}
	return filepath.Join(base, "stubs"), nil
}

type fakeRoot struct{}

func (fakeRoot) CheckUser(user string) error {
	if strings.Contains(user, "nosuch") {
		return errs.Newf(errs.Invalid, "unable to find user %s: no matching entries in passwd file", user)
	}
	return nil
}

func (fakeRoot) Stat(_ context.Context, p string) (*container.PathStat, error) {
	if strings.Contains(p, "missing") {
		return nil, os.ErrNotExist
	}
	st := &container.PathStat{Name: filepath.Base(p)}
	if strings.HasSuffix(p, "/") {
		st.Mode = os.ModeDir
	}
	return st, nil
}

func (fakeRoot) Tar(_ context.Context, _ string, w io.Writer) error {
	_, err := io.WriteString(w, "tar")
	return err
}

func (fakeRoot) Untar(_ context.Context, _ string, r io.Reader, _ UntarOptions) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func (fakeRoot) Export(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "tar")
	return err
}
func (fakeRoot) Close() error { return nil }

type fakeBus struct {
	mu  sync.Mutex
	log []apievents.Message
}

func (b *fakeBus) Publish(t apievents.Type, a apievents.Action, id string, attrs map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, apievents.Message{Type: t, Action: a, Actor: apievents.Actor{ID: id, Attributes: attrs}})
}

// of lists what happened to a container.
func (b *fakeBus) of(id string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.log {
		if m.Actor.ID == id {
			out = append(out, string(m.Action))
		}
	}
	return out
}

func (b *fakeBus) last(id string, a apievents.Action) map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range slices.Backward(b.log) {
		if m.Actor.ID == id && m.Action == a {
			return m.Actor.Attributes
		}
	}
	return nil
}

type fakeShm struct {
	f       *failures
	mu      sync.Mutex
	mounted map[string]bool
}

func (s *fakeShm) Mount(dir string, _ int64) error {
	if err := s.f.at("Shm"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounted[dir] = true
	return nil
}

func (s *fakeShm) Unmount(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mounted, dir)
	return nil
}

func (s *fakeShm) count() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.mounted) }

// fakeCgroups runs out of memory when a test calls what it is given to tell.
type fakeCgroups struct {
	mu   sync.Mutex
	oom  map[string]func()
	knew []bool
}

func (f *fakeCgroups) WatchOOM(path string, known bool, tell func()) (func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.oom == nil {
		f.oom = map[string]func(){}
	}
	f.oom[path], f.knew = tell, append(f.knew, known)
	return func() { f.mu.Lock(); defer f.mu.Unlock(); delete(f.oom, path) }, nil
}

// watched is what to call for a group, nil if nobody watches it.
func (f *fakeCgroups) watched(id string) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.oom["/skiff/"+id]
}

func (*fakeCgroups) GiveRealtime(string, int64, int64) error { return nil }

func (*fakeCgroups) Stats(string) (*cgroup.Stats, error) {
	return &cgroup.Stats{CPU: cgroup.CPUStats{Total: time.Second}}, nil
}

type fakeRecords struct {
	f    *failures
	mu   sync.Mutex
	rows map[string]Record
	bad  map[string]bool // ids of rows that cannot be read
	puts int
	// onPut is called before a row is written.
	onPut func(Record)
}

func (r *fakeRecords) keys() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.rows {
		out = append(out, k)
	}
	return out
}

func (r *fakeRecords) Put(k string, v Record) error {
	if err := r.f.at("Put"); err != nil {
		return err
	}
	r.mu.Lock()
	hook := r.onPut
	r.mu.Unlock()
	if hook != nil {
		hook(v)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows[k] = v
	r.puts++
	return nil
}

func (r *fakeRecords) Delete(k string) error {
	if err := r.f.at("Delete"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rows, k)
	return nil
}

func (r *fakeRecords) All() ([]Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Record
	var err error
	for k, v := range r.rows {
		if r.bad[k] {
			err = fmt.Errorf("row %s: %w", k, errBoom)
			continue
		}
		out = append(out, v)
	}
	return out, err
}

var errBoom = errors.New("boom")
