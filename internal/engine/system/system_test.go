package system

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/skiff-containers/skiff/internal/engine/events"
)

func files(m map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range m {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

var common = map[string]string{
	"proc/sys/kernel/osrelease":             "6.18.1-test\n",
	"proc/meminfo":                          "MemTotal:       1024 kB\nMemFree: 1 kB\n",
	"proc/sys/net/ipv4/ip_forward":          "1\n",
	"proc/sys/kernel/seccomp/actions_avail": "kill\n",
	"proc/self/ns/cgroup":                   "",
	"etc/os-release":                        "NAME=\"Some\"\nPRETTY_NAME=\"Some Linux 12 (worm)\"\nVERSION_ID='12'\n",
}

func with(more map[string]string) fstest.MapFS {
	m := files(common)
	for k, v := range files(more) {
		m[k] = v
	}
	return m
}

func TestHostWithOldCgroups(t *testing.T) {
	h := inspectHost(with(map[string]string{
		"proc/self/mountinfo": "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
			"32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\nbroken line\n",
		"sys/fs/cgroup/memory/memory.limit_in_bytes": "",
		"sys/fs/cgroup/cpu,cpuacct/cpu.shares":       "",
	}))
	want := host{
		kernel: "6.18.1-test", os: "Some Linux 12 (worm)", osVersion: "12", memory: 1 << 20, forwarding: true, seccomp: true, cgroupns: true,
		cgroup: cgroups{version: 1, memory: true, shares: true},
	}
	if diff := cmp.Diff(want, h, cmp.AllowUnexported(host{}, cgroups{})); diff != "" {
		t.Error(diff)
	}
	if w := strings.Join(h.warnings(), "\n"); !strings.Contains(w, "No swap limit support") || strings.Contains(w, "No memory limit") {
		t.Errorf("warnings:\n%s", w)
	}
}

func TestHostWithUnifiedCgroups(t *testing.T) {
	h := inspectHost(with(map[string]string{
		"proc/self/mountinfo":                    "32 24 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"proc/self/cgroup":                       "0::/a\n",
		"sys/fs/cgroup/cgroup.controllers":       "cpuset cpu io memory pids\n",
		"sys/fs/cgroup/a/memory.swap.max":        "max\n",
		"sys/module/apparmor/parameters/enabled": "Y\n",
	}))
	want := cgroups{version: 2, memory: true, swap: true, quota: true, shares: true, cpuset: true, pids: true, blkio: true}
	if h.cgroup != want {
		t.Errorf("cgroups %+v", h.cgroup)
	}
	if w := h.warnings(); len(w) != 0 || !h.apparmor {
		t.Errorf("warnings %v, apparmor %v", w, h.apparmor)
	}
}

type counted struct{ err error }

func (c counted) States(context.Context) (int, int, int, error) { return 2, 1, 4, c.err }
func (c counted) DiskUsage(_ context.Context, verbose bool) (*container.DiskUsage, error) {
	return ContainerUsage([]container.Summary{{State: container.StateRunning, SizeRw: 5}, {State: container.StateExited, SizeRw: 7}}, verbose), c.err
}

type cache struct{}

func (cache) DiskUsage(context.Context) ([]*build.CacheRecord, error) {
	return []*build.CacheRecord{{Size: 3}, {Size: 4, InUse: true}, {Size: 100, Shared: true}}, nil
}

func TestInfo(t *testing.T) {
	bus := events.New()
	s := New(Config{
		ID: "id", Version: "1.2", HTTPProxy: "http://user:secret@proxy:1", InsecureRegistries: []string{"10.0.0.0/8", "reg:5000"},
		Runtimes: map[string]system.Runtime{"skiff": {}}, DefaultRuntime: "skiff", LiveRestore: true,
	},
		Deps{Containers: counted{}, Events: bus, Log: slog.New(slog.DiscardHandler)})
	i, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i.Containers != 7 || i.ContainersRunning != 2 || i.KernelVersion == "" || i.NCPU < 1 || i.MemTotal == 0 || i.OSType != "linux" ||
		i.Swarm.LocalNodeState != "inactive" || !i.LiveRestoreEnabled || i.CgroupVersion == "0" {
		t.Errorf("info %+v", i)
	}
	if i.HTTPProxy != "http://xxxxx:xxxxx@proxy:1" {
		t.Errorf("proxy %s", i.HTTPProxy)
	}
	if rc := i.RegistryConfig; len(rc.InsecureRegistryCIDRs) != 3 || rc.IndexConfigs["reg:5000"] == nil || rc.IndexConfigs["reg:5000"].Secure {
		t.Errorf("registries %+v", rc)
	}
	boom := errors.New("boom")
	if _, err := New(Config{}, Deps{Containers: counted{boom}, Log: slog.New(slog.DiscardHandler)}).Info(t.Context()); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

func TestMaskURL(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "http://p:1": "http://p:1", "p:1/x@y": "p:1/x@y",
		"http://u:s@p:1": "http://xxxxx:xxxxx@p:1", "u:s@p:1": "xxxxx:xxxxx@p:1", "http://u@p/": "http://xxxxx:xxxxx@p/",
		"http://u:a@b@p:1/x@y": "http://xxxxx:xxxxx@p:1/x@y", "http://:s@p": "http://xxxxx:xxxxx@p",
	} {
		if got := MaskURL(in); got != want {
			t.Errorf("%s is shown as %s", in, got)
		}
	}
}

func TestVersion(t *testing.T) {
	v, err := New(Config{Version: "1.2", Commit: "abc"}, Deps{}).Version(t.Context())
	if err != nil || v.Version != "1.2" || v.Components[0].Details["GitCommit"] != "abc" {
		t.Errorf("%+v %v", v, err)
	}
}

func TestEvents(t *testing.T) {
	bus := events.New()
	s := New(Config{}, Deps{Events: bus})
	r, err := s.Events(t.Context(), time.Time{}, time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	bus.Publish(apievents.DaemonEventType, apievents.ActionReload, "d", nil)
	if m, err := r.Next(t.Context()); err != nil || m.Actor.ID != "d" {
		t.Errorf("%+v %v", m, err)
	}
}

func TestDiskUsage(t *testing.T) {
	s := New(Config{}, Deps{Containers: counted{}, BuildCache: cache{}})
	u, err := s.DiskUsage(t.Context(), DiskUsageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := &system.DiskUsage{
		ContainerUsage:  &container.DiskUsage{TotalCount: 2, ActiveCount: 1, TotalSize: 12, Reclaimable: 7},
		BuildCacheUsage: &build.DiskUsage{TotalCount: 3, ActiveCount: 1, TotalSize: 7, Reclaimable: 3},
	}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
	u, err = s.DiskUsage(t.Context(), DiskUsageOptions{BuildCache: true, Verbose: true})
	if err != nil || u.ContainerUsage != nil || len(u.BuildCacheUsage.Items) != 3 {
		t.Errorf("%+v %v", u, err)
	}
	boom := errors.New("boom")
	if _, err := New(Config{}, Deps{Containers: counted{boom}}).DiskUsage(t.Context(), DiskUsageOptions{}); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

func TestSums(t *testing.T) {
	iu := ImageUsage([]image.Summary{{Containers: 1, Size: 50, SharedSize: 20}, {Size: 40, SharedSize: 20}}, 70, true)
	if iu.ActiveCount != 1 || iu.TotalSize != 70 || iu.Reclaimable != 40 || len(iu.Items) != 2 {
		t.Errorf("%+v", iu)
	}
	vu := VolumeUsage([]volume.Volume{{UsageData: &volume.UsageData{Size: 5, RefCount: 1}}, {UsageData: &volume.UsageData{Size: 7}}, {UsageData: &volume.UsageData{Size: -1}}, {}}, false)
	if vu.TotalCount != 4 || vu.ActiveCount != 1 || vu.TotalSize != 12 || vu.Reclaimable != 7 || vu.Items != nil {
		t.Errorf("%+v", vu)
	}
}
