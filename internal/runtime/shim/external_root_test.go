//go:build root

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// eachRuntime runs a test with every other runtime that is installed.
func eachRuntime(t *testing.T, f func(t *testing.T, r *runtime.External)) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("%s is not installed", name)
			}
			if name == "crun" {
				// It refuses hosts that have some controllers on each version. Version 2
				// stays mounted: what it covers is the host's.
				_ = unix.Mount("/dev/null", "/sys/fs/cgroup/unified/cgroup.controllers", "", unix.MS_BIND, "")
			}
			f(t, &runtime.External{Name: name, Path: path})
		})
	}
	t.Run("skiff", func(t *testing.T) { // the launcher itself, by its command line
		f(t, &runtime.External{Name: "own", Path: os.Getenv(shimEnv), Args: []string{"runtime"}})
	})
}

// box is a container of another runtime.
func box(t *testing.T, r *runtime.External, lower, id string, args ...string) *runtime.Launch {
	l := runtimetest.Launch(t, lower, id, args...)
	l.External, l.User = r, &runtime.User{}
	return l
}

func TestExternalConformance(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r *runtime.External) {
		lower := runtimetest.Rootfs(t)
		runtimetest.Suite(t, func(t *testing.T) *runtimetest.Env {
			return &runtimetest.Env{
				Runtime: shimOf(t),
				Launch: func(t *testing.T, id string, args ...string) *runtime.Launch {
					return box(t, r, lower, id, args...)
				},
			}
		})
	})
}

func TestExternalInside(t *testing.T) {
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	netns := fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	netName, err := os.Readlink(netns)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	volume := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(volume, "in/side"), 0o755), os.WriteFile(filepath.Join(volume, "in/side/file"), []byte("text\n"), 0o644),
		os.Symlink("/etc", filepath.Join(volume, "out"))); err != nil {
		t.Fatal(err)
	}
	eachRuntime(t, func(t *testing.T, r *runtime.External) {
		c, lower := shimOf(t), runtimetest.Rootfs(t)
		for _, tc := range []struct {
			name, script, want string
			change             func(*runtime.Launch)
		}{
			{"writes to both streams", "echo out; echo err >&2", "out\nerr\n", func(*runtime.Launch) {}},
			{
				"runs as a user of the image", "id; echo $HOME; echo ok > /dev/stdout", "uid=1000(joe) gid=1001(staff) groups=10(wheel),20(extra),1001(staff)\n/home/joe\nok\n",
				func(l *runtime.Launch) { l.User = &runtime.User{Spec: "joe", Groups: []string{"extra"}} },
			},
			{"has the network namespace passed along", "readlink /proc/self/ns/net", netName + "\n", func(l *runtime.Launch) {
				if l.NetNS, err = os.Open(netns); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.NetNS.Close() })
			}},
			{"has an init", "cat /proc/1/cmdline | tr '\\0' ' '; echo; [ $$ != 1 ] && echo child", "/sbin/docker-init -- sh -c cat /proc/1/cmdline | tr '\\0' ' '; echo; [ $$ != 1 ] && echo child \nchild\n", func(l *runtime.Launch) { l.Init = true }},
			{"is confined by seccomp", "grep Seccomp: /proc/self/status", "Seccomp:\t2\n", func(l *runtime.Launch) { l.Spec.Linux.Seccomp = profile }},
			{"sees a place in a volume", "cat /v/file", "text\n", func(l *runtime.Launch) {
				l.Spec.Mounts = append(l.Spec.Mounts, specs.Mount{Destination: "/v", Type: "bind", Source: volume, Options: []string{"rbind", "x-skiff.subpath=in/side"}})
			}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				l := box(t, r, lower, "inside", "sh", "-c", tc.script)
				tc.change(l)
				if got := runBox(t, c, l); got.out+got.err != tc.want || got.exit.Code != 0 {
					t.Errorf("printed %q and %q, ended with %d; want %q", got.out, got.err, got.exit.Code, tc.want)
				}
			})
		}
		for _, tc := range []struct {
			name, text string
			code       int
			change     func(*runtime.Launch)
		}{
			{"a user that is not in the image", "unable to find user nobody-here", 125, func(l *runtime.Launch) { l.User.Spec = "nobody-here" }},
			{"a command that cannot be executed", "permission denied", 126, func(l *runtime.Launch) { l.Spec.Process.Args = []string{"/etc/plain"} }},
			{"a file that is not there", "no such file or directory", 127, func(l *runtime.Launch) { l.Spec.Process.Args = []string{"/nothing/here"} }},
			{"a place out of a volume", "/v", 0, func(l *runtime.Launch) {
				l.Spec.Mounts = append(l.Spec.Mounts, specs.Mount{Destination: "/v", Type: "bind", Source: volume, Options: []string{"rbind", "x-skiff.subpath=out"}})
			}},
			{"a runtime that is not there", "/no/such/runtime is not installed", 0, func(l *runtime.Launch) {
				l.External = &runtime.External{Name: r.Name, Path: "/no/such/runtime"}
			}},
			{"a runtime that fails and says nothing", "exit status 1", 0, func(l *runtime.Launch) { l.External = &runtime.External{Name: r.Name, Path: "/bin/false"} }},
			{"a runtime that does nothing", "", 0, func(l *runtime.Launch) { l.External = &runtime.External{Name: r.Name, Path: "/bin/true"} }},
			{"a runtime whose name is a path", "is no container", 0, func(l *runtime.Launch) { l.External = &runtime.External{Name: "../x", Path: "/bin/true"} }},
		} {
			t.Run(tc.name, func(t *testing.T) {
				l := box(t, r, lower, "wrong", "true")
				tc.change(l)
				_, err := try(t, c, l)
				var se *runtime.StartError
				if err == nil || !strings.Contains(strings.ToLower(err.Error()), tc.text) || tc.code != 0 && (!errors.As(err, &se) || se.Code != tc.code) {
					t.Errorf("start gives %#v", err)
				}
			})
		}
	})
}

