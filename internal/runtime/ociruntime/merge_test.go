//go:build linux

package ociruntime

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestMergedLimits(t *testing.T) {
	throttle := func(major, minor int64, rate uint64) specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = major, minor
		return d
	}
	old := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}},
		Memory:  &specs.LinuxMemory{Limit: new(int64(100)), Swap: new(int64(300)), CheckBeforeUpdate: new(true)},
		CPU:     &specs.LinuxCPU{Quota: new(int64(50000)), Period: new(uint64(100000)), Cpus: "0"},
		Pids:    &specs.LinuxPids{Limit: new(int64(10))},
		BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(8, 0, 1)}},
		Unified: map[string]string{"memory.high": "5"},
	}
	for name, tc := range map[string]struct {
		old, r  *specs.LinuxResources
		all     func(*specs.LinuxResources) // what it changes of the stored limits
		written *specs.LinuxResources
	}{
		"a period": {
			old, &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: new(uint64(20000))}},
			func(l *specs.LinuxResources) {
				l.CPU = &specs.LinuxCPU{Quota: new(int64(50000)), Period: new(uint64(20000)), Cpus: "0"}
			},
			&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(50000)), Period: new(uint64(20000))}},
		},
		"memory and swap": {
			old, &specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: new(int64(150))}},
			func(l *specs.LinuxResources) {
				l.Memory = &specs.LinuxMemory{Limit: new(int64(100)), Swap: new(int64(150)), CheckBeforeUpdate: new(true)}
			},
			&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(100)), Swap: new(int64(150)), CheckBeforeUpdate: new(true)}},
		},
		"no limit of memory": {
			old, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(-1))}},
			func(l *specs.LinuxResources) {
				l.Memory = &specs.LinuxMemory{Limit: new(int64(-1)), Swap: new(int64(-1)), CheckBeforeUpdate: new(true)}
			},
			&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(-1)), Swap: new(int64(-1)), CheckBeforeUpdate: new(true)}},
		},
		"lists and maps": {
			old, &specs.LinuxResources{
				BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(8, 16, 2), throttle(8, 0, 3)}},
				Unified: map[string]string{"memory.low": "1"}, Devices: []specs.LinuxDeviceCgroup{{Allow: true}},
			},
			func(l *specs.LinuxResources) {
				l.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(8, 0, 3), throttle(8, 16, 2)}}
				l.Unified = map[string]string{"memory.high": "5", "memory.low": "1"}
			},
			&specs.LinuxResources{
				BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(8, 16, 2), throttle(8, 0, 3)}},
				Unified: map[string]string{"memory.low": "1"},
			},
		},
		"nothing before": {
			nil, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(5))}},
			func(l *specs.LinuxResources) { *l = specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(5))}} },
			&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(5))}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var want specs.LinuxResources
			if tc.old != nil {
				want = *tc.old
			}
			tc.all(&want)
			all := merged(tc.old, tc.r)
			if diff := cmp.Diff(&want, all); diff != "" {
				t.Errorf("stored: %s", diff)
			}
			if diff := cmp.Diff(tc.written, complete(tc.r, all)); diff != "" {
				t.Errorf("written: %s", diff)
			}
		})
	}
	if old.BlockIO.ThrottleReadBpsDevice[0].Rate != 1 || len(old.Unified) != 1 || *old.CPU.Period != 100000 {
		t.Errorf("what held before was changed: %+v", old)
	}
}
