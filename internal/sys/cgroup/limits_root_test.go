//go:build root

package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// A limit is one that a real group refuses or keeps: file is where it can be
// read, of version 1 and 2, and err what is answered where it cannot be had.
type limit struct {
	name               string
	r                  specs.LinuxResources
	file1, want1, err1 string
	file2, want2, err2 string
}

// What is written to a group is what the kernel then says.
func TestLimitsAreWritten(t *testing.T) {
	unifiedOnly := "need control groups of version 2"
	for _, l := range []limit{
		{name: "burst", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(20000))}},
			file1: "cpu/cpu.cfs_burst_us", want1: "20000", file2: "cpu.max.burst", want2: "20000"},
		{name: "a burst above the quota", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(60000))}},
			err1: "invalid argument", err2: "invalid argument"},
		{name: "idle", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1))}},
			file1: "cpu/cpu.idle", want1: "1", file2: "cpu.idle", want2: "1"},
		{name: "quota", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(30000)), Period: ptr(uint64(60000))}},
			file1: "cpu/cpu.cfs_quota_us", want1: "30000", file2: "cpu.max", want2: "30000 60000"},
		{name: "no quota", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}},
			file1: "cpu/cpu.cfs_quota_us", want1: "-1", file2: "cpu.max", want2: "max 100000"},
		{name: "shares", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(2048))}},
			file1: "cpu/cpu.shares", want1: "2048", file2: "cpu.weight", want2: "174"},
		{name: "processors", r: specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0"}},
			file1: "cpuset/cpuset.cpus", want1: "0", file2: "cpuset.cpus", want2: "0"},
		{name: "reservation", r: specs.LinuxResources{Memory: &specs.LinuxMemory{Reservation: ptr(int64(32 << 20))}},
			file1: "memory/memory.soft_limit_in_bytes", want1: "33554432", file2: "memory.low", want2: "33554432"},
		{name: "swap", r: specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20))}},
			file1: "memory/memory.memsw.limit_in_bytes", want1: "100663296", file2: "memory.swap.max", want2: "33554432"},
		{name: "huge pages", r: specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}},
			file1: "hugetlb/hugetlb.2MB.limit_in_bytes", want1: "4194304", file2: "hugetlb.2MB.max", want2: "4194304"},
		{name: "huge pages of no size", r: specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "3MB", Limit: 1}}},
			err1: "hugetlb", err2: "hugetlb.3MB.max"},
		{name: "rdma", r: specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"none0": {HcaHandles: ptr(uint32(2))}}},
			err1: "controller rdma is not mounted", err2: "rdma.max"},
		{name: "unified", r: specs.LinuxResources{Unified: map[string]string{"memory.high": "41943040", "memory.oom.group": "1"}},
			err1: unifiedOnly, file2: "memory.high", want2: "41943040"},
		{name: "unified, last", r: specs.LinuxResources{Unified: map[string]string{"memory.high": "41943040", "memory.oom.group": "1"}},
			err1: unifiedOnly, file2: "memory.oom.group", want2: "1"},
		{name: "unified, no controller's", r: specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}},
			err1: unifiedOnly, err2: "the runtime's alone"},
		{name: "unified, unknown", r: specs.LinuxResources{Unified: map[string]string{"memory.nope": "1"}},
			err1: unifiedOnly, err2: "memory.nope"},
	} {
		t.Run(l.name, func(t *testing.T) { l.try(t) })
	}
}

func (l *limit) try(t *testing.T) {
	g := groupOf(t)
	controller, name, _ := strings.Cut(l.file1, "/")
	want, words := l.want1, l.err1
	if g.sys.Unified() {
		controller, _, _ = strings.Cut(l.file2, ".")
		name, want, words = l.file2, l.want2, l.err2
	}
	err := g.Apply(&l.r, false)
	if words != "" {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("error is %v, want %q", err, words)
		}
		return
	}
	dir := g.dir(controller)
	if dir == "" { // refused by name, and that is all that can be seen here
		if err == nil || !strings.Contains(err.Error(), "controller "+controller+" is not mounted") {
			t.Errorf("without the controller %s the error is %v", controller, err)
		}
		return
	}
	if _, serr := os.Stat(filepath.Join(dir, name)); serr != nil && name == "memory.memsw.limit_in_bytes" {
		t.Skip("the kernel does not account swap")
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(dir, name); err != nil || got != want {
		t.Errorf("%s is %q, want %q: %v", name, got, want, err)
	}
}
