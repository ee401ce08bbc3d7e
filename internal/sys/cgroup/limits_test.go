//go:build linux

package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fakeV2 is a group of version 2 made of plain files, which take what is written
// one after the other.
func fakeV2(t *testing.T, files ...string) *Group {
	t.Helper()
	g := &Group{sys: &System{unified: t.TempDir()}, path: "/x"}
	if err := os.Mkdir(g.dir(""), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, text, _ := strings.Cut(f, "=")
		if err := os.WriteFile(filepath.Join(g.dir(""), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// fakeV1 is one of version 1, all of whose controllers are in one directory.
func fakeV1(t *testing.T, files ...string) *Group {
	t.Helper()
	g := fakeV2(t, files...)
	g.sys.v1 = []hierarchy{{mount: g.sys.unified, controllers: []string{"cpu", "memory", "blkio", "hugetlb", "rdma", "pids"}}}
	g.sys.unified = ""
	return g
}

func written(t *testing.T, g *Group) map[string]string {
	t.Helper()
	out := map[string]string{}
	list, err := os.ReadDir(g.dir("memory"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if text, err := read(g.dir("memory"), e.Name()); err != nil {
			t.Error(err)
		} else if text != "" {
			out[e.Name()] = text
		}
	}
	return out
}

func TestWritten(t *testing.T) {
	type files = map[string]string
	for name, tc := range map[string]struct {
		g    func(*testing.T, ...string) *Group
		have []string
		r    specs.LinuxResources
		want files
	}{
		"zeros count": {
			fakeV2, []string{"pids.max", "cpu.idle", "cpu.max.burst", "cpu.weight"},
			specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(0))}, CPU: &specs.LinuxCPU{Idle: new(int64(0)), Burst: new(uint64(0)), Shares: new(uint64(1024))}},
			files{"pids.max": "0", "cpu.idle": "0", "cpu.max.burst": "0", "cpu.weight": "100"},
		},
		"zeros count in version 1": {
			fakeV1, []string{"pids.max", "cpu.idle", "cpu.cfs_burst_us"},
			specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(0))}, CPU: &specs.LinuxCPU{Idle: new(int64(0)), Burst: new(uint64(0))}},
			files{"pids.max": "0", "cpu.idle": "0", "cpu.cfs_burst_us": "0"},
		},
		"the idle have no weight": {
			fakeV2, []string{"cpu.idle", "cpu.weight"},
			specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: new(int64(1)), Shares: new(uint64(1024))}}, files{"cpu.idle": "1"},
		},
		"huge pages": {
			fakeV2, []string{"hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.1GB.max"},
			specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 5}, {Pagesize: "1GB", Limit: 6}}},
			files{"hugetlb.2MB.max": "5", "hugetlb.2MB.rsvd.max": "5", "hugetlb.1GB.max": "6"},
		},
		"huge pages of version 1": {
			fakeV1, []string{"hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.rsvd.limit_in_bytes"},
			specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 5}}},
			files{"hugetlb.2MB.limit_in_bytes": "5", "hugetlb.2MB.rsvd.limit_in_bytes": "5"},
		},
		"rdma of version 1": {
			fakeV1, []string{"rdma.max"},
			specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: new(uint32(3)), HcaObjects: new(uint32(4))}}},
			files{"rdma.max": "mlx5_1 hca_handle=3 hca_object=4"},
		},
		"files by their names": {
			fakeV2, []string{"io.max", "misc.max", "cgroup.max.depth", "pids.max"},
			specs.LinuxResources{Unified: files{"io.max": "8:0 rbps=1\n8:16 rbps=2\n", "misc.max": "res_a 3", "cgroup.max.depth": "2", "pids.max": "7"}},
			files{"io.max": "8:0 rbps=18:16 rbps=2", "misc.max": "res_a 3", "cgroup.max.depth": "2", "pids.max": "7"},
		},
		"a quota and its period": {
			fakeV2, []string{"cpu.max"},
			specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(5000)), Period: new(uint64(10000))}}, files{"cpu.max": "5000 10000"},
		},
		"swap": {
			fakeV2, []string{"memory.max", "memory.swap.max"},
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(10)), Swap: new(int64(30))}}, files{"memory.max": "10", "memory.swap.max": "20"},
		},
		"enough is free": {
			fakeV2, []string{"memory.max", "memory.current=9"},
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(10)), CheckBeforeUpdate: new(true)}}, files{"memory.max": "10", "memory.current": "9"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := tc.g(t, tc.have...)
			if err := g.Apply(&tc.r, false); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, written(t, g)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusedLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		r    specs.LinuxResources
		want string
	}{
		"less memory than is in use": {
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(99)), CheckBeforeUpdate: new(true)}}, "memory limit 99 is below the 100 bytes in use",
		},
		"less swap than is in use": {
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(-1)), Swap: new(int64(99)), CheckBeforeUpdate: new(true)}}, "memory+swap limit 99 is below",
		},
		"a sum with nothing":  {specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: new(int64(200))}}, "needs one of memory"},
		"processes to move":   {specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, "is the runtime's alone"},
		"a file elsewhere":    {specs.LinuxResources{Unified: map[string]string{"../x/memory.max": "1"}}, "not a controller's file"},
		"no file":             {specs.LinuxResources{Unified: map[string]string{"..": "1"}}, "not a controller's file"},
		"an unknown one":      {specs.LinuxResources{Unified: map[string]string{"future.knob": "1"}}, "no such file"},
		"too much swappiness": {specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: new(uint64(101))}}, "not within 0 to 100"},
	} {
		g := fakeV2(t, "memory.current=100", "memory.max", "memory.swap.max", "cgroup.procs")
		_, err := g.Check(&tc.r)
		if err == nil {
			err = g.Apply(&tc.r, false)
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What cannot be limited is told.
func TestLimitsLeftOut(t *testing.T) {
	device := specs.LinuxWeightDevice{LeafWeight: new(uint16(10))}
	device.Major, device.Minor = 8, 1
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{
			Kernel: new(int64(1)), KernelTCP: new(int64(1)), Swappiness: new(uint64(5)), DisableOOMKiller: new(true), UseHierarchy: new(false),
		},
		BlockIO: &specs.LinuxBlockIO{LeafWeight: new(uint16(10)), WeightDevice: []specs.LinuxWeightDevice{device}},
	}
	for _, tc := range []struct {
		g    *Group
		want string
	}{
		{fakeV1(t), "memory.kernel, memory.useHierarchy"},
		{fakeV2(t), "memory.kernel, memory.useHierarchy, memory.swappiness, memory.disableOOMKiller, memory.kernelTCP, blockIO.leafWeight, blockIO.leafWeight of device 8:1"},
	} {
		left, err := tc.g.Check(r)
		for i, text := range left {
			left[i], _, _ = strings.Cut(text, " is ignored: ")
		}
		if got := strings.Join(left, ", "); err != nil || got != tc.want {
			t.Errorf("%v: %s, want %s", err, got, tc.want)
		}
	}
}
