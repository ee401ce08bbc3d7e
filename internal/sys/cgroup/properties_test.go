//go:build linux

package cgroup

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

func TestProperties(t *testing.T) {
	type props = map[string]any
	for name, tc := range map[string]struct {
		r    specs.LinuxResources
		want props
	}{
		"none":   {specs.LinuxResources{}, props{}},
		"memory": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(64)), Swap: new(int64(96)), Reservation: new(int64(32))}}, props{"MemoryMax": uint64(64), "MemorySwapMax": uint64(32), "MemoryLow": uint64(32)}},
		"no memory limit": {
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(-1)), Swap: new(int64(-1))}},
			props{"MemoryMax": unlimited, "MemorySwapMax": unlimited},
		},
		"processors": {
			specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: new(uint64(1024)), Quota: new(int64(33333)), Period: new(uint64(100000)), Cpus: "0-2,9", Mems: "0"}},
			props{"CPUWeight": uint64(100), "CPUQuotaPerSecUSec": uint64(340000), "CPUQuotaPeriodUSec": uint64(100000), "AllowedCPUs": []byte{7, 2}, "AllowedMemoryNodes": []byte{1}},
		},
		"no quota": {
			specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(-1))}},
			props{"CPUQuotaPerSecUSec": unlimited, "CPUQuotaPeriodUSec": uint64(100000)},
		},
		"idle": {specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: new(int64(1))}}, props{"CPUWeight": uint64(0)}},
		"disks": {
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: new(uint16(1000)), ThrottleReadIOPSDevice: []specs.LinuxThrottleDevice{throttle(8, 16, 5)}}},
			props{"IOWeight": uint64(10000), "IOReadIOPSMax": []systemd.DeviceLimit{{Path: "/dev/block/8:16", Value: 5}}},
		},
		"unified": {
			specs.LinuxResources{Unified: map[string]string{"memory.high": "5", "pids.max": "max", "hugetlb.2MB.max": "1"}},
			props{"MemoryHigh": uint64(5)}, // processes are told by themselves
		},
	} {
		list, err := properties(&tc.r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got := props{}
		for _, p := range list {
			got[p.Name] = p.Value
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, bad := range []string{"x", "3-1", "1-", "99999999"} {
		if _, err := bitmap(bad); err == nil {
			t.Errorf("%q is a list of processors", bad)
		}
	}
}

func throttle(major, minor int64, rate uint64) (d specs.LinuxThrottleDevice) {
	d.Major, d.Minor, d.Rate = major, minor, rate
	return d
}

func TestScopeNames(t *testing.T) {
	s := &System{unified: "/sys/fs/cgroup"}
	g, err := s.Open("a-b.slice:skiff:id")
	if err != nil || g.Path() != "/a.slice/a-b.slice/skiff-id.scope" || g.Name() != "a-b.slice:skiff:id" {
		t.Errorf("%+v, %v", g, err)
	}
	if g, err = s.Open("::id"); err != nil || g.Path() != "/system.slice/id.scope" {
		t.Errorf("%+v, %v", g, err)
	}
	if g.Create() == nil {
		t.Error("a scope was made around nothing")
	}
	for _, bad := range []string{"x:y:z", "a.slice:x:", "../a.slice:x:y", "a.slice:x:../y", "a.slice:x:y.slice"} {
		if _, err := s.Open(bad); err == nil {
			t.Errorf("%s is a group", bad)
		}
	}
	if _, err := (&System{}).Open("a.slice:x:y"); err == nil {
		t.Error("a scope with control groups of version 1")
	}
}
