//go:build root

package userns

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var shifted = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}

func TestNetBelongsToIt(t *testing.T) {
	net, err := NewNet(Map{shifted, shifted})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(net) }()
	owner, err := Owner(net)
	if err != nil || owner < 0 {
		t.Fatalf("owner %d: %v", owner, err)
	}
	defer func() { _ = unix.Close(owner) }()
	if again, err := Owner(owner); err != nil || again >= 0 {
		t.Errorf("a user namespace of ours belongs to %d: %v", again, err)
	}
	ours, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(ours) }()
	if fd, err := Owner(ours); err != nil || fd >= 0 {
		t.Errorf("our own network namespace belongs to %d: %v", fd, err)
	}
}

func TestRefusals(t *testing.T) {
	if _, err := New(Map{shifted, append(shifted, shifted...)}); err == nil {
		t.Error("mappings that overlap are taken")
	}
	if _, err := Owner(0); err == nil {
		t.Error("what is no namespace has an owner")
	}
}
