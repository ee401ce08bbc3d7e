//go:build root

package runtimetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/mnt/mnttest"
)

const isolated = "SKIFF_TEST_ISOLATED"

// Isolate runs the tests in mount and network namespaces of their own, so that
// nothing they forget stays on the host.
func Isolate(m *testing.M) int {
	if os.Getenv(isolated) == "" {
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), isolated+"=1")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
		if err := c.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if err := mnttest.OwnRoot(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Run directories are on tmpfs in life too; it also goes away with us.
	dir, err := os.MkdirTemp("", "skiff-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Getenv("SKIFF_TEST_ON_DISK") != "" { // for what a kernel's tmpfs cannot do
		defer func() { _ = os.RemoveAll(dir) }()
		_ = os.Setenv("TMPDIR", dir)
		return m.Run()
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH); _ = os.Remove(dir) }()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=1777"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = os.Setenv("TMPDIR", dir)
	return m.Run()
}

// CgroupParent is the control group of this test process's containers.
func CgroupParent() string { return "/skiff-test-" + strconv.Itoa(os.Getpid()) }

// RemoveCgroupParent removes it, and tells what is left in it.
func RemoveCgroupParent() error {
	// Other runtimes make groups of version 2 also where nothing is limited by them.
	v2 := "/sys/fs/cgroup/unified" + CgroupParent()
	err := os.Remove(v2)
	for range 500 { // a runtime may still be about to remove what is in it
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		err = os.Remove(v2)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	sys, err := cgroup.Detect()
	if err != nil {
		return err
	}
	g, err := sys.Open(CgroupParent())
	if err != nil {
		return err
	}
	for range 500 { // what is below it may still be going
		if err = g.Delete(); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// Rootfs makes a root file system of busybox in a new directory.
func Rootfs(t testing.TB) string {
	t.Helper()
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("busybox-static is not installed")
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp", "root", "home/joe"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1001:Joe:/home/joe:/bin/sh\n",
		"etc/group":  "root:x:0:\nstaff:x:1001:\nwheel:x:10:joe\nextra:x:20:\n",
		"etc/plain":  "text\n",
		"bin/broken": "not a program",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "bin/broken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), box, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh true false echo cat sleep ls id hostname mount stty tty ps touch mkdir grep head dd env pwd ulimit unshare kill yes readlink stat seq test sysctl wc nproc umount chroot tr cut nc") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var defaultCaps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// Launch is a container as docker makes it, on a fresh overlay over lower.
func Launch(t testing.TB, lower, id string, args ...string) *runtime.Launch {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &runtime.Launch{
		ID:     id,
		Spec:   Spec(id, args...),
		Rootfs: &runtime.Rootfs{Lower: []string{lower}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Volatile: true},
		Log:    runtime.Log{Driver: "none"},
	}
}

// Spec is a specification as docker's defaults make it.
func Spec(id string, args ...string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Args: args, Cwd: "/",
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: defaultCaps, Effective: defaultCaps, Permitted: defaultCaps},
		},
		Root:     &specs.Root{},
		Hostname: "boxed",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: CgroupParent() + "/" + id,
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.CgroupNamespace},
			},
			MaskedPaths:   []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}
