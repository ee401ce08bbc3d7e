package cli

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// golden compares with a file, or writes it with UPDATE=1.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	p := filepath.Join("testdata", name+".golden")
	if os.Getenv("UPDATE") == "1" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: -want +got (UPDATE=1 rewrites)\n%s", name, diff)
	}
}

type writerFunc func(w *bytes.Buffer, layout string, quiet bool) error

// layouts prints a list in every way.
func layouts(t *testing.T, f writerFunc, templates ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, l := range append([]string{"", "-q", "json"}, templates...) {
		out.WriteString("== " + l + "\n")
		quiet := l == "-q"
		if quiet {
			l = ""
		}
		if err := f(&out, l, quiet); err != nil {
			out.WriteString("error: " + err.Error() + "\n")
		}
	}
	return out.Bytes()
}

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const hexID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestContainerTable(t *testing.T) {
	time.Local = time.UTC
	items := []container.Summary{
		{
			ID: hexID, Names: []string{"/web", "/other/link"}, Image: "web:1", ImageID: "sha256:" + hexID,
			Command: "httpd -f -v -p 80 -h /srv/www", Created: now.Add(-90 * time.Minute).Unix(), State: "running", Status: "Up 2 hours (healthy)",
			SizeRw: 12345, SizeRootFs: 2345678, Labels: map[string]string{"b": "2", "a": "1"},
			Ports: []container.PortSummary{
				{IP: netip.MustParseAddr("0.0.0.0"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
				{IP: netip.MustParseAddr("::"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
				{PrivatePort: 90, Type: "tcp"},
				{PrivatePort: 91, Type: "tcp"},
				{PrivatePort: 53, Type: "udp"},
			},
			Mounts:          []container.MountPoint{{Name: strings.Repeat("v", 20), Driver: "local"}, {Source: "/host"}},
			NetworkSettings: &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{"b": {}, "a": {}}},
		},
		{ID: "f" + hexID[1:], Names: []string{"/bad\x1b[2J"}, Command: "sh", Created: now.Unix(), State: "exited", Status: "Exited (0)\x1b]0;x\a"},
	}
	got := layouts(t, func(w *bytes.Buffer, l string, q bool) error {
		return containerTable(true, true, now).Write(w, l, q, items)
	}, `table {{.Names}}\t{{.Ports}}`, `table{{.ID}}: {{.Label "a"}}`, `{{.Names}}|{{.Label "b"}}|{{upper .State}}|{{json .Labels}}`,
		`{{.Nope}}`, `{{.Names`, `{{join (split .Networks ",") "+"}} {{pad .State 1 2}}| {{truncate .ID 3}} {{title .State}}`)
	golden(t, "ps", got)
	var b bytes.Buffer
	if err := containerTable(false, false, now).Write(&b, "", false, items[:1]); err != nil {
		t.Fatal(err)
	}
	golden(t, "ps-no-trunc", b.Bytes())
}

func TestImageTable(t *testing.T) {
	time.Local = time.UTC
	d := "sha256:" + hexID
	items := []image.Summary{
		{ID: d, RepoTags: []string{"busybox:latest", "localhost:5000/a/b:1"}, RepoDigests: []string{"localhost:5000/a/b@" + d}, Created: now.Add(-50 * time.Hour).Unix(), Size: 1984000, SharedSize: -1, Containers: -1},
		{ID: d, RepoDigests: []string{"gone@" + d}, Created: now.Add(-time.Second).Unix(), Size: 1, SharedSize: 0, Containers: 2},
		{ID: d, Size: 0, SharedSize: -1, Containers: -1},
	}
	got := layouts(t, func(w *bytes.Buffer, l string, q bool) error {
		return imageTable(true, false, now).Write(w, l, q, imageRows(items, false, false))
	}, "{{.Repository}}:{{.Tag}}")
	golden(t, "images", got)
	var b bytes.Buffer
	if err := imageTable(true, true, now).Write(&b, "", false, imageRows(items, true, false)); err != nil {
		t.Fatal(err)
	}
	golden(t, "images-digests", b.Bytes())
}

func TestOtherTables(t *testing.T) {
	time.Local = time.UTC
	used := now.Add(-time.Minute)
	for name, f := range map[string]writerFunc{
		"history": func(w *bytes.Buffer, l string, q bool) error {
			return historyTable(true, true, now).Write(w, l, q, []image.HistoryResponseItem{
				{ID: "sha256:" + hexID, Created: now.Add(-time.Hour).Unix(), CreatedBy: "RUN /bin/sh -c\techo " + strings.Repeat("x", 60), Size: 5},
				{ID: "<missing>", Created: now.Add(-time.Hour).Unix(), CreatedBy: "CMD", Comment: "c"},
			})
		},
		"networks": func(w *bytes.Buffer, l string, q bool) error {
			return networkTable(true).Write(w, l, q, []network.Summary{{Network: network.Network{ID: hexID, Name: "n1", Driver: "bridge", Scope: "local", EnableIPv4: true, Created: now, Labels: map[string]string{"a": "b"}}}})
		},
		"volumes": func(w *bytes.Buffer, l string, q bool) error {
			return volumeTable().Write(w, l, q, []volume.Volume{{Name: "v1", Driver: "local", Scope: "local", Mountpoint: "/m"}, {Name: "v2", Driver: "local", UsageData: &volume.UsageData{RefCount: 1, Size: 1000}}})
		},
		"df": func(w *bytes.Buffer, l string, _ bool) error {
			return dfTable().Write(w, l, false, []dfRow{{"Images", 3, 1, 1000, 500, true}, {"Containers", 0, 0, 0, 0, true}, {"Build Cache", 2, 0, 10, 10, false}})
		},
		"cache": func(w *bytes.Buffer, l string, _ bool) error {
			return cacheTable(now).Write(w, l, false, []build.CacheRecord{{ID: "abcdefghijklmnop", Type: "regular", Size: 5, CreatedAt: now.Add(-time.Hour), LastUsedAt: &used, UsageCount: 2, InUse: true}})
		},
		"stats": func(w *bytes.Buffer, l string, _ bool) error {
			u := usageRow{asked: "web"}
			u.fill(&container.StatsResponse{
				ID: hexID, Name: "/web",
				CPUStats:    container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: 300}, SystemUsage: 2000, OnlineCPUs: 2},
				PreCPUStats: container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: 200}, SystemUsage: 1000},
				MemoryStats: container.MemoryStats{Usage: 3 << 20, Limit: 1 << 30, Stats: map[string]uint64{"inactive_file": 1 << 20}},
				Networks:    map[string]container.NetworkStats{"eth0": {RxBytes: 1000, TxBytes: 2000}},
				BlkioStats:  container.BlkioStats{IoServiceBytesRecursive: []container.BlkioStatEntry{{Op: "Read", Value: 5}, {Op: "Write", Value: 6}}},
				PidsStats:   container.PidsStats{Current: 7},
			})
			return statsTable(true).Write(w, l, false, []usageRow{u, {asked: "slow"}})
		},
		"search": func(w *bytes.Buffer, l string, _ bool) error {
			return searchTable(true).Write(w, l, false, []registry.SearchResult{{Name: "a/b", Description: "two\nlines " + strings.Repeat("y", 60), StarCount: 3, IsOfficial: true}})
		},
		"diff": func(w *bytes.Buffer, l string, _ bool) error {
			return diffTable().Write(w, l, false, []container.FilesystemChange{{Kind: container.ChangeAdd, Path: "/a"}, {Kind: container.ChangeDelete, Path: "/b"}})
		},
	} {
		golden(t, name, layouts(t, f))
	}
}

