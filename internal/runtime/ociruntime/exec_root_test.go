//go:build root

package ociruntime

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// sessionKeyring tells which session keyring the calling thread has: its number
// and its name.
func sessionKeyring() string {
	id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		return err.Error()
	}
	text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
	if err != nil {
		return err.Error()
	}
	fields := strings.Split(text, ";")
	return fmt.Sprint(strings.TrimRight(fields[len(fields)-1], "\x00"), " ", id)
}

// self shows this test program to a container.
func self(t *testing.T, s *specs.Spec) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/test", Type: "bind", Source: exe, Options: []string{"bind", "ro"}})
}

// An exec has the container's session keyring, or the caller's where the
// container has its creator's.
func TestExecKeyring(t *testing.T) {
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("own %v", own), func(t *testing.T) {
			runtime.LockOSThread() // and never unlock: it ends with its keyring
			if _, err := unix.KeyctlJoinSessionKeyring("skiff-test-caller"); err != nil {
				t.Skip(err)
			}
			id := fmt.Sprintf("ring-%v-%d", own, os.Getpid()) // keyrings' names are the host's
			c := newCLI(t)
			s := runtimetest.Spec(id, "sleep", "1000")
			self(t, s)
			create := c.command("create", fmt.Sprintf("--no-new-keyring=%v", !own), "--bundle", c.bundle(s), id)
			t.Cleanup(func() { _, _ = c.try("delete", "--force", id) })
			if err := create.Run(); err != nil {
				t.Fatal(err)
			}
			c.run("start", id)
			first, second := c.run("exec", id, "/test", "keyring"), c.run("exec", id, "/test", "keyring")
			if first != second {
				t.Errorf("two execs have two keyrings: %q, %q", first, second)
			}
			want := sessionKeyring() + "\n"
			if own {
				want = "_ses." + id + " "
			}
			if !strings.HasPrefix(first, want) {
				t.Errorf("keyring %q, want %q", first, want)
			}
		})
	}
}

// Who lists no devices gets those that every container has, and no other.
func TestNoDeviceList(t *testing.T) {
	for name, r := range map[string]*specs.LinuxResources{
		"no resources": nil,
		"no list":      {},
		"no denial":    {Devices: []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: new(int64(10)), Minor: new(int64(229)), Access: "rwm"}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCLI(t)
			s := runtimetest.Spec("nodevices", "sh", "-c", "busybox mknod /tmp/loop c 10 237 && : < /dev/null && : < /tmp/loop")
			s.Linux.Resources = r
			out, err := c.try("run", "--bundle", c.bundle(s), "nodevices")
			if err == nil || !strings.Contains(out, "/tmp/loop: Operation not permitted") {
				t.Errorf("another device can be opened: %v, %s", err, out)
			}
		})
	}
}
