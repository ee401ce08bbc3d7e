//go:build root

package shim

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// result is what became of one container.
type result struct {
	out, err string
	exit     runtime.Exit
}

// runBox runs a container to its end and deletes it.
func runBox(t testing.TB, c *Client, l *runtime.Launch) result {
	t.Helper()
	r, err := try(t, c, l)
	if err != nil {
		t.Fatalf("%v: %v", l.Spec.Process.Args, err)
	}
	return r
}

func try(t testing.TB, c *Client, l *runtime.Launch) (r result, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Attach(ctx, l.ID, "", runtime.Attach{Stdout: true, Stderr: true}, l.IO, l.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := c.Start(ctx, l); err != nil {
		return r, err
	}
	if l.IO.TTY {
		b := new(strings.Builder)
		if _, err := copyAll(b, s); err != nil {
			t.Error(err)
		}
		r.out = b.String()
	} else if r.out, r.err, err = runtimetest.Demux(s); err != nil {
		t.Error(err)
	}
	for e := range exits {
		if e.ID == l.ID && e.ExecID == "" {
			r.exit = e
			break
		}
	}
	if err := c.Delete(ctx, l.ID); err != nil {
		t.Error(err)
	}
	return r, nil
}

func TestInside(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	limit := int64(1)
	none := func(*runtime.Launch) {}
	for _, tc := range []struct {
		name, script, want string
		change             func(*runtime.Launch)
	}{
		{"has no descriptor but its streams", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 ", none}, // 3 is ls's own
		{"is process 1", "echo $$", "1\n", none},
		{"has its own host name", "hostname", "boxed\n", none},
		{"has docker's devices", "ls /dev | tr '\\n' ' '", "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ", none},
		{"cannot write parameters", "echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo no", "no\n", none},
		{"cannot read masked files", "wc -c < /proc/timer_list; ls /sys/firmware | wc -l", "0\n0\n", none},
		{"cannot write control groups", "mkdir /sys/fs/cgroup/memory/x 2>/dev/null || mkdir /sys/fs/cgroup/x 2>/dev/null || echo no", "no\n", none},
		{"sees its group as the root", "grep -c -v '/$' /proc/self/cgroup", "0\n", none},
		{"has an empty inheritable set", "grep CapInh /proc/self/status", "CapInh:\t0000000000000000\n", none},
		{"has docker's capabilities", "grep -E 'CapEff|CapBnd' /proc/self/status", "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n", none},
		{
			"has no capability as a user", "grep -E 'CapEff|CapPrm' /proc/self/status; id", "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nuid=1000(joe) gid=1001(staff) groups=10(wheel),1001(staff)\n",
			func(l *runtime.Launch) { l.User = &runtime.User{Spec: "joe"} },
		},
		{"is at home", "echo $HOME", "/home/joe\n", func(l *runtime.Launch) { l.User = &runtime.User{Spec: "joe"} }},
		{"has added groups", "id -G", "1001 10 20\n", func(l *runtime.Launch) { l.User = &runtime.User{Spec: "joe", Groups: []string{"extra"}} }},
		{"may open its own output as a user", "echo ok > /dev/stdout", "ok\n", func(l *runtime.Launch) { l.User = &runtime.User{Spec: "joe"} }},
		{"is in its working directory", "pwd", "/made/here\n", func(l *runtime.Launch) { l.Spec.Process.Cwd = "/made/here" }},
		{"cannot write a read-only root", "touch /x 2>/dev/null || echo no; touch /dev/shm/y && echo yes", "no\nyes\n", func(l *runtime.Launch) { l.Spec.Root.Readonly = true }},
		{"is confined by seccomp", "unshare -n true 2>&1 | grep -c 'not permitted'; grep Seccomp: /proc/self/status", "1\nSeccomp:\t2\n", func(l *runtime.Launch) { l.Spec.Linux.Seccomp = profile }},
		{
			"is confined without privileges to gain", "grep NoNewPrivs /proc/self/status; unshare -n true 2>&1 | grep -c 'not permitted'", "NoNewPrivs:\t1\n1\n",
			func(l *runtime.Launch) { l.Spec.Linux.Seccomp, l.Spec.Process.NoNewPrivileges = profile, true },
		},
		{"may have one process only", "(true) 2>/dev/null && echo forked; echo done", "", func(l *runtime.Launch) {
			l.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
			l.Spec.Process.Args = []string{"true"}
		}},
		{"has the limits asked for", "ulimit -n", "99\n", func(l *runtime.Launch) {
			l.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 99}}
		}},
		{"has its parameters", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", "1\n4321\n", func(l *runtime.Launch) {
			l.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321"}
		}},
		{"has its score", "cat /proc/self/oom_score_adj", "321\n", func(l *runtime.Launch) { n := 321; l.Spec.Process.OOMScoreAdj = &n }},
		{"has a terminal", "tty; stty size; test -e /dev/console && echo console", "/dev/pts/0\r\n33 44\r\nconsole\r\n", func(l *runtime.Launch) {
			l.IO.TTY, l.Spec.Process.Terminal, l.IO.Console = true, true, [2]uint{33, 44}
		}},
		{"has a reaper", "tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1-3; (sleep 0.01 &); sleep 0.05; ps -o stat | grep -c Z", "skiff-init -- /bin/sh\n0\n", func(l *runtime.Launch) { l.Init = true }},
		{"has its devices", "ls -l /dev/my/null | tr -s ' ' | cut -d' ' -f1,5,6; echo x > /dev/my/null && echo ok", "crw-r----- 1, 3\nok\n", func(l *runtime.Launch) {
			mode := os.FileMode(0o640)
			l.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/my/null", Type: "c", Major: 1, Minor: 3, FileMode: &mode}}
		}},
		{"cannot use other devices", "cat /dev/kmsg 2>&1 | grep -c 'not permitted'", "1\n", func(l *runtime.Launch) {
			l.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
		}},
		{"has a temporary file system", "mount | grep ' /scratch ' | cut -d' ' -f1-5; stat -c %a /scratch", "tmpfs on /scratch type tmpfs\n700\n", func(l *runtime.Launch) {
			l.Spec.Mounts = append(l.Spec.Mounts, specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec", "size=1m", "mode=700"}})
		}},
		{"keeps permissions under one", "stat -c %a /tmp", "1777\n", func(l *runtime.Launch) {
			l.Spec.Mounts = append(l.Spec.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}})
		}},
		{"has plain root user from numbers", "id", "uid=4242 gid=0(root) groups=0(root)\n", func(l *runtime.Launch) { l.User = &runtime.User{Spec: "4242"} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := runtimetest.Launch(t, lower, "inside", "sh", "-c", tc.script)
			tc.change(l)
			if r := runBox(t, c, l); r.out != tc.want {
				t.Errorf("printed %q, want %q (stderr %q, exit %d)", r.out, tc.want, r.err, r.exit.Code)
			}
		})
	}
}

