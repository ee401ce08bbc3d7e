package containers

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime/spec"
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
