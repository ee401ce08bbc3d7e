//go:build root

package shim

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// begin starts a container that stays until the test ends.
func begin(t *testing.T, c *Client, l *runtime.Launch) runtime.Started {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Start(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Kill(ctx, l.ID, "", 9, true)
		for e := range exits {
			if e.ID == l.ID && e.ExecID == "" {
				break
			}
		}
		if err := c.Delete(ctx, l.ID); err != nil {
			t.Error(err)
		}
	})
	return st
}

// execBox runs one more process and returns what it printed and how it ended.
func execBox(t *testing.T, c *Client, e *runtime.Exec) (string, runtime.Exit) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Attach(ctx, e.ContainerID, e.ExecID, runtime.Attach{Stdout: true, Stderr: true}, e.IO, runtime.Log{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := c.Exec(ctx, e); err != nil {
		t.Fatal(err)
	}
	var out string
	if e.IO.TTY {
		b, rerr := io.ReadAll(s)
		out, err = string(b), rerr
	} else {
		out, _, err = runtimetest.Demux(s)
	}
	if err != nil {
		t.Error(err)
	}
	for x := range exits {
		if x.ID == e.ContainerID && x.ExecID == e.ExecID {
			return out, x
		}
	}
	t.Fatal("no exit")
	return "", runtime.Exit{}
}

func TestExecInside(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	l := runtimetest.Launch(t, lower, "host", "sleep", "1000")
	l.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	st := begin(t, c, l)
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"unshare"}, Action: specs.ActErrno}}}
	for i, tc := range []struct {
		script, want string
		change       func(*runtime.Exec)
	}{
		{"ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 ", nil},
		{"hostname; readlink /proc/self/root; cat /proc/1/cmdline | tr '\\0' ' '", "boxed\n/\nsleep 1000 ", nil},
		{"for n in pid mnt net ipc uts cgroup; do test \"$(readlink /proc/self/ns/$n)\" = \"$(readlink /proc/1/ns/$n)\" && printf y; done", "yyyyyy", nil},
		{"cmp -s /proc/1/cgroup /proc/self/cgroup || test \"$(cat /proc/1/cgroup)\" = \"$(cat /proc/self/cgroup)\" && echo same", "same\n", nil},
		{"id -u; id -G; echo $HOME", "1000\n1001 10\n/home/joe\n", func(e *runtime.Exec) { e.User = &runtime.User{Spec: "joe"} }},
		{"unshare -n true 2>&1 | grep -c 'not permitted'", "1\n", func(e *runtime.Exec) { e.Seccomp = profile }},
		{"grep -E 'CapEff|CapInh' /proc/self/status", "CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\n", nil},
		{"tty; stty size", "/dev/pts/0\r\n10 20\r\n", func(e *runtime.Exec) { e.IO.TTY, e.IO.Console = true, [2]uint{10, 20} }},
		{"cat /proc/self/personality", "00000008\n", nil}, // remembered by the shim
		{"echo flies not", "flies not\n", func(e *runtime.Exec) {
			e.Process.Capabilities = &specs.LinuxCapabilities{Effective: []string{"CAP_FLY"}, Bounding: []string{"CAP_FLY"}}
		}},
		{"pwd", "/tmp\n", func(e *runtime.Exec) { e.Process.Cwd = "/tmp" }},
	} {
		p := *l.Spec.Process
		p.Args = []string{"sh", "-c", tc.script}
		e := &runtime.Exec{ContainerID: l.ID, ExecID: fmt.Sprintf("e%d", i), Process: &p}
		if tc.change != nil {
			tc.change(e)
		}
		if out, x := execBox(t, c, e); out != tc.want || x.Code != 0 && out != "1\n" {
			t.Errorf("%s: printed %q, want %q (%+v)", tc.script, out, tc.want, x)
		}
	}
	// It is in the container's control group, as the host sees it.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", st.PID))
	if err != nil || strings.Contains(string(text), ":memory:/\n") || !strings.Contains(string(text), runtimetest.CgroupParent()+"/host") {
		t.Errorf("%s, %v", text, err)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list[0].Execs) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Containers share what they are told to.
