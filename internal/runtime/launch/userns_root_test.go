//go:build root

package launch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

const shifted = 200000

// inUserNS gives a box a user namespace of its own.
func inUserNS(b *box) {
	l := b.l.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: shifted, Size: 65536}}
	l.GIDMappings = l.UIDMappings
	if mapsOwners(b.t, b.t.TempDir()) || b.l.Rootfs.Bind != "" {
		return
	}
	// Where the tests' layers cannot be mapped, the root has other owners instead.
	root := b.l.Rootfs.Lower[0]
	b.l.Rootfs = &runtime.Rootfs{Bind: root}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, shifted, shifted)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// mapsOwners tells whether owners can be mapped on the file system of a directory.
func mapsOwners(t testing.TB, dir string) bool {
	t.Helper()
	ids := []specs.LinuxIDMapping{{HostID: shifted, Size: 10}}
	ns, err := userns.New(userns.Map{UIDs: ids, GIDs: ids})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(ns) }()
	fd, err := mnt.Clone(unix.AT_FDCWD, dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	return mnt.MapOwners(fd, ns, false) == nil
}

func needMaps(t *testing.T, dir string) {
	t.Helper()
	if !mapsOwners(t, dir) {
		t.Skip("this kernel cannot map owners on the tests' file system: a tmpfs from 6.3 on")
	}
}

func TestUserNamespace(t *testing.T) {
	b := newBox(t, `
cat /proc/self/uid_map | tr -s ' '
id -u; id -g
stat -c %u /bin/busybox /dev/null /dev/pts/ptmx /dev/mqueue
echo x > /made && stat -c %u /made
echo x > /dev/null && hostname && touch /dev/shm/x && ls /sys/class/net && test -c /dev/full && readlink /dev/fd
mount -t tmpfs none /tmp && echo mounted
cat /proc/self/oom_score_adj; ulimit -n; ls /sys/fs/cgroup | grep -c .`)
	inUserNS(b)
	s := b.l.Spec
	s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
	s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = s.Process.Capabilities.Bounding, s.Process.Capabilities.Bounding
	adj := 77
	s.Process.OOMScoreAdj = &adj
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 333, Hard: 555}}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Linux.Seccomp = profile
	out, err := b.run()
	if want := fmt.Sprintf(" 0 %d 65536\n0\n0\n0\n0\n0\n0\n0\nboxed\nlo\n/proc/self/fd\nmounted\n77\n333\n", shifted); err != nil || !strings.HasPrefix(out, want) || out == want {
		t.Errorf("printed %q, %q, want %q: %v", out, b.err.String(), want, err)
	}
	// What it made is stored as root's: layers hold the container's view.
	if b.l.Rootfs.Bind != "" {
		return
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(b.l.Rootfs.Upper, "made"), &st); err != nil || st.Uid != 0 {
		t.Errorf("stored as %d's: %v", st.Uid, err)
	}
}

func TestUserNamespaceUserAndTerminal(t *testing.T) {
	b := newBox(t, "id -u; tty; stat -c %u /dev/console; echo out > /dev/stdout")
	inUserNS(b)
	b.l.User = &runtime.User{Spec: "joe"}
	b.l.IO.TTY = true
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	var out string
	for {
		n, err := b.console.Read(buf)
		if out += string(buf[:n]); err != nil {
			break
		}
	}
	b.wait()
	if out != "1000\r\n/dev/pts/0\r\n1000\r\nout\r\n" {
		t.Errorf("printed %q", out)
	}
}

func TestUserNamespaceOwnsItsStreams(t *testing.T) {
	b := newBox(t, "echo again > /dev/stdout; echo no > /dev/stderr")
	inUserNS(b)
	b.l.Spec.Process.User = specs.User{UID: 1000, GID: 1001}
	b.prints("again\n")
	if b.err.String() != "no\n" {
		t.Errorf("stderr %q", b.err.String())
	}
}

