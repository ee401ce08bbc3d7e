//go:build root

package ociruntime

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
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

// An exec has a session keyring of its own, or the caller's where the container
// has its creator's.
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
			if (first == second) == own {
				t.Errorf("two execs have %q and %q", first, second)
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

// What an update says between create and start is what holds.
func TestUpdateBeforeStart(t *testing.T) {
	for _, tc := range []struct{ created, updated string }{{"20", "30"}, {"100", "200"}, {"20", "max"}, {"", "20"}, {"200", "20"}} {
		t.Run(tc.created+"-"+tc.updated, func(t *testing.T) {
			c := newCLI(t)
			s := runtimetest.Spec("early", "sleep", "1000")
			if n, err := strconv.ParseInt(tc.created, 10, 64); err == nil {
				s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &n}
			}
			c.made("early", c.bundle(s))
			limit := tc.updated
			if limit == "max" {
				limit = "-1"
			}
			c.run("update", "--pids-limit", limit, "early")
			c.run("start", "early")
			sys, err := cgroup.Detect()
			if err != nil {
				t.Fatal(err)
			}
			g, err := sys.Open(s.Linux.CgroupsPath)
			if err != nil {
				t.Fatal(err)
			}
			file, _ := g.PIDsFile(&specs.LinuxPids{Limit: new(int64(-1))})
			if now, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(now)) != tc.updated {
				t.Errorf("the limit is %q, %v, want %s", now, err, tc.updated)
			}
		})
	}
}

// A limit that the kernel keeps together with another one leaves that alone.
func TestUpdateKeepsLimits(t *testing.T) {
	c := newCLI(t)
	s := runtimetest.Spec("kept", "sleep", "1000")
	s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: new(int64(50000)), Period: new(uint64(100000))}
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: new(int64(64 << 20))}
	c.made("kept", c.bundle(s))
	c.run("start", "kept")
	c.run("update", "--cpu-period", "200000", "kept")
	c.run("update", "--memory", "128m", "kept")
	data, err := os.ReadFile(filepath.Join(c.root, "kept", recordName))
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeRecord(data)
	if err != nil {
		t.Fatal(err)
	}
	cpu, mem := r.Spec.Linux.Resources.CPU, r.Spec.Linux.Resources.Memory
	if *cpu.Quota != 50000 || *cpu.Period != 200000 || *mem.Limit != 128<<20 {
		t.Errorf("remembered: %+v, %+v", cpu, mem)
	}
	if out := c.run("exec", "kept", "sh", "-c", "cat /sys/fs/cgroup/cpu.max 2>/dev/null || echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us)"); out != "50000 200000\n" {
		t.Errorf("in force: %q", out)
	}
}

func TestExecPersonality(t *testing.T) {
	c := newCLI(t)
	s := runtimetest.Spec("thirtytwo", "sleep", "1000")
	s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	c.made("thirtytwo", c.bundle(s))
	c.run("start", "thirtytwo")
	if out := c.run("exec", "thirtytwo", "cat", "/proc/self/personality"); out != "00000008\n" {
		t.Errorf("personality %q", out)
	}
}

// What cannot be given is told, and no reason to fail.
func TestUnknownCapability(t *testing.T) {
	c := newCLI(t)
	s := runtimetest.Spec("flies", "sh", "-c", "exit 0")
	s.Process.Capabilities.Ambient = []string{"CAP_FLY"}
	if out, err := c.try("run", "--bundle", c.bundle(s), "flies"); err != nil || !strings.Contains(out, "left out: CAP_FLY") {
		t.Errorf("%v: %s", err, out)
	}
}

// A child gets its descriptors, in a user namespace one for each mount, before it
// executes the launcher, which is behind one itself.
func TestManyDescriptors(t *testing.T) {
	c := newCLI(t)
	s := runtimetest.Spec("manyfds", "echo", "started")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{HostID: 200000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	for i := range 60 {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: fmt.Sprint("/tmp/", i), Type: "bind", Source: "/proc/self/status", Options: []string{"bind"}})
	}
	out, err := c.try("run", "--bundle", c.bundle(s), "manyfds")
	if err != nil || out != "started\n" {
		t.Errorf("%v: %s", err, out)
	}
}