func TestSharedNamespaces(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	st := begin(t, c, runtimetest.Launch(t, lower, "first", "sleep", "1000"))
	l := runtimetest.Launch(t, lower, "second", "sh", "-c", "hostname other; hostname; ps -o pid,args | grep -c 'sleep 100[0]'; readlink /proc/self/ns/net")
	for i, n := range l.Spec.Linux.Namespaces {
		switch n.Type {
		case specs.PIDNamespace, specs.UTSNamespace, specs.IPCNamespace, specs.NetworkNamespace:
			l.Spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", st.PID, map[specs.LinuxNamespaceType]string{
				specs.PIDNamespace: "pid", specs.UTSNamespace: "uts", specs.IPCNamespace: "ipc", specs.NetworkNamespace: "net",
			}[n.Type])
		}
	}
	l.Spec.Hostname = ""
	net, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", st.PID))
	if err != nil {
		t.Fatal(err)
	}
	if r := runBox(t, c, l); r.out != "boxed\n1\n"+net+"\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
}

// A namespace of control groups is joined by who is born in a group outside it.
func TestSharedControlGroups(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	st := begin(t, c, runtimetest.Launch(t, lower, "first", "sleep", "1000"))
	path := fmt.Sprintf("/proc/%d/ns/cgroup", st.PID)
	want, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	second := func(id string) *runtime.Launch {
		l := runtimetest.Launch(t, lower, id, "readlink", "/proc/self/ns/cgroup")
		l.Spec.Linux.Namespaces = slices.DeleteFunc(l.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
		l.Spec.Linux.Namespaces = append(l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace, Path: path})
		return l
	}
	if r := runBox(t, c, second("second")); r.out != want+"\n" {
		t.Errorf("printed %q, %q, want %s", r.out, r.err, want)
	}
	l := second("mapped")
	l.Spec.Linux.Namespaces = append(l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.Spec.Mounts = slices.DeleteFunc(l.Spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" }) // not its root's to mount
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	l.Spec.Linux.UIDMappings, l.Spec.Linux.GIDMappings = ids, ids
	r, err := try(t, c, l)
	switch {
	case err == nil && r.out == want+"\n":
	case err != nil && errs.Is(err, errs.Unsupported) && strings.Contains(err.Error(), "nsdelegate"):
	default:
		t.Errorf("with a user namespace: %q, %q, %v", r.out, r.err, err)
	}
}

// A network namespace comes as a descriptor.
func TestPassedNetwork(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	path := fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	want, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	l := runtimetest.Launch(t, lower, "net", "sh", "-c", "readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_forward")
	l.NetNS = ns
	l.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	if r := runBox(t, c, l); r.out != want+"\n1\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
}

// The reaper passes signals on and ends as its child does.
func TestReaperSignals(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for sig, script := range map[int]string{15: "echo up; while :; do sleep 0.01; done", 10: "trap 'exit 33' USR1; echo up; while :; do sleep 0.01; done"} {
		l := runtimetest.Launch(t, lower, "reaper", "sh", "-c", script)
		l.Init = true
		s, err := c.Attach(ctx, l.ID, "", runtime.Attach{Stdout: true}, l.IO, l.Log)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Start(ctx, l); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 11)); err != nil {
			t.Fatal(err)
		}
		if err := c.Kill(ctx, l.ID, "", sig, false); err != nil {
			t.Fatal(err)
		}
		if e := <-exits; e.Code != map[int]int{15: 143, 10: 33}[sig] {
			t.Errorf("signal %d: exit %+v", sig, e)
		}
		_ = s.Close()
		if err := c.Delete(ctx, l.ID); err != nil {
			t.Error(err)
		}
	}
}

// Layers beyond what one page of options holds, with long paths.
func TestManyLayers(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	l := runtimetest.Launch(t, lower, "layers", "sh", "-c", "ls / | grep -c layer; cat /top")
	dir := t.TempDir() + "/" + strings.Repeat("long/", 60)
	var layers []string
	for i := range 100 {
		d := fmt.Sprintf("%s%d", dir, i)
		if err := os.MkdirAll(fmt.Sprintf("%s/layer%d", d, i), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d+"/top", fmt.Appendf(nil, "%d\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
		layers = append(layers, d)
	}
	l.Rootfs.Lower = append(layers, lower)
	if r := runBox(t, c, l); r.out != "100\n0\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
	l = runtimetest.Launch(t, lower, "layers", "sh", "-c", "touch /x 2>/dev/null || echo no")
	l.Rootfs = &runtime.Rootfs{Lower: append(layers[:3:3], lower)}
	if r := runBox(t, c, l); r.out != "no\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
	l = runtimetest.Launch(t, lower, "layers", "sh", "-c", "echo bound")
	l.Rootfs = &runtime.Rootfs{Bind: lower}
	if r := runBox(t, c, l); r.out != "bound\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
}
