//go:build linux

package ociruntime

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// The names are those that clients of runc decode.
func TestStatsAreRuncs(t *testing.T) {
	s, d := &cgroup.Stats{}, &cgroup.Details{
		CPUKernel: nil, CPUSet: &cgroup.CPUSet{CPUs: []uint16{0, 1}, Flags: map[string]int64{"sched_relax_domain_level": -1, "sched_load_balance": 1}},
		Swap: cgroup.MemoryStats{Usage: 3, Limit: math.MaxUint64}, Huge: map[string]cgroup.MemoryStats{"2MB": {Usage: 5, Failures: 1}},
		CPUPSI: &cgroup.PSI{Some: cgroup.Pressure{Avg10: 1.5, Total: 9}},
	}
	s.IO = []cgroup.IOStat{{Major: 8, Op: "read", Bytes: 4096, Count: 1}}
	s.CPU.User, s.PIDs.Current, s.PIDs.Limit = 7, 2, math.MaxUint64
	got, err := json.Marshal(statsOf(s, d))
	want := `{"cpu":{"usage":{"kernel":0,"user":7},"psi":{"some":{"avg10":1.5,"avg60":0,"avg300":0,"total":9}}},` +
		`"cpuset":{"cpus":[0,1],"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,` +
		`"memory_pressure":0,"sched_load_balance":1,"sched_relax_domain_level":-1},` +
		`"memory":{"swap":{"limit":18446744073709551615,"usage":3,"failcnt":0}},"pids":{"current":2},` +
		`"blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":4096}],"ioServicedRecursive":[{"major":8,"op":"Read","value":1}]},` +
		`"hugetlb":{"2MB":{"usage":5,"failcnt":1}},"intel_rdt":{},"network_interfaces":null}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}