// A directory that only the host's root can look into still is a mount's source,
// and the root of a directory is used as it is.
func TestUserNamespaceSources(t *testing.T) {
	needMaps(t, t.TempDir())
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.MkdirAll(filepath.Join(secret, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secret, "data", "file"), []byte("text\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, "cat /mnt/file; stat -c %u /mnt/file /map/file; stat -c %u /bin/busybox; touch /ro/x || echo ro")
	inUserNS(b)
	source := filepath.Join(secret, "data")
	if err := os.Chmod(source, 0o755); err != nil {
		t.Fatal(err)
	}
	b.l.Spec.Mounts = append(b.l.Spec.Mounts,
		specs.Mount{Destination: "/mnt", Type: "bind", Source: source, Options: []string{"rbind"}},
		specs.Mount{Destination: "/map", Type: "bind", Source: source, Options: []string{"bind", "idmap"}},
		specs.Mount{Destination: "/ro", Type: "bind", Source: source, Options: []string{"bind", "idmap", "ro"}})
	b.l.Rootfs = &runtime.Rootfs{Bind: b.l.Rootfs.Lower[0]}
	b.prints("text\n65534\n0\n65534\nro\n")
}

func TestUserNamespaceNetworkOfOthers(t *testing.T) {
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	ns, err := os.Open("/proc/" + itoa(holder.Process.Pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	b := newBox(t, "ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
	inUserNS(b)
	b.l.NetNS = ns
	b.l.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	b.prints("lo\n0\n")
}

func TestUserNamespaceRefusals(t *testing.T) {
	b := newBox(t, "true")
	inUserNS(b)
	b.l.Spec.Linux.GIDMappings = nil
	b.fails("needs mappings")
	b = newBox(t, "true")
	inUserNS(b)
	b.l.Spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 1000, HostID: shifted, Size: 10}}
	b.fails("must map root")
	b = newBox(t, "true")
	inUserNS(b)
	b.l.Spec.Linux.UIDMappings = append(b.l.Spec.Linux.UIDMappings, b.l.Spec.Linux.UIDMappings[0])
	b.fails("mappings")
	b = newBox(t, "true")
	b.l.Spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: shifted, Size: 10}}
	b.fails("without a user namespace")
	b = newBox(t, "true")
	inUserNS(b)
	b.l.Spec.Process.User = specs.User{UID: 70000}
	b.fails("invalid argument") // no such id there
}

// A second container shares the first one's namespaces, by path.
func TestUserNamespaceJoined(t *testing.T) {
	first := newBox(t, "sleep 1000")
	inUserNS(first)
	if err := first.start(); err != nil {
		t.Fatal(err)
	}
	second := newBox(t, "readlink /proc/self/ns/user; id -u; hostname; echo $$; stat -c %u /bin/busybox")
	inUserNS(second)
	dir := fmt.Sprintf("/proc/%d/ns/", first.child.PID)
	second.l.Spec.Hostname = ""
	list := second.l.Spec.Linux.Namespaces
	for i := range list {
		switch list[i].Type {
		case specs.UserNamespace:
			list[i].Path = dir + "user"
		case specs.UTSNamespace:
			list[i].Path = dir + "uts"
		}
	}
	user, err := os.Readlink(dir + "user")
	if err != nil {
		t.Fatal(err)
	}
	second.prints(user + "\n0\nboxed\n1\n0\n")

	other := newBox(t, "true")
	other.l.Spec.Linux.Namespaces = list
	other.l.Spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: shifted + 1, Size: 65536}}
	other.l.Spec.Linux.GIDMappings = other.l.Spec.Linux.UIDMappings
	other.l.Spec.Hostname = ""
	other.l.Rootfs = &runtime.Rootfs{Bind: other.l.Rootfs.Lower[0]}
	other.fails("maps other ids")
}

// One more process in a user namespace, whose first one might try to follow the
// launcher to the host.
func TestCVE_2016_9962_ExecInUserNamespace(t *testing.T) {
	b := newBox(t, "sleep 1000")
	inUserNS(b)
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	adj := 33
	p := &specs.Process{
		Args: []string{"sh", "-c", "id -u; hostname; readlink /proc/self/ns/user; ls /proc/self/fd | tr '\\n' ' '; cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/self/oom_score_adj; grep CapEff /proc/self/status"},
		Env:  b.l.Spec.Process.Env, Cwd: "/", Capabilities: b.l.Spec.Process.Capabilities, OOMScoreAdj: &adj,
	}
	user, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", b.child.PID))
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.exec(p, nil)
	if want := "0\nboxed\n" + user + "\n0 1 2 3 sleep 1000 33\nCapEff:\t00000000a80425fb\n"; err != nil || !strings.Contains(strings.Replace(out, "sh -c sleep 1000", "sleep 1000", 1), want) {
		t.Errorf("printed %q, want %q: %v", out, want, err)
	}
	p.User = specs.User{UID: 70000}
	if _, err := b.exec(p, nil); err == nil || !strings.Contains(err.Error(), "invalid argument") {
		t.Errorf("error is %v", err)
	}
}

// A process of the container, which may trace all of its user namespace, looks
// at what enters: it sees nothing. Without a user namespace that right is the
// host's, and shows it the host, so the spy is not blind.
func TestCVE_2016_9962_SpyInUserNamespace(t *testing.T) {
	for _, user := range []bool{true, false} {
		mark := filepath.Join(t.TempDir(), "mark")
		if err := os.WriteFile(mark, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		b := newBox(t, "met=; saw=; while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] && continue; [ $met ] || { met=1; echo met; }; "+
			"[ -z $saw ] && [ -e $p/root"+mark+" ] && saw=1 && echo SAW the host; done; done")
		for _, set := range []*[]string{&b.l.Spec.Process.Capabilities.Effective, &b.l.Spec.Process.Capabilities.Permitted, &b.l.Spec.Process.Capabilities.Bounding} {
			*set = append(slices.Clone(*set), "CAP_SYS_PTRACE")
		}
		if user {
			inUserNS(b)
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		p := &specs.Process{Args: []string{"true"}, Env: b.l.Spec.Process.Env, Cwd: "/", Capabilities: b.l.Spec.Process.Capabilities}
		for range 20 {
			if _, err := b.exec(p, nil); err != nil {
				t.Fatal(err)
			}
		}
		_ = unix.PidfdSendSignal(b.child.PidFD, unix.SIGKILL, nil, 0)
		b.wait()
		out := b.out.String()
		saw := strings.Contains(out, "SAW the host")
		if !strings.Contains(out, "met") || saw == user {
			t.Errorf("user namespace %v: the spy saw %v: %.300q", user, saw, out)
		}
	}
}
