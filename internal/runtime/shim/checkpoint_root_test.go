//go:build root

package shim

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/criu"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// working returns criu if it can do anything on this kernel.
func working(t *testing.T) string {
	path, err := criu.Find()
	if err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil { // criu connects to itself
		t.Skipf("lo up: %v: %s", err, out)
	}
	if out, err := exec.Command(path, "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work on this kernel: %s", out)
	}
	return path
}

func TestCheckpoint(t *testing.T) {
	program := working(t)
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	log, images, host := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "one"), t.TempDir()
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	l := runtimetest.Launch(t, lower, "saved", "sh", "-c", "echo memory > /dev/shm/f; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; [ -e /v/stop ] && exit 5; done")
	l.Log = runtime.Log{Driver: "json-file", Path: log}
	l.Spec.Mounts = append(l.Spec.Mounts, bindMount("/v", host))
	if _, err := c.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		lines := strings.Split(strings.TrimSpace(readFile(log)), "\n")
		_, rest, _ := strings.Cut(lines[len(lines)-1], `"log":"`)
		n, _, _ := strings.Cut(rest, `\n`)
		i, _ := strconv.Atoi(n)
		return i
	}
	waitFor(t, func() bool { return count() > 10 })
	to := runtime.Checkpoint{Dir: images, CRIU: program}
	if err := c.Checkpoint(ctx, l.ID, to); err != nil {
		t.Fatal(err)
	}
	if e := <-exits; e.Code != 137 {
		t.Errorf("exit %+v", e)
	}
	if err := c.Delete(ctx, l.ID); err != nil {
		t.Fatal(err)
	}
	at := count()

	// It goes on where it was, with its memory, mounts and log; twice.
	l.Restore = &to
	st, err := c.Start(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return count() > at+5 })
	if ppid := field(readFile("/proc/"+strconv.Itoa(st.PID)+"/status"), "PPid:"); ppid != "" {
		if pid, err := c.Hello(ctx); err != nil || ppid != strconv.Itoa(pid) {
			t.Errorf("its parent is %s, the shim %d, %v", ppid, pid, err)
		}
	}
	proc := *l.Spec.Process
	proc.Args = []string{"sh", "-c", "grep -q memory /dev/shm/f && grep -q /v /proc/mounts && exit 3"}
	if _, err := c.Exec(ctx, &runtime.Exec{ContainerID: l.ID, ExecID: "x", Process: &proc}); err != nil {
		t.Fatal(err)
	}
	if e := <-exits; e.ExecID != "x" || e.Code != 3 {
		t.Errorf("exit %+v", e)
	}
	again := runtime.Checkpoint{Dir: t.TempDir(), CRIU: program, LeaveRunning: true}
	if err := c.Checkpoint(ctx, l.ID, again); err != nil {
		t.Fatal(err)
	}
	at = count()
	waitFor(t, func() bool { return count() > at })
	if err := os.WriteFile(filepath.Join(host, "stop"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if e := <-exits; e.Code != 5 {
		t.Errorf("exit %+v", e)
	}
	if err := c.Delete(ctx, l.ID); err != nil {
		t.Error(err)
	}
}

func TestCheckpointRefused(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	exits, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho 'Error (criu/x.c:1): the kernel lacks what it takes' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	to := runtime.Checkpoint{Dir: t.TempDir(), CRIU: script}
	plain := runtimetest.Launch(t, lower, "plain", "sleep", "1000")
	tty := runtimetest.Launch(t, lower, "tty", "sleep", "1000")
	tty.IO.TTY, tty.Spec.Process.Terminal = true, true
	for _, l := range []*runtime.Launch{plain, tty} {
		if _, err := c.Start(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Checkpoint(t.Context(), "plain", to); err == nil || !strings.Contains(err.Error(), "the kernel lacks what it takes") {
		t.Errorf("a criu that fails gives %v", err)
	}
	if err := c.Checkpoint(t.Context(), "tty", to); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a terminal gives %v", err)
	}
	if err := c.Pause(t.Context(), "plain"); err != nil {
		t.Fatal(err)
	}
	if err := c.Checkpoint(t.Context(), "plain", to); !errs.Is(err, errs.Conflict) {
		t.Errorf("a paused one gives %v", err)
	}
	for _, id := range []string{"plain", "tty"} {
		if err := c.Kill(t.Context(), id, "", 9, true); err != nil {
			t.Error(err)
		}
		<-exits
	}
	for _, id := range []string{"plain", "tty"} {
		if err := c.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	plain.Restore = &to
	if _, err := c.Start(t.Context(), plain); !errs.Is(err, errs.NotFound) {
		t.Errorf("a restore of nothing gives %v", err)
	}
}
