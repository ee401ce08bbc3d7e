//go:build root

package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mobyseccomp "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// park has the box started from a parked child, in a group that is renamed. What
// the test does before is between the two.
func (b *box) park(meanwhile func(pid int)) {
	b.t.Helper()
	if b.h.Cgroups.Unified() {
		b.t.Skip("control groups of version 2 cannot be renamed")
	}
	from, err := b.h.Cgroups.Open(b.l.Spec.Linux.CgroupsPath + "-parked")
	if err != nil {
		b.t.Fatal(err)
	}
	to, err := b.h.Cgroups.Open(b.l.Spec.Linux.CgroupsPath)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := from.Create(); err != nil {
		b.t.Fatal(err)
	}
	if b.o.Parked, err = b.h.Park(from); err != nil {
		b.t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile(b.o.Parked.PID())
	}
	if err := from.Rename(to); err != nil {
		b.t.Fatal(err)
	}
}

// Whether a container was parked cannot be told from the inside.
func TestParkedIsTheSame(t *testing.T) {
	profile, err := mobyseccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	const script = `
hostname; id; pwd; umask; env | sort
cat /proc/self/cgroup
grep -E 'Cap|NoNew|Seccomp|Groups|Uid|Gid|NSpid|Sig[BIC]|Cpus_allowed:' /proc/1/status
cat /proc/1/limits /proc/1/oom_score_adj /proc/1/timerslack_ns
cut -d' ' -f3- /proc/self/mountinfo | sed 's/ [0-9]*:[0-9]* / /;s/^[^ ]* //;s/upperdir.*//;s/lowerdir.*//'
for n in cgroup ipc mnt net pid uts; do test /proc/1/ns/$n -ef /proc/self/ns/$n && echo one $n; done
ls /proc/1/fd; ls /proc/1/task; ls -l /dev; cat /proc/net/dev | wc -l; ls /sys/class/net
cat /proc/sys/kernel/hostname /proc/sys/kernel/shmmax; cat /proc/1/sessionid /proc/1/stat | cut -d' ' -f4-8`
	var printed, namespaces [2]string
	for i := range printed {
		b := newBox(t, script)
		b.l.ID, b.l.Spec.Linux.CgroupsPath = "same", filepath.Dir(b.l.Spec.Linux.CgroupsPath)+"/same"
		b.l.Spec.Linux.Seccomp = profile
		if i == 1 {
			b.park(nil)
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"ipc", "mnt", "net", "pid", "uts"} {
			link, _ := os.Readlink("/proc/" + itoa(b.child.PID) + "/ns/" + n)
			own, _ := os.Readlink("/proc/self/ns/" + n)
			if link == own {
				namespaces[i] += " " + n
			}
		}
		if i == 1 && b.child.Mounts == nil {
			t.Error("the mount namespace was not handed over")
		}
		if m := b.child.Mounts; m != nil {
			_ = m.Close()
		}
		if code := b.wait(); code != 0 {
			t.Fatalf("exit code %d: %s", code, b.err.String())
		}
		printed[i] = b.out.String()
		if err := b.group.Delete(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(printed[0], printed[1]); diff != "" {
		t.Errorf("cloned and parked: %s", diff)
	}
	if namespaces[0] != namespaces[1] {
		t.Errorf("shared with the launcher: %q cloned, %q parked", namespaces[0], namespaces[1])
	}
}

// A parked child has nothing but its socket, nobody can look into it, and it is
// gone with who made it.
func TestParkedHasNothing(t *testing.T) {
	b := newBox(t, "true")
	b.park(func(pid int) {
		dir := "/proc/" + itoa(pid)
		waitUntil(t, func() bool { // it is not dumpable: root's, whoever's it was
			maps, err := os.ReadFile(dir + "/wchan")
			return err == nil && strings.Contains(string(maps), "unix_stream")
		})
		entries, err := os.ReadDir(dir + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, e := range entries {
			link, _ := os.Readlink(dir + "/fd/" + e.Name())
			if mine, _ := os.Readlink("/proc/self/fd/" + e.Name()); mine == link {
				continue // whoever runs this test lets everybody inherit it
			}
			have = append(have, e.Name()+" "+strings.SplitN(link, ":", 2)[0])
		}
		if want := []string{"0 /", "1 /", "2 /", "3 socket"}; !slices.Equal(have, want) {
			t.Errorf("it has %q, want %q", have, want)
		}
		mine, _ := os.Readlink("/proc/self/ns/mnt")
		its, err := os.Readlink(dir + "/ns/mnt")
		if err != nil || its != mine {
			t.Errorf("mount namespace %s (%v), want the parent's %s: it would hold what is unmounted", its, err, mine)
		}
	})
	p := b.o.Parked
	fd, err := unix.PidfdOpen(p.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	p.child.Abort() // as if this process had been killed
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000); n != 1 || err != nil {
		t.Errorf("it still lives: %v", err)
	}
	if p.Alive() {
		t.Error("a dead one is said to be alive")
	}
	p.End()
	b.o.Parked = nil
	g, err := b.h.Cgroups.Open(b.l.Spec.Linux.CgroupsPath)
	if err == nil {
		err = g.Delete()
	}
	if err != nil {
		t.Error(err)
	}
}

// What is refused of a cloned one is refused of a parked one; it is not used
// again.
func TestParkedFails(t *testing.T) {
	b := newBox(t, "true")
	b.l.Spec.Process.Args = []string{"/no/such"}
	b.park(nil)
	b.fails("no such file")
	b.o.Parked = nil
}

func TestRenameGroup(t *testing.T) {
	h := host(t)
	if h.Cgroups.Unified() {
		t.Skip("control groups of version 2 cannot be renamed")
	}
	b := newBox(t, "true")
	from, err := h.Cgroups.Open(b.l.Spec.Linux.CgroupsPath + "-from")
	if err != nil {
		t.Fatal(err)
	}
	to, err := h.Cgroups.Open(b.l.Spec.Linux.CgroupsPath + "-to")
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Create(); err != nil {
		t.Fatal(err)
	}
	if err := to.Create(); err != nil {
		t.Fatal(err)
	}
	if err := from.Rename(to); err == nil {
		t.Error("renamed over another group")
	}
	if !from.Exists() || !to.Exists() {
		t.Error("a group is gone")
	}
	if err := from.Delete(); err != nil {
		t.Error(err)
	}
	if err := to.Delete(); err != nil {
		t.Error(err)
	}
}

func TestParkable(t *testing.T) {
	for name, change := range map[string]func(b *box){
		"user namespace":    func(b *box) { b.addNamespace("user", "") },
		"time namespace":    func(b *box) { b.addNamespace("time", "") },
		"shared processes":  func(b *box) { b.setNamespace("pid", "/proc/self/ns/pid") },
		"joined mounts":     func(b *box) { b.setNamespace("mount", "/proc/self/ns/mnt") },
		"hooks":             func(b *box) { b.l.Spec.Hooks = &specs.Hooks{} },
		"network interface": func(b *box) { b.l.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth9": {}} },
		"idmapped mount": func(b *box) {
			b.l.Spec.Mounts = append(b.l.Spec.Mounts, specs.Mount{UIDMappings: []specs.LinuxIDMapping{{Size: 1}}})
		},
	} {
		b := newBox(t, "true")
		if !Parkable(b.l, nil) {
			t.Error("a plain container cannot be parked")
		}
		if change(b); Parkable(b.l, nil) {
			t.Errorf("%s: parked", name)
		}
	}
}

func (b *box) addNamespace(kind specs.LinuxNamespaceType, path string) {
	b.l.Spec.Linux.Namespaces = append(b.l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

func (b *box) setNamespace(kind specs.LinuxNamespaceType, path string) {
	for i, n := range b.l.Spec.Linux.Namespaces {
		if n.Type == kind {
			b.l.Spec.Linux.Namespaces[i].Path = path
		}
	}
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited in vain")
}