// While a container runs, the host's mount table is as before; afterwards neither
// runtime nor shim remember it.
func TestExternalLeavesNothing(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r *runtime.External) {
		o := options(t)
		if err := os.Mkdir(o.RunDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(unix.Mount("tmpfs", o.RunDir, "tmpfs", 0, ""), unix.Mount("", o.RunDir, "", unix.MS_SHARED, "")); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Unmount(o.RunDir, unix.MNT_DETACH) }()
		c, err := Ensure(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer endShim(t, c)
		before := readFile("/proc/self/mountinfo")
		l := box(t, r, runtimetest.Rootfs(t), "clean", "sleep", "1000")
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		exits, err := c.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		st, err := c.Start(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		if after := readFile("/proc/self/mountinfo"); after != before {
			t.Errorf("the host sees mounts:\n%s\nand before:\n%s", after, before)
		}
		if ppid := field(readFile(fmt.Sprintf("/proc/%d/status", st.PID)), "PPid:"); ppid == "" || ppid == "1" {
			t.Errorf("the container's parent is %q", ppid)
		}
		limit := int64(64 << 20)
		if err := c.Update(ctx, l.ID, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
			t.Error(err)
		}
		group := "/sys/fs/cgroup/memory" + l.Spec.Linux.CgroupsPath
		if got := readFile(group + "/memory.limit_in_bytes"); got != "" && got != "67108864\n" {
			t.Errorf("memory is limited to %s", got)
		}
		if err := c.Pause(ctx, l.ID); err != nil {
			t.Error(err)
		}
		if err := c.Kill(ctx, l.ID, "", 9, false); err != nil {
			t.Error(err)
		}
		if e := <-exits; e.Code != 137 {
			t.Errorf("exit %+v", e)
		}
		if err := c.Delete(ctx, l.ID); err != nil {
			t.Error(err)
		}
		for _, dir := range []string{filepath.Join(o.RunDir, "c"), filepath.Join(o.RunDir, "oci", r.Name)} {
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%s holds %v, %v", dir, left, err)
			}
		}
		if _, err := os.Stat(group); err == nil {
			t.Error("its control group is left")
		}
		waitFor(t, func() bool { return len(children(t, c)) == 0 })
	})
}

