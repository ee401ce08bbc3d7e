package containers

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func TestExec(t *testing.T) {
	w := newWorld(t)
	id := w.create("box")
	if _, err := w.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"ls"}}); !errs.Is(err, errs.Conflict) || err.Error() != "container "+id+" is not running" {
		t.Errorf("exec in a created container: %v", err)
	}
	w.start(id)
	if _, err := w.ExecCreate(ctx, id, &container.ExecCreateRequest{}); err == nil || err.Error() != "No exec command specified" {
		t.Errorf("no command: %v", err)
	}
	req := &container.ExecCreateRequest{Cmd: []string{"ls", "-l"}, AttachStdout: true, AttachStderr: true, Env: []string{"A=b"}}
	exec, err := w.ExecCreate(ctx, id, req)
	if err != nil {
		t.Fatal(err)
	}
	var got *runtime.Exec
	w.rt.onExec = func(e *runtime.Exec, _ *fakeProc) error {
		got = e
		go w.rt.endExec(e.ExecID, 4, "hello")
		return nil
	}
	s, err := w.ExecAttach(ctx, exec, ExecStartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(s)
	if err != nil || string(out) != string(frame(1, "hello")) {
		t.Errorf("output %q %v", out, err)
	}
	_ = s.Close()
	w.until("it ended", func() bool { in, _ := w.ExecInspect(ctx, exec); return in.ExitCode != nil })
	in, _ := w.ExecInspect(ctx, exec)
	if *in.ExitCode != 4 || in.Running || in.Pid == 0 || in.ContainerID != id {
		t.Errorf("inspect %+v", in)
	}
	if diff := cmp.Diff([]string{"ls", "-l"}, got.Process.Args); diff != "" || !slices.Contains(got.Process.Env, "A=b") || got.Seccomp == nil {
		t.Errorf("process %+v %s", got.Process, diff)
	}
	if err := w.ExecStart(ctx, exec, ExecStartOptions{}); !errs.Is(err, errs.Conflict) {
		t.Errorf("second start: %v", err)
	}
	w.until("exec_die", func() bool { return w.bus.last(id, "exec_die") != nil })
	if diff := cmp.Diff([]string{"create", "start", "exec_create: ls -l", "exec_start: ls -l", "exec_die"}, w.bus.of(id)); diff != "" {
		t.Error(diff)
	}
}

func TestExecOfNothing(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	w.rt.onExec = func(*runtime.Exec, *fakeProc) error {
		return &runtime.StartError{Code: 127, Text: `OCI runtime exec failed: "nope": executable file not found in $PATH`}
	}
	exec, _ := w.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"nope"}, AttachStdout: true})
	s, err := w.ExecAttach(ctx, exec, ExecStartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(s)
	if !strings.Contains(string(out), "executable file not found") || out[0] != 1 {
		t.Errorf("output %q", out)
	}
	if in, _ := w.ExecInspect(ctx, exec); in.ExitCode == nil || *in.ExitCode != 127 || in.Running {
		t.Errorf("inspect %+v", in)
	}
	exec, _ = w.ExecCreate(ctx, id, &container.ExecCreateRequest{Cmd: []string{"nope"}})
	if err := w.ExecStart(ctx, exec, ExecStartOptions{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("detached: %v", err)
	}
	if _, err := w.ExecInspect(ctx, "zz"); !errs.Is(err, errs.NotFound) || err.Error() != "No such exec instance: zz" {
		t.Errorf("inspect: %v", err)
	}
}

func TestAttachAndDetach(t *testing.T) {
	w := newWorld(t)
	id := w.run("box", withConfig(func(c *container.Config) { c.Tty, c.OpenStdin = true, true }))
	s, err := w.Attach(ctx, id, AttachOptions{Stdin: true, Stdout: true, Stream: true, Logs: true, DetachKeys: "ctrl-a,d"})
	if err != nil {
		t.Fatal(err)
	}
	stream := w.rt.stream(id, "")
	go func() { _, _ = stream.pw.Write([]byte("live")) }()
	buf := make([]byte, 64)
	for _, want := range []string{"logged\n", "live"} {
		n, err := s.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("read %q %v, want %q", buf[:n], err, want)
		}
	}
	if _, err := s.Write([]byte("ls\n\x01x\x01")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("d")); err != nil {
		t.Fatal(err)
	}
	if got := stream.typed(); got != "ls\n\x01x" {
		t.Errorf("typed %q", got)
	}
	if _, err := s.Read(buf); !errors.Is(err, ErrDetached) {
		t.Errorf("read after the keys: %v", err)
	}
	_ = s.Close()
	if diff := cmp.Diff([]string{"create", "start", "attach", "detach"}, w.bus.of(id)); diff != "" {
		t.Error(diff)
	}
	if _, err := w.Attach(ctx, id, AttachOptions{DetachKeys: "hello,world"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("bad keys: %v", err)
	}
}

func TestFollowedLogsEndWithTheContainer(t *testing.T) {
	w := newWorld(t)
	id := w.run("box")
	if _, err := w.Logs(ctx, id, LogsOptions{}); err == nil || err.Error() != "You must choose at least one stream" {
		t.Errorf("no stream: %v", err)
	}
	l, err := w.Logs(ctx, id, LogsOptions{Stdout: true, Follow: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	done := make(chan error, 1)
	go func() { _, err := l.WriteTo(&b); done <- err }()
	w.rt.end(id, 0)
	if err := recv(t, done); err != nil || b.String() != "logged\nended\n" {
		t.Errorf("%q %v", b.String(), err)
	}
	_ = l.Close()
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	codes := make(chan int, 10)
	w.rt.onExec = func(e *runtime.Exec, _ *fakeProc) error {
		go w.rt.endExec(e.ExecID, <-codes, "out")
		return nil
	}
	id := w.run("box", withConfig(func(c *container.Config) {
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "check"}, Interval: time.Millisecond, Retries: 2}
	}))
	health := func() *container.Health { in, _ := w.Inspect(ctx, id, false); return in.State.Health }
	if h := health(); h.Status != container.Starting {
		t.Errorf("first %+v", h)
	}
	codes <- 1
	codes <- 1
	w.until("unhealthy", func() bool { return health().Status == container.Unhealthy })
	if h := health(); h.FailingStreak != 2 || len(h.Log) != 2 || h.Log[0].Output != "out" || h.Log[0].ExitCode != 1 {
		t.Errorf("log %+v", h)
	}
	codes <- 0
	w.until("healthy", func() bool { return health().Status == container.Healthy })
	list, _ := w.List(ctx, ListOptions{Filters: filter.Set{"health": {"healthy"}}})
	if len(list) != 1 || !strings.HasSuffix(list[0].Status, "(healthy)") {
		t.Errorf("list %+v", list)
	}
	close(codes) // zeros from now on
	if err := w.Stop(ctx, id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if ev := w.bus.of(id); !slices.Contains(ev, "health_status: unhealthy") || !slices.Contains(ev, "health_status: healthy") {
		t.Errorf("events %v", ev)
	}
}

func TestHealthTimeout(t *testing.T) {
	w := newWorld(t)
	id := w.run("box", withConfig(func(c *container.Config) {
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "hang"}, Interval: time.Millisecond, Timeout: time.Millisecond, Retries: 1}
	}))
	w.until("unhealthy", func() bool {
		in, _ := w.Inspect(ctx, id, false)
		h := in.State.Health
		return h.Status == container.Unhealthy && h.Log[0].ExitCode == -1 && h.Log[0].Output == "Health check exceeded timeout (1ms)"
	})
}
