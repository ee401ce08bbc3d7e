//go:build root

package shim

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// Each test is named after the attacks it tries.

// A container writes to the program that entered it: the reaper, which runs as
// its process 1, and the shim itself. While a program runs the kernel lets nobody
// write to it; what keeps it from changing afterwards are its seals.
func TestCVE_2019_5736_OwnBinary(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	before := shimDigest(t, c)
	l := runtimetest.Launch(t, lower, "writer", "sh", "-c", "cat /proc/1/exe >/dev/null && echo open; echo evil > /proc/1/exe || echo no; cat /dev/null > /proc/1/exe || echo no")
	l.Init = true
	l.Spec.Process.Capabilities.Effective = append(l.Spec.Process.Capabilities.Effective, "CAP_SYS_PTRACE", "CAP_SYS_ADMIN")
	l.Spec.Process.Capabilities.Permitted, l.Spec.Process.Capabilities.Bounding = l.Spec.Process.Capabilities.Effective, l.Spec.Process.Capabilities.Effective
	if r := runBox(t, c, l); r.out != "open\nno\nno\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
	if !bytes.Equal(before, shimDigest(t, c)) {
		t.Error("the shim's program has changed")
	}
	l = runtimetest.Launch(t, lower, "reaped", "sleep", "1000")
	l.Init = true
	st, err := c.Start(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Kill(t.Context(), l.ID, "", 9, false); err != nil {
			t.Error(err)
		}
		var err error
		for range 200 {
			if err = c.Delete(t.Context(), l.ID); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error(err)
	}()
	for _, pid := range []int{st.PID, shimPID(t, c)} {
		sealed(t, pid)
	}
}

// sealed fails when the program of a process could be written to once it has
// ended, with all rights and its file open.
func sealed(t *testing.T, pid int) {
	t.Helper()
	f, err := os.Open("/proc/" + itoa(pid) + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const all = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if have, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || have&all != all {
		t.Errorf("process %d runs a program with the seals %#x: %v", pid, have, err)
	}
}

// The container's command is the program itself: an exec of it, which leaves it
// as it was.
func TestCVE_2019_5736_CommandIsTheBinary(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	before := shimDigest(t, c)
	if r, err := try(t, c, runtimetest.Launch(t, lower, "self", "/proc/self/exe")); err == nil && r.exit.Code == 0 {
		t.Errorf("the shim runs in a container: %q", r.out)
	}
	if !bytes.Equal(before, shimDigest(t, c)) {
		t.Error("the shim's program has changed")
	}
}

func shimPID(t *testing.T, c *Client) int {
	t.Helper()
	pid, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func shimDigest(t *testing.T, c *Client) []byte {
	t.Helper()
	data, err := os.ReadFile("/proc/" + itoa(shimPID(t, c)) + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return sum[:]
}

// The working directory is a descriptor of the host's.
func TestCVE_2024_21626_WorkingDirectory(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	for fd := 3; fd < 12; fd++ {
		l := runtimetest.Launch(t, lower, "leak", "sh", "-c", "ls ../../../../../../; pwd")
		l.Spec.Process.Cwd = "/proc/self/fd/" + itoa(fd)
		r, err := try(t, c, l)
		if err == nil && (strings.Contains(r.out, "work") || r.exit.Code == 0) {
			t.Errorf("descriptor %d: printed %q", fd, r.out)
		}
	}
}

// Places that mounts go to are links that lead out of the root.
func TestCVE_2021_30465_LinkedTargets(t *testing.T) {
	c := shimOf(t)
	outside := t.TempDir()
	for _, place := range []string{"proc", "sys", "dev"} {
		lower := runtimetest.Rootfs(t)
		if err := os.RemoveAll(filepath.Join(lower, place)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(lower, place)); err != nil {
			t.Fatal(err)
		}
		l := runtimetest.Launch(t, lower, "linked", "true")
		if _, err := try(t, c, l); err == nil {
			t.Errorf("it starts with a linked /%s", place)
		}
	}
	lower := runtimetest.Rootfs(t)
	secret := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(secret, []byte("mounted\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string]string{
		"etc/hosts": filepath.Join(outside, "hosts"), "etc/resolv.conf": "../../../../../.." + outside + "/resolv", "data": outside + "/deep/data",
	} {
		if err := os.Symlink(link, filepath.Join(lower, name)); err != nil {
			t.Fatal(err)
		}
	}
	l := runtimetest.Launch(t, lower, "linked", "cat", "/etc/hosts", "/etc/resolv.conf", "/data/file")
	for _, dest := range []string{"/etc/hosts", "/etc/resolv.conf", "/data/file"} {
		l.Spec.Mounts = append(l.Spec.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: secret, Options: []string{"rbind", "ro"}})
	}
	if r := runBox(t, c, l); r.out != "mounted\nmounted\nmounted\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("made outside of the root: %v, %v", left, err)
	}
}

// The image's device directory and null device are not what they seem.
func TestCVE_2025_31133_MaskedOverFakeNull(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	if err := os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(lower, "dev/null")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/sysrq-trigger", filepath.Join(lower, "dev/console")); err != nil {
		t.Fatal(err)
	}
	l := runtimetest.Launch(t, lower, "masked", "sh", "-c", "stat -c '%t:%T' /dev/null /proc/timer_list /dev/console")
	l.IO.TTY, l.Spec.Process.Terminal = true, true
	if r := runBox(t, c, l); !strings.HasPrefix(r.out, "1:3\r\n1:3\r\n88:") {
		t.Errorf("printed %q", r.out)
	}
}

// The container's root tries to change the host's null device, which it sees
// over masked files. Its stdin is a null device of its own.
func TestHostNullDevice(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	var before, after unix.Stat_t
	if err := unix.Stat("/dev/null", &before); err != nil {
		t.Fatal(err)
	}
	// 666 is what it has: a failing test does no harm.
	l := runtimetest.Launch(t, lower, "null", "sh", "-c",
		"for f in /proc/timer_list /proc/self/fd/0; do chmod 666 $f; chown 0:0 $f; touch -c $f; done; echo x >/proc/self/fd/0 && cat /proc/timer_list && echo works")
	r := runBox(t, c, l)
	if strings.Count(r.err, "Read-only file system") < 3 || r.out != "works\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
	if err := unix.Stat("/dev/null", &after); err != nil {
		t.Fatal(err)
	}
	if before.Ctim != after.Ctim {
		t.Error("the host's /dev/null was changed")
	}
}

// User files of the image are no files.
func TestCVE_2024_9676_UserFiles(t *testing.T) {
	c := shimOf(t)
	for name, make := range map[string]func(path string) error{
		"fifo":   func(p string) error { return unix.Mkfifo(p, 0o644) },
		"device": func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) },
		"huge":   func(p string) error { return os.Truncate(create(p), 10<<30) },
		"link":   func(p string) error { return os.Symlink("/proc/self/environ", p) },
	} {
		t.Run(name, func(t *testing.T) {
			lower := runtimetest.Rootfs(t)
			path := filepath.Join(lower, "etc/passwd")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			l := runtimetest.Launch(t, lower, "users", "true")
			l.User = &runtime.User{Spec: "joe"}
			if _, err := try(t, c, l); err == nil {
				t.Error("it starts")
			} else {
				t.Log(err)
			}
		})
	}
}

func create(path string) string {
	_ = os.WriteFile(path, nil, 0o644)
	return path
}

// Supplementary groups and inheritable capabilities, for a matrix of users.
func TestCVE_2022_24769_Credentials(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	for spec, want := range map[string]string{
		"":          "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0 \nCapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n",
		"joe":       "Uid:\t1000\t1000\t1000\t1000\nGid:\t1001\t1001\t1001\t1001\nGroups:\t10 1001 \nCapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n",
		"1000:20":   "Uid:\t1000\t1000\t1000\t1000\nGid:\t20\t20\t20\t20\nGroups:\t20 \nCapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n",
		"7:8":       "Uid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t8 \nCapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n",
		"joe:wheel": "Uid:\t1000\t1000\t1000\t1000\nGid:\t10\t10\t10\t10\nGroups:\t10 \nCapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n",
	} {
		l := runtimetest.Launch(t, lower, "creds", "grep", "-E", "^(Uid|Gid|Groups|CapInh|CapAmb)", "/proc/self/status")
		l.User = &runtime.User{Spec: spec}
		if r := runBox(t, c, l); r.out != want {
			t.Errorf("%q: printed %q, want %q", spec, r.out, want)
		}
	}
}
