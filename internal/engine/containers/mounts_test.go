package containers

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func TestMountsOfAStart(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	donor := w.create("donor", withHost(func(h *container.HostConfig) { h.Binds = []string{"shared:/shared", dir + ":/host:ro"} }))
	if err := os.MkdirAll(filepath.Join(w.volumes.dir, "sub", "_data", "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	id := w.create("box", withConfig(func(c *container.Config) { c.Volumes = map[string]struct{}{"/shared": {}, "/fresh": {}} }),
		withHost(func(h *container.HostConfig) {
			h.VolumesFrom = []string{"donor:ro"}
			h.Binds = []string{filepath.Join(dir, "new") + ":/made", "mine:/mine:nocopy"}
			h.Tmpfs = map[string]string{"/tmp": "size=1m"}
			h.Mounts = []mount.Mount{{Type: "volume", Source: "sub", Target: "/sub", VolumeOptions: &mount.VolumeOptions{Subpath: "inner"}}}
		}))
	w.start(id)
	got := map[string]string{}
	var sub []string
	for _, m := range w.rt.launches[0].Spec.Mounts {
		got[m.Destination] = m.Source
		if m.Destination == "/sub" {
			sub = m.Options
		}
	}
	run := w.runDir(id)
	for dest, want := range map[string]string{
		"/shared": filepath.Join(w.volumes.dir, "shared/_data"), "/host": dir, "/made": filepath.Join(dir, "new"),
		"/mine": filepath.Join(w.volumes.dir, "mine/_data"), "/sub": filepath.Join(w.volumes.dir, "sub/_data"), "/tmp": "tmpfs", "/fresh": filepath.Join(w.volumes.dir, "anon1/_data"),
		"/etc/hosts": filepath.Join(run, "hosts"), "/etc/resolv.conf": filepath.Join(run, "resolv.conf"), "/etc/hostname": filepath.Join(run, "hostname"),
	} {
		if got[dest] != want {
			t.Errorf("%s from %q, want %q", dest, got[dest], want)
		}
	}
	if !slices.Contains(sub, "x-skiff.subpath=inner") {
		t.Errorf("/sub with %q", sub)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
	filled := map[string]string{"/fresh": filepath.Join(w.volumes.dir, "anon1/_data"), "/sub": filepath.Join(w.volumes.dir, "sub/_data/inner")}
	if diff := cmp.Diff(filled, w.layers.copied); diff != "" {
		t.Errorf("copied up: %s", diff)
	}
	in, _ := w.Inspect(ctx, id, false)
	for _, m := range in.Mounts {
		if m.Destination == "/tmp" {
			t.Error("--tmpfs is listed")
		}
		if (m.Destination == "/shared" || m.Destination == "/host") && m.RW {
			t.Errorf("%s is writable", m.Destination)
		}
	}
	if err := w.Remove(ctx, donor, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(ctx, id, RemoveOptions{Force: true, Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if w.volumes.exists("anon1") || !w.volumes.exists("shared") {
		t.Error("volumes after removal")
	}
	w.nothingLeft()
}

func TestSharedNamespaces(t *testing.T) {
	w := newWorld(t)
	a := w.create("aa", withHost(func(h *container.HostConfig) { h.IpcMode = "shareable" }))
	b := w.create("bb", withHost(func(h *container.HostConfig) {
		h.NetworkMode, h.PidMode, h.IpcMode = "container:aa", "container:aa", "container:aa"
	}))
	if err := w.Start(ctx, b); err == nil || !strings.Contains(err.Error(), "namespace of a non running container: container aa is created") {
		t.Errorf("start without the other: %v", err)
	}
	w.rt.pid = os.Getpid() - 1 // so that the other's namespaces can be opened
	w.start(a)
	w.rt.onStart = func(l *runtime.Launch, _ *fakeProc) error {
		for _, n := range l.Spec.Linux.Namespaces { // whoever has the process's number by now
			if n.Type != specs.PIDNamespace && n.Type != specs.IPCNamespace {
				continue
			}
			got, err := os.Stat(n.Path)
			want, _ := os.Stat("/proc/self/ns/" + string(n.Type))
			if err != nil || !os.SameFile(got, want) || strings.Contains(n.Path, "/ns/") {
				t.Errorf("%s namespace is %q, %v", n.Type, n.Path, err)
			}
		}
		return nil
	}
	w.start(b)
	l := w.rt.launches[1]
	if l.NetNS == nil {
		t.Error("no network namespace to join")
	}
	for _, m := range l.Spec.Mounts {
		if m.Destination == "/etc/hosts" && m.Source != filepath.Join(w.runDir(a), "hosts") {
			t.Errorf("hosts from %s", m.Source)
		}
	}
	if got := string(w.index.exact(b).record().HostConfig.NetworkMode); got != "container:"+a {
		t.Errorf("mode %s", got)
	}
	if len(w.nets.made) != 1 {
		t.Errorf("%d sandboxes made", len(w.nets.made))
	}
	for i, l := range w.rt.launches {
		if !slices.ContainsFunc(l.Spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" && m.Source == w.shmDir(a) }) {
			t.Errorf("launch %d does not share /dev/shm", i)
		}
	}
	for _, id := range []string{b, a} {
		if err := w.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	w.nothingLeft()
}

func TestNetworks(t *testing.T) {
	w := newWorld(t)
	id := w.create("box", withHost(func(h *container.HostConfig) {
		h.NetworkMode = "blue"
		h.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8080-8090"}}}
		h.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "1"}
	}))
	if err := w.ConnectNetwork(ctx, id, "id-red", &network.EndpointSettings{Aliases: []string{"r"}}); err != nil {
		t.Fatal(err)
	}
	w.start(id)
	sp := w.nets.made[0]
	if len(sp.Endpoints) != 2 || sp.Endpoints[0].Network != "id-blue" || sp.Ports[0].HostPort != 8080 || sp.Ports[0].HostEnd != 8090 || len(sp.Sysctls) != 1 {
		t.Errorf("sandbox %+v", sp)
	}
	if err := w.ConnectNetwork(ctx, id, "green", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.ConnectNetwork(ctx, id, "green", nil); !errs.Is(err, errs.Denied) {
		t.Errorf("twice: %v", err)
	}
	if u := w.NetworkUsers("id-green"); u[id].Name != "box" {
		t.Errorf("users %v", u)
	}
	in, _ := w.Inspect(ctx, id, false)
	if len(in.NetworkSettings.Networks) != 3 || len(in.NetworkSettings.Ports) != 1 {
		t.Errorf("settings %+v", in.NetworkSettings)
	}
	if err := w.DisconnectNetwork(ctx, id, "id-green", false); err != nil {
		t.Fatal(err)
	}
	if err := w.DisconnectNetwork(ctx, id, "green", false); !errs.Is(err, errs.Denied) {
		t.Errorf("twice: %v", err)
	}
	w.failures.set("Put", errBoom)
	if err := w.ConnectNetwork(ctx, id, "green", nil); !errors.Is(err, errBoom) {
		t.Errorf("got %v", err)
	}
	w.failures.set("Put", nil)
	if u := w.NetworkUsers("id-green"); len(u) != 0 {
		t.Errorf("a failed connect stays: %v", u)
	}
	if err := w.ConnectNetwork(ctx, id, "host", nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("host: %v", err)
	}
	list, err := w.List(ctx, ListOptions{Filters: filter.Set{"publish": {"8080"}, "network": {"red"}}})
	if err != nil || len(list) != 1 || list[0].Ports[0].PublicPort != 8080 {
		t.Errorf("list %+v %v", list, err)
	}
}

func TestUpdateAndPrune(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	if _, err := w.Update(ctx, id, container.UpdateConfig{Resources: container.Resources{Memory: 64 << 20, MemorySwap: 128 << 20}, RestartPolicy: container.RestartPolicy{Name: "always"}}); err != nil {
		t.Fatal(err)
	}
	if h := w.recs.rows[id].HostConfig; h.Memory != 64<<20 || !h.RestartPolicy.IsAlways() || len(w.rt.updates) != 1 {
		t.Errorf("%+v", h)
	}
	w.failures.set("runtime.Update", errBoom)
	if _, err := w.Update(ctx, id, container.UpdateConfig{Resources: container.Resources{Memory: 32 << 20, MemorySwap: 128 << 20}}); !errors.Is(err, errBoom) {
		t.Errorf("got %v", err)
	}
	if w.recs.rows[id].HostConfig.Memory != 64<<20 {
		t.Error("a refused update is recorded")
	}
	old := w.create("old")
	kept := w.create("kept", withConfig(func(c *container.Config) { c.Labels = map[string]string{"keep": "1"} }))
	r, err := w.Prune(ctx, filter.Set{"label!": {"keep"}})
	if err != nil || !slices.Equal(r.ContainersDeleted, []string{old}) || r.SpaceReclaimed != 10 {
		t.Errorf("%+v %v", r, err)
	}
	if w.phase(kept) != Created || w.phase(id) != Running {
		t.Error("too much was pruned")
	}
}
