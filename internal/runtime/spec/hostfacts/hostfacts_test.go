package hostfacts_test

import (
	"testing"

	"github.com/skiff-containers/skiff/internal/runtime/spec/hostfacts"
)

func TestGather(t *testing.T) {
	f, err := hostfacts.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if f.CPUs < 1 || f.HardLimits["RLIMIT_NOFILE"] == 0 {
		t.Errorf("%+v", f)
	}
	d, err := f.Device("/dev/null")
	if err != nil || len(d) != 1 || d[0].Type != "c" || d[0].Major != 1 || d[0].Minor != 3 {
		t.Errorf("/dev/null: %+v %v", d, err)
	}
	if _, err := f.Device("/dev/no-such"); err == nil {
		t.Error("a missing device is found")
	}
	if d, err := f.Device("/etc/hostname"); err == nil && len(d) != 0 {
		t.Errorf("a file is a device: %+v", d)
	}
	all, err := f.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Path == "/dev/null" || d.Path == "/dev/tty1" {
			t.Errorf("%s is in the list", d.Path)
		}
	}
	if !f.Sysctl("net.ipv4.ip_forward") || f.Sysctl("net.ipv4.no_such") {
		t.Error("sysctl")
	}
}
