//go:build linux

package userns

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestWhoIsWho(t *testing.T) {
	m := Map{
		UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}, {ContainerID: 1000, HostID: 300000, Size: 10}},
		GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}},
	}
	for _, tt := range []struct {
		in, out [2]int
		ok      bool
	}{
		{[2]int{0, 0}, [2]int{100000, 200000}, true},
		{[2]int{999, 5}, [2]int{100999, 200005}, true},
		{[2]int{1009, 65535}, [2]int{300009, 265535}, true},
		{[2]int{1010, 0}, [2]int{}, false},
		{[2]int{0, 65536}, [2]int{}, false},
	} {
		u, g, ok := m.Outside(uint32(tt.in[0]), uint32(tt.in[1]))
		if ok != tt.ok || ok && (u != tt.out[0] || g != tt.out[1]) {
			t.Errorf("%v is %d:%d, %v", tt.in, u, g, ok)
		}
		if !tt.ok {
			continue
		}
		if u, g, ok := m.Inside(uint32(tt.out[0]), uint32(tt.out[1])); !ok || u != tt.in[0] || g != tt.in[1] {
			t.Errorf("%v is %d:%d inside, %v", tt.out, u, g, ok)
		}
	}
	if _, _, ok := m.Inside(0, 0); ok {
		t.Error("root outside is somebody inside")
	}
	last := Map{UIDs: []specs.LinuxIDMapping{{HostID: 1, Size: ^uint32(0)}}}
	last.GIDs = last.UIDs
	if u, _, ok := last.Outside(^uint32(0)-1, 0); !ok || u != int(^uint32(0)) {
		t.Errorf("the last id is %d, %v", u, ok)
	}
}

func TestSame(t *testing.T) {
	a := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5, Size: 1}, {ContainerID: 1, HostID: 9, Size: 1}}
	b := []specs.LinuxIDMapping{a[1], a[0]}
	if !(Map{a, b}).Same(Map{b, a}) {
		t.Error("the order counts")
	}
	if (Map{a, b}).Same(Map{a, a[:1]}) {
		t.Error("what is missing does not count")
	}
}

func TestOf(t *testing.T) {
	m, err := Of(os.Getpid())
	if err != nil || len(m.UIDs) == 0 || len(m.GIDs) == 0 {
		t.Fatalf("%v: %v", m, err)
	}
	if _, err := Of(-1); err == nil {
		t.Error("a process that cannot be has a map")
	}
}