func TestStartErrors(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	for _, tc := range []struct {
		name   string
		args   []string
		change func(*runtime.Launch)
		code   int
		text   string
	}{
		{"not in the path", []string{"nope"}, nil, 127, `exec: "nope": executable file not found in $PATH`},
		{"no such file", []string{"/nope"}, nil, 127, `exec: "/nope": stat /nope: no such file or directory`},
		{"a directory", []string{"/tmp"}, nil, 126, `exec: "/tmp": is a directory`},
		{"not executable", []string{"/etc/plain"}, nil, 126, `exec: "/etc/plain": permission denied`},
		{"not a program", []string{"broken"}, nil, 126, `exec format error`},
		{"no such user", []string{"true"}, func(l *runtime.Launch) { l.User = &runtime.User{Spec: "ann"} }, 125, `unable to find user ann: no matching entries in passwd file`},
		{"no such group", []string{"true"}, func(l *runtime.Launch) { l.User = &runtime.User{Spec: "joe:none"} }, 125, `unable to find group none: no matching entries in group file`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := runtimetest.Launch(t, lower, "fails", tc.args...)
			if tc.change != nil {
				tc.change(l)
			}
			_, err := try(t, c, l)
			var se *runtime.StartError
			if !errors.As(err, &se) || se.Code != tc.code || !strings.Contains(se.Text, tc.text) {
				t.Errorf("got %#v, want code %d and %q", err, tc.code, tc.text)
			}
		})
	}
	for name, change := range map[string]func(*runtime.Launch){
		"a limit that cannot be raised": func(l *runtime.Launch) {
			l.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}}
		},
		"a parameter of the host's":  func(l *runtime.Launch) { l.Spec.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
		"a parameter that leads out": func(l *runtime.Launch) { l.Spec.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"} },
		"a parameter of the host's network": func(l *runtime.Launch) {
			l.Spec.Linux.Namespaces = slices.DeleteFunc(l.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
			l.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		},
		"a mount without a source": func(l *runtime.Launch) {
			l.Spec.Mounts = append(l.Spec.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/does/not/exist", Options: []string{"rbind"}})
		},
		"a mount over proc": func(l *runtime.Launch) {
			l.Spec.Mounts = append(l.Spec.Mounts, specs.Mount{Destination: "/proc/self", Type: "bind", Source: "/tmp", Options: []string{"rbind"}})
		},
		"a working directory that is a file": func(l *runtime.Launch) { l.Spec.Process.Cwd = "/etc/plain" },
		"a user namespace": func(l *runtime.Launch) {
			l.Spec.Linux.Namespaces = append(l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := runtimetest.Launch(t, lower, "fails", "true")
			change(l)
			if _, err := try(t, c, l); err == nil {
				t.Error("it starts")
			} else {
				t.Log(err)
			}
		})
	}
}

func TestBinds(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bind := func(dest, src string, options ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: "bind", Source: src, Options: options}
	}
	l := runtimetest.Launch(t, lower, "binds", "sh", "-c", `
cat /a/file; echo x > /a/new && echo wrote; echo x > /ro/new 2>/dev/null || echo no; cat /deep/in/file; cat /etc/hosts
grep -c ' /a .* shared' /proc/self/mountinfo; grep -c ' /s .* shared' /proc/self/mountinfo`)
	l.Spec.Mounts = append(l.Spec.Mounts, bind("/a", dir, "rbind"), bind("/ro", dir, "rbind", "rro"),
		bind("/deep/in/file", filepath.Join(dir, "file"), "bind", "ro"), bind("/etc/hosts", filepath.Join(dir, "file"), "rbind", "rprivate"),
		bind("/s", dir, "rbind", "rshared"))
	want := "from the host\nwrote\nno\nfrom the host\nfrom the host\n0\n1\n"
	if r := runBox(t, c, l); r.out != want {
		t.Errorf("printed %q, want %q (%q)", r.out, want, r.err)
	}
}

// A /dev that is mounted over ours is left alone.
func TestForeignDev(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	dir := t.TempDir()
	l := runtimetest.Launch(t, lower, "dev", "ls", "/dev")
	l.Spec.Mounts = append(l.Spec.Mounts, bindMount("/dev", dir))
	l.Spec.Linux.MaskedPaths = nil
	if r := runBox(t, c, l); r.out != "" || r.exit.Code != 0 {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("made on the host: %v, %v", left, err)
	}
}

func TestOOM(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	l := runtimetest.Launch(t, lower, "oom", "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=64 2>/dev/null; dd if=/dev/zero bs=64M of=/dev/null")
	limit := int64(16 << 20)
	l.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	if r := runBox(t, c, l); !r.exit.OOM {
		t.Errorf("exit %+v", r.exit)
	}
}

func copyAll(dst *strings.Builder, s runtime.Stream) (int64, error) {
	return io.Copy(dst, s)
}

func bindMount(dest, src string) specs.Mount {
	return specs.Mount{Destination: dest, Type: "bind", Source: src, Options: []string{"rbind"}}
}
