//go:build root

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// codesAreTold reports whether others than its parent are told how a process
// ended: from Linux 6.15 on.
func codesAreTold() bool {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(pidfd) }()
	_, err = proc.ExitOf(pidfd)
	return !errors.Is(err, unix.ENOTTY)
}

// adoptedEnd tells whether the end of an adopted process is told as it was, or
// honestly not, where the kernel tells only its parent.
func adoptedEnd(e runtime.Exit, code int) bool {
	if e.Unknown {
		return e.Code == 255 && !codesAreTold()
	}
	return e.Code == code
}

// The shim is killed under running containers; the next one takes them over.
func TestShimKilled(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	flag := t.TempDir()
	l := runtimetest.Launch(t, lower, "survivor", "sh", "-c", "echo before; while [ ! -e /flag/go ]; do sleep 0.01; done; echo after; exit 5")
	l.Log = runtime.Log{Driver: "json-file", Path: log}
	l.Spec.Mounts = append(l.Spec.Mounts, bindMount("/flag", flag))
	ended := runtimetest.Launch(t, lower, "ended", "sh", "-c", "exit 6")
	st, err := c.Start(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(ctx, ended); err != nil {
		t.Fatal(err)
	}
	if e := <-exits; e.ID != "ended" || e.Code != 6 {
		t.Fatalf("exit %+v", e)
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

	// Whoever asks next starts another one.
	list, err := c.List(ctx)
	if err != nil || len(list) != 2 {
		t.Fatalf("list %+v, %v", list, err)
	}
	pid, err := c.Hello(ctx)
	if err != nil || pid == old {
		t.Fatalf("shim %d, %v", pid, err)
	}
	for _, s := range list {
		if s.ID == "survivor" && (s.PID != st.PID || s.Exit != nil) || s.ID == "ended" && (s.Exit == nil || s.Exit.Code != 6) {
			t.Errorf("adopted as %+v", s)
		}
	}
	// Exec and kill work on what was adopted.
	proc := *l.Spec.Process
	proc.Args = []string{"true"}
	if _, err := c.Exec(ctx, &runtime.Exec{ContainerID: "survivor", ExecID: "x", Process: &proc}); err != nil {
		t.Error(err)
	}
	s, err := c.Attach(ctx, "survivor", "", runtime.Attach{Stdout: true}, l.IO, l.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(flag, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _, err := runtimetest.Demux(s); err != nil || out != "after\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	for e := range exits { // told again of none, and of this one
		if e.ExecID == "x" {
			continue
		}
		if e.ID != "survivor" || !adoptedEnd(e, 5) {
			t.Errorf("exit %+v", e)
		}
		break
	}
	if got := readFile(log); !strings.Contains(got, "before") || !strings.Contains(got, "after") {
		t.Errorf("log: %s", got)
	}
	for _, id := range []string{"survivor", "ended"} {
		if err := c.Delete(ctx, id); err != nil {
			t.Error(err)
		}
	}
}

// The shim is killed again and again while a container prints as fast as it
// can: each line is in its log, once, whatever the format.
func TestKilledInMidStream(t *testing.T) {
	for _, driver := range []string{"json-file", "local"} {
		t.Run(driver, func(t *testing.T) {
			c, lower := shimOf(t), runtimetest.Rootfs(t)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			exits, err := c.Events(ctx)
			if err != nil {
				t.Fatal(err)
			}
			const lines = 800000
			l := runtimetest.Launch(t, lower, "loud", "sh", "-c", fmt.Sprintf("seq 1 %d; printf partial >&2; sleep 0.1; echo ly >&2", lines))
			l.Log = runtime.Log{Driver: driver, Path: filepath.Join(t.TempDir(), "log"), MaxSize: -1}
			if _, err := c.Start(ctx, l); err != nil {
				t.Fatal(err)
			}
			kills, life := 0, 15*time.Millisecond
			for ended := false; !ended; kills++ {
				killShim(t, c)
				select {
				case e := <-exits:
					ended = true
					if !adoptedEnd(e, 0) {
						t.Errorf("exit %+v", e)
					}
				case <-time.After(life):
					life += life / 10 // a slow machine gets done too
				}
			}
			t.Logf("%d kills", kills)
			var out strings.Builder
			rd, err := logs.Open(t.Context(), l.Log, logs.ReadOptions{Stdout: true, Stderr: true, Tail: -1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := rd.WriteTo(&out); err != nil {
				t.Fatal(err)
			}
			_ = rd.Close()
			stdout, stderr, err := runtimetest.Demux(strings.NewReader(out.String()))
			if err != nil || stderr != "partially\n" {
				t.Errorf("stderr %q, %v", stderr, err)
			}
			if n, err := linesOf(strings.NewReader(stdout)); n != lines || err != nil {
				t.Errorf("%d lines, %v", n, err)
			}
			if err := c.Delete(ctx, l.ID); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	pid, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	runBox(t, c, runtimetest.Launch(t, lower, "warm", "true"))
	parkingDone(t, c)
	fds := count(t, pid)
	var wg sync.WaitGroup
	for i := range 50 {
		l := runtimetest.Launch(t, lower, fmt.Sprintf("many-%d", i), "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
		wg.Go(func() {
			r, err := try(t, c, l)
			if err != nil || r.out != fmt.Sprintln(i) || r.exit.Code != i {
				t.Errorf("%d: %q, %+v, %v", i, r.out, r.exit, err)
			}
		})
	}
	wg.Wait()
	if left, err := os.ReadDir(filepath.Join(c.o.RunDir, "c")); err != nil || len(left) > 0 {
		t.Errorf("run directory keeps %v, %v", left, err)
	}
	sys, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range sys.Mounts() {
		dirs, err := filepath.Glob(filepath.Join(m.Host, runtimetest.CgroupParent(), "*", "tasks"))
		dirs = slices.DeleteFunc(dirs, isParked)
		if err != nil || len(dirs) > 0 {
			t.Errorf("control groups are left: %v, %v", dirs, err)
		}
	}
	mounts := readFile("/proc/" + itoa(pid) + "/mountinfo")
	if strings.Contains(mounts, c.o.RunDir) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
	// Idle connections of the client's may have come since.
	waitFor(t, func() bool { return count(t, pid) <= fds+maxIdle })
}

func count(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// All a container prints reaches a client, however slow, and its log.
func TestMuchOutput(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	log := filepath.Join(t.TempDir(), "log")
	l := runtimetest.Launch(t, lower, "loud", "seq", "1", "400000")
	l.Log = runtime.Log{Driver: "local", Path: log}
	r := runBox(t, c, l)
	if lines := strings.Count(r.out, "\n"); lines != 400000 || !strings.HasSuffix(r.out, "\n400000\n") {
		t.Errorf("%d lines", lines)
	}
	var out strings.Builder
	rd, err := logs.Open(t.Context(), l.Log, logs.ReadOptions{Stdout: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rd.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	_ = rd.Close()
	if got, _, err := runtimetest.Demux(strings.NewReader(out.String())); err != nil || got != r.out {
		t.Errorf("the log has %d bytes of %d, %v", len(got), len(r.out), err)
	}
}

// A client that does not read holds the container back and nothing else; when
// it leaves, the container goes on.
func TestSlowClient(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l := runtimetest.Launch(t, lower, "slow", "dd", "if=/dev/zero", "bs=64k", "count=200")
	s, err := c.Attach(ctx, l.ID, "", runtime.Attach{Stdout: true}, l.IO, l.Log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	runBox(t, c, runtimetest.Launch(t, lower, "other", "true"))
	select {
	case e := <-exits:
		if e.ID == l.ID {
			t.Error("it did not wait for its client")
		}
	default:
	}
	_ = s.Close()
	for e := range exits {
		if e.ID == l.ID {
			break
		}
	}
	if err := c.Delete(ctx, l.ID); err != nil {
		t.Error(err)
	}
}

// Another client, as of a restarted daemon, finds all as it is.
func TestSecondClient(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l := runtimetest.Launch(t, lower, "stays", "cat")
	l.IO.Stdin, l.IO.StdinOnce = true, true
	if _, err := c.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	c2, err := Ensure(ctx, c.o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c2.Close() }()
	a, err := c.Hello(ctx)
	b, err2 := c2.Hello(ctx)
	if err != nil || err2 != nil || a != b {
		t.Fatalf("shims %d and %d, %v, %v", a, b, err, err2)
	}
	s, err := c2.Attach(ctx, l.ID, "", runtime.Attach{Stdin: true, Stdout: true}, l.IO, l.Log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "hi\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, _, err := runtimetest.Demux(s); err != nil || out != "hi\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	exits, err := c2.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if e := <-exits; e.ID != l.ID || e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	if err := c2.Delete(ctx, l.ID); err != nil {
		t.Error(err)
	}
}

// Two that start the shim at once find one.
func TestEnsureRace(t *testing.T) {
	o := options(t)
	pids := make([]int, 4)
	var clients [4]*Client
	var wg sync.WaitGroup
	for i := range pids {
		wg.Go(func() {
			c, err := Ensure(context.Background(), o)
			if err != nil {
				t.Error(err)
				return
			}
			clients[i] = c
			pids[i], _ = c.Hello(context.Background())
		})
	}
	wg.Wait()
	for _, p := range pids {
		if p != pids[0] || p == 0 {
			t.Errorf("shims %v", pids)
		}
	}
	endShim(t, clients[0])
}

func TestPassedStreams(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l := runtimetest.Launch(t, lower, "passed", "sh", "-c", "echo out; echo err >&2; stat -L -c %t:%T /proc/self/fd/0")
	l.IO.Passed, l.Stdio, l.Log = true, [3]*os.File{nil, w, w}, runtime.Log{}
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if out, err := io.ReadAll(r); err != nil || string(out) != "out\nerr\n1:3\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	<-exits
	if err := c.Delete(ctx, l.ID); err != nil {
		t.Error(err)
	}
}

func TestStartCancelled(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Start(ctx, runtimetest.Launch(t, lower, "never", "sleep", "1000")); err == nil {
		t.Error("it starts")
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("waited in vain")
}

func readFile(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}