func field(text, name string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// children lists the shim's.
func children(t *testing.T, c *Client) []string {
	pid, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range tasks {
		for _, child := range strings.Fields(readFile(f)) {
			if !strings.HasPrefix(readFile("/proc/"+child+"/cmdline"), keeperName+"\x00") {
				out = append(out, child)
			}
		}
	}
	return out
}

// The next shim adopts containers of other runtimes as well, and goes on to use
// those.
func TestExternalShimKilled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r *runtime.External) {
		c, lower := shimOf(t), runtimetest.Rootfs(t)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		exits, err := c.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		log, flag := filepath.Join(t.TempDir(), "log"), t.TempDir()
		l := box(t, r, lower, "survivor", "sh", "-c", "echo before; while [ ! -e /flag/go ]; do sleep 0.01; done; echo after; exit 5")
		l.Log = runtime.Log{Driver: "json-file", Path: log}
		l.Spec.Mounts = append(l.Spec.Mounts, bindMount("/flag", flag))
		if _, err := c.Start(ctx, l); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return strings.Contains(readFile(log), "before") })
		old, err := c.Hello(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(old, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return unix.Kill(old, 0) != nil })
		proc := *l.Spec.Process
		proc.Args = []string{"sh", "-c", "exit 9"}
		if _, err := c.Exec(ctx, &runtime.Exec{ContainerID: l.ID, ExecID: "x", Process: &proc, User: &runtime.User{Spec: "joe"}}); err != nil {
			t.Fatal(err)
		}
		if e := <-exits; e.ExecID != "x" || e.Code != 9 {
			t.Errorf("exit %+v", e)
		}
		if err := os.WriteFile(filepath.Join(flag, "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if e := <-exits; e.ID != "survivor" || !adoptedEnd(e, 5) {
			t.Errorf("exit %+v", e)
		}
		if got := readFile(log); !strings.Contains(got, "after") {
			t.Errorf("log: %s", got)
		}
		if err := c.Delete(ctx, l.ID); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Join(c.o.RunDir, "oci", r.Name)); len(left) > 0 {
			t.Errorf("%s still knows %v", r.Name, left)
		}
	})
}

// A runtime that never answers is given up when its client leaves, and kills
// are carried out without it.
func TestExternalHangs(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "hanging")
	script := "#!/bin/sh\nfor w; do [ -e " + dir + "/hang-$w ] && { touch " + dir + "/hung; sleep 1000 & wait; }; done\nexec " + runc + " \"$@\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	hang := func(verb string) {
		if err := os.WriteFile(filepath.Join(dir, "hang-"+verb), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &runtime.External{Name: "hanging", Path: program}
	hang("create")
	go func() {
		waitFor(t, func() bool { return readFile(dir+"/hung") == "" && exists(dir+"/hung") })
		cancel()
	}()
	if _, err := c.Start(ctx, box(t, r, lower, "never", "sleep", "1000")); !errors.Is(err, context.Canceled) {
		t.Errorf("start gives %v", err)
	}
	waitFor(t, func() bool { return len(children(t, c)) == 0 })
	if err := os.Remove(dir + "/hang-create"); err != nil {
		t.Fatal(err)
	}
	// The one before has left nothing that were in the way.
	waitFor(t, func() bool {
		_, err := c.Start(t.Context(), box(t, r, lower, "never", "sh", "-c", "exit 3"))
		return !errs.Is(err, errs.Conflict)
	})
	exits, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e := <-exits; e.Code != 3 {
		t.Errorf("exit %+v", e)
	}
	if err := c.Delete(t.Context(), "never"); err != nil {
		t.Error(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// A request without a process is refused, and the shim goes on.
func TestMalformedRequests(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	eachRuntime(t, func(t *testing.T, r *runtime.External) {
		for name, change := range map[string]func(*runtime.Launch){
			"no process": func(l *runtime.Launch) { l.Spec.Process = nil },
			"no command": func(l *runtime.Launch) { l.Spec.Process.Args = nil },
			"no root":    func(l *runtime.Launch) { l.Rootfs, l.Spec.Root = nil, nil },
		} {
			l := box(t, r, lower, "malformed", "true")
			change(l)
			if _, err := try(t, c, l); !errs.Is(err, errs.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		l := box(t, r, lower, "wellformed", "sleep", "1000")
		if _, err := c.Start(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), &runtime.Exec{ContainerID: l.ID, ExecID: "e"}); !errs.Is(err, errs.Invalid) {
			t.Errorf("exec of nothing: %v", err)
		}
		if err := c.Kill(t.Context(), l.ID, "", int(unix.SIGKILL), false); err != nil {
			t.Error(err)
		}
		for range 500 {
			if c.Delete(t.Context(), l.ID) == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}