func TestEventLine(t *testing.T) {
	time.Local = time.UTC
	var b bytes.Buffer
	e := events.Message{Type: "container", Action: "die", Actor: events.Actor{ID: hexID, Attributes: map[string]string{"name": "x\x1b[0m", "exitCode": "1"}}, TimeNano: now.UnixNano()}
	for _, l := range []string{"", "{{.Action}} {{.Actor.Attributes.exitCode}}", "json"} {
		if err := printEvent(&b, l, e); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "events", b.Bytes())
}

func TestInfoAndVersionText(t *testing.T) {
	var b bytes.Buffer
	printInfo(&b, &system.Info{
		Containers: 3, ContainersRunning: 1, ContainersStopped: 2, Images: 4, ServerVersion: "1", Driver: "overlayfs", DriverStatus: [][2]string{{"Backing", "ext4"}},
		LoggingDriver: "local", CgroupDriver: "cgroupfs", CgroupVersion: "1", OSType: "linux", NCPU: 2, MemTotal: 1 << 34, Name: "host",
		SecurityOptions: []string{"name=seccomp,profile=builtin"}, DockerRootDir: "/var/lib/skiff", Runtimes: map[string]system.RuntimeWithStatus{"skiff": {}, "runc": {}}, DefaultRuntime: "skiff",
		RegistryConfig: &registry.ServiceConfig{IndexConfigs: map[string]*registry.IndexInfo{"reg:5000": {Name: "reg:5000"}}, InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Mirrors: []string{"http://m/"}},
		Labels:         []string{"a=b"},
	})
	v := versionInfo{
		Client: clientVersion{Version: "dev", APIVersion: "1.41", DefaultAPIVersion: "1.56", GoVersion: "go1", GitCommit: "abc", Os: "linux", Arch: "amd64"},
		Server: &serverVersion{Version: "1", Platform: system.PlatformInfo{Name: "Skiff"}, Components: []component{{"Engine", "1", map[string]string{"ApiVersion": "1.56", "MinAPIVersion": "1.41", "Os": "linux", "Arch": "amd64"}}}},
	}
	printVersions(&b, v)
	golden(t, "info", b.Bytes())
}

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64/", "linux/x86_64": "linux/amd64/", "arm64": "linux/arm64/", "linux/arm64/v8": "linux/arm64/",
		"linux/arm/7": "linux/arm/v7", "linux/armhf": "linux/arm/v7", "": "", "a/b/c/d": "error", "linux/": "error", "linux/a b": "error",
	} {
		p, err := parsePlatform(in)
		got := ""
		switch {
		case err != nil:
			got = "error"
		case p != nil:
			got = p.OS + "/" + p.Architecture + "/" + p.Variant
		}
		if got != want {
			t.Errorf("%q: got %s, want %s (%v)", in, got, want, err)
		}
	}
}
