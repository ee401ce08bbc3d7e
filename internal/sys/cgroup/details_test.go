//go:build linux

package cgroup

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDetails(t *testing.T) {
	g := fakeV2(t, "memory.current=10", "memory.swap.current=5", "memory.swap.max=20", "memory.max=100", "memory.swap.events=high 0\nmax 3\nfail 0",
		"hugetlb.2MB.max=max", "hugetlb.2MB.rsvd.max=max", "hugetlb.2MB.rsvd.current=7", "hugetlb.2MB.current=1", "hugetlb.2MB.events=max 2",
		"hugetlb.1GB.max=max", "hugetlb.1GB.current=9",
		"cpu.pressure=some avg10=1.50 avg60=2.00 avg300=3.25 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0")
	want := &Details{
		Swap: MemoryStats{Usage: 15, Limit: 120, Failures: 3}, Huge: map[string]MemoryStats{"2MB": {Usage: 7, Failures: 2}, "1GB": {Usage: 9}},
		CPUPSI: &PSI{Some: Pressure{1.5, 2, 3.25, 77}},
	}
	if diff := cmp.Diff(want, g.Details()); diff != "" {
		t.Error(diff)
	}
	g = fakeV1(t, "cpuacct.usage_all=cpu user system\n0 5 6\n1 7 8", "cpuset.cpus=0-1,5", "cpuset.mems=0", "cpuset.sched_relax_domain_level=-1",
		"cpuset.cpu_exclusive=1", "memory.memsw.usage_in_bytes=11", "memory.memsw.limit_in_bytes=12", "memory.kmem.failcnt=4",
		"hugetlb.2MB.limit_in_bytes=1", "hugetlb.2MB.usage_in_bytes=3", "hugetlb.2MB.max_usage_in_bytes=4",
		"blkio.bfq.io_queued_recursive=8:0 Read 3\nTotal 3")
	g.sys.v1[0].controllers = append(g.sys.v1[0].controllers, "cpuacct", "cpuset")
	d := g.Details()
	if diff := cmp.Diff([]uint16{0, 1, 5}, d.CPUSet.CPUs); diff != "" || d.CPUSet.Flags["sched_relax_domain_level"] != -1 || d.CPUSet.Flags["cpu_exclusive"] != 1 {
		t.Errorf("%s, %+v", diff, d.CPUSet)
	}
	if d.Swap.Usage != 11 || d.Swap.Limit != 12 {
		t.Errorf("%+v", d.Swap)
	}
	if d.Kernel.Failures != 4 || d.Huge["2MB"].Usage != 3 || d.Huge["2MB"].Max != 4 {
		t.Errorf("%+v, %+v", d.Kernel, d.Huge)
	}
	if diff := cmp.Diff([]time.Duration{6, 8}, d.CPUKernel); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]IOStat{{Major: 8, Op: "read", Count: 3}}, d.Queued); diff != "" {
		t.Error(diff)
	}
	if fakeV2(t, "memory.swap.max=max", "memory.max=100").Details().Swap.Limit != math.MaxUint64 {
		t.Error("no limit has become one")
	}
}
