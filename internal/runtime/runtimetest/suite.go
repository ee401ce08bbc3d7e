// Package runtimetest is the conformance suite of runtime.Runtime: what the
// engine may rely on, whichever runtime it has. The shim's client and
// fake.Runtime both pass it.
//
// The commands it runs are few and plain (true, false, echo, cat, sleep, sh -c
// "exit N"), so that a fake can play them.
package runtimetest

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Env is a runtime under test.
type Env struct {
	Runtime runtime.Runtime
	// Launch makes a launch of the command that is not started yet.
	Launch func(t *testing.T, id string, args ...string) *runtime.Launch
}

// Suite runs all of it.
func Suite(t *testing.T, make func(t *testing.T) *Env) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *tester)
	}{
		{"a container that ends tells its code", exitCodes},
		{"a command that is not there cannot start", notFound},
		{"what a container prints reaches a client attached before start", attachBeforeStart},
		{"what a client sends reaches the container", stdin},
		{"a running container can be killed", kill},
		{"an id is taken until it is deleted", deletes},
		{"an exec runs beside and tells its code", execs},
		{"a new listener hears of exits that are not deleted", replay},
		{"a paused container goes on when resumed", pause},
		{"a terminal gives raw bytes", terminal},
		{"an unknown container is not found", unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := make(t)
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			t.Cleanup(cancel)
			exits, err := env.Runtime.Events(ctx)
			if err != nil {
				t.Fatal(err)
			}
			c.run(t, &tester{T: t, Env: env, ctx: ctx, exits: exits})
		})
	}
}

type tester struct {
	*testing.T
	*Env
	ctx   context.Context //nolint:containedctx // of one test
	exits <-chan runtime.Exit
}

func (t *tester) start(l *runtime.Launch) runtime.Started {
	t.Helper()
	st, err := t.Runtime.Start(t.ctx, l)
	if err != nil {
		t.Fatalf("start %s: %v", l.ID, err)
	}
	return st
}

// exit waits for a process's end.
func (t *tester) exit(id, execID string) runtime.Exit {
	t.Helper()
	for {
		select {
		case e, ok := <-t.exits:
			if !ok {
				t.Fatalf("no exit of %s %s: the channel ended", id, execID)
			}
			if e.ID == id && e.ExecID == execID {
				return e
			}
		case <-t.ctx.Done():
			t.Fatalf("no exit of %s %s", id, execID)
		}
	}
}

func (t *tester) delete(id string) {
	t.Helper()
	if err := t.Runtime.Delete(t.ctx, id); err != nil {
		t.Errorf("delete %s: %v", id, err)
	}
}

func (t *tester) attach(l *runtime.Launch, want runtime.Attach) runtime.Stream {
	t.Helper()
	s, err := t.Runtime.Attach(t.ctx, l.ID, "", want, l.IO, l.Log)
	if err != nil {
		t.Fatalf("attach to %s: %v", l.ID, err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Demux takes multiplexed frames apart.
func Demux(r io.Reader) (stdout, stderr string, err error) {
	var out [3]strings.Builder
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return out[1].String(), out[2].String(), err
		}
		n := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
		if head[0] < 1 || head[0] > 2 {
			return "", "", errors.New("frame of no stream")
		}
		if _, err := io.CopyN(&out[head[0]], r, n); err != nil {
			return "", "", err
		}
	}
}

func exitCodes(_ *testing.T, t *tester) {
	for _, c := range []struct {
		id   string
		args []string
		code int
	}{{"ok", []string{"true"}, 0}, {"bad", []string{"false"}, 1}, {"seven", []string{"sh", "-c", "exit 7"}, 7}} {
		st := t.start(t.Launch(t.T, c.id, c.args...))
		e := t.exit(c.id, "")
		if e.Code != c.code || e.PID != st.PID || e.Unknown || e.OOM || e.At.IsZero() {
			t.Errorf("%v: exit %+v, want code %d of process %d", c.args, e, c.code, st.PID)
		}
		t.delete(c.id)
	}
}

func notFound(_ *testing.T, t *tester) {
	_, err := t.Runtime.Start(t.ctx, t.Launch(t.T, "gone", "no-such-command"))
	var se *runtime.StartError
	if !errors.As(err, &se) || se.Code != 127 || !strings.Contains(se.Text, `exec: "no-such-command": executable file not found in $PATH`) {
		t.Fatalf("start gives %v", err)
	}
	list, err := t.Runtime.List(t.ctx)
	if err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	t.delete("gone")
}

func attachBeforeStart(_ *testing.T, t *tester) {
	l := t.Launch(t.T, "early", "echo", "hello", "world")
	s := t.attach(l, runtime.Attach{Stdout: true, Stderr: true})
	t.start(l)
	out, stderr, err := Demux(s)
	if err != nil || out != "hello world\n" || stderr != "" {
		t.Errorf("printed %q, %q, %v", out, stderr, err)
	}
	t.exit(l.ID, "")
	t.delete(l.ID)
}

func stdin(_ *testing.T, t *tester) {
	l := t.Launch(t.T, "cat", "cat")
	l.IO.Stdin, l.IO.StdinOnce = true, true
	s := t.attach(l, runtime.Attach{Stdin: true, Stdout: true})
	if _, err := io.WriteString(s, "one\n"); err != nil {
		t.Fatal(err)
	}
	t.start(l)
	if _, err := io.WriteString(s, "two\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, _, err := Demux(s)
	if err != nil || out != "one\ntwo\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	if e := t.exit(l.ID, ""); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	t.delete(l.ID)
}

func kill(_ *testing.T, t *tester) {
	l := t.Launch(t.T, "sleeper", "sleep", "1000")
	st := t.start(l)
	list, err := t.Runtime.List(t.ctx)
	if err != nil || len(list) != 1 || list[0].ID != l.ID || list[0].PID != st.PID || list[0].Exit != nil {
		t.Errorf("list: %+v, %v", list, err)
	}
	if pids, err := t.Runtime.PIDs(t.ctx, l.ID); err != nil || len(pids) == 0 {
		t.Errorf("pids: %v, %v", pids, err)
	}
	if err := t.Runtime.Delete(t.ctx, l.ID); !errs.Is(err, errs.Conflict) {
		t.Errorf("deleting a running container gives %v", err)
	}
	if err := t.Runtime.Kill(t.ctx, l.ID, "", 9, false); err != nil {
		t.Fatal(err)
	}
	if e := t.exit(l.ID, ""); e.Code != 137 {
		t.Errorf("exit %+v", e)
	}
	if err := t.Runtime.Kill(t.ctx, l.ID, "", 9, false); !errs.Is(err, errs.Conflict) {
		t.Errorf("killing twice gives %v", err)
	}
	t.delete(l.ID)
}

func deletes(_ *testing.T, t *tester) {
	l := t.Launch(t.T, "again", "true")
	t.start(l)
	t.exit(l.ID, "")
	if _, err := t.Runtime.Start(t.ctx, t.Launch(t.T, "again", "true")); !errs.Is(err, errs.Conflict) {
		t.Errorf("starting over a record gives %v", err)
	}
	t.delete(l.ID)
	t.delete(l.ID)
	t.start(t.Launch(t.T, "again", "true"))
	t.exit(l.ID, "")
	t.delete(l.ID)
}

func execs(_ *testing.T, t *tester) {
	l := t.Launch(t.T, "host", "sleep", "1000")
	t.start(l)
	proc := *l.Spec.Process
	proc.Args = []string{"sh", "-c", "exit 3"}
	if _, err := t.Runtime.Exec(t.ctx, &runtime.Exec{ContainerID: l.ID, ExecID: "e1", Process: &proc}); err != nil {
		t.Fatal(err)
	}
	if e := t.exit(l.ID, "e1"); e.Code != 3 {
		t.Errorf("exit %+v", e)
	}
	echo := proc
	echo.Args = []string{"echo", "beside"}
	s, err := t.Runtime.Attach(t.ctx, l.ID, "e2", runtime.Attach{Stdout: true}, runtime.IO{}, runtime.Log{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := t.Runtime.Exec(t.ctx, &runtime.Exec{ContainerID: l.ID, ExecID: "e2", Process: &echo}); err != nil {
		t.Fatal(err)
	}
	if out, _, err := Demux(s); err != nil || out != "beside\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	gone := proc
	gone.Args = []string{"no-such-command"}
	_, err = t.Runtime.Exec(t.ctx, &runtime.Exec{ContainerID: l.ID, ExecID: "e3", Process: &gone})
	var se *runtime.StartError
	if !errors.As(err, &se) || se.Code != 127 {
		t.Errorf("exec of nothing gives %v", err)
	}
	long := proc
	long.Args = []string{"sleep", "1000"}
	if _, err := t.Runtime.Exec(t.ctx, &runtime.Exec{ContainerID: l.ID, ExecID: "e4", Process: &long}); err != nil {
		t.Fatal(err)
	}
	if err := t.Runtime.Kill(t.ctx, l.ID, "e4", 15, false); err != nil {
		t.Error(err)
	}
	if e := t.exit(l.ID, "e4"); e.Code != 143 {
		t.Errorf("exit %+v", e)
	}
	if err := t.Runtime.Kill(t.ctx, l.ID, "", 9, true); err != nil {
		t.Fatal(err)
	}
	t.exit(l.ID, "")
	t.delete(l.ID)
}

func replay(_ *testing.T, t *tester) {
	l := t.Launch(t.T, "past", "sh", "-c", "exit 4")
	t.start(l)
	t.exit(l.ID, "")
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	again, err := t.Runtime.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if e := <-again; e.ID != l.ID || e.Code != 4 {
		t.Errorf("replayed %+v", e)
	}
	cancel()
	for range again { //nolint:revive // it ends with its context
	}
	t.delete(l.ID)
}

func pause(_ *testing.T, t *tester) {
	l := t.Launch(t.T, "frozen", "sleep", "1000")
	t.start(l)
	if err := t.Runtime.Pause(t.ctx, l.ID); err != nil {
		t.Fatal(err)
	}
	proc := *l.Spec.Process
	proc.Args = []string{"true"}
	if _, err := t.Runtime.Exec(t.ctx, &runtime.Exec{ContainerID: l.ID, ExecID: "e", Process: &proc}); !errs.Is(err, errs.Conflict) {
		t.Errorf("exec in a paused container gives %v", err)
	}
	if err := t.Runtime.Resume(t.ctx, l.ID); err != nil {
		t.Fatal(err)
	}
	if err := t.Runtime.Kill(t.ctx, l.ID, "", 15, false); err != nil {
		t.Fatal(err)
	}
	// Process 1 may ignore a signal it has no handler for.
	_ = t.Runtime.Kill(t.ctx, l.ID, "", 9, false)
	t.exit(l.ID, "")
	t.delete(l.ID)
}

func terminal(_ *testing.T, t *tester) {
	l := t.Launch(t.T, "tty", "echo", "raw")
	l.IO.TTY, l.IO.Stdin = true, true
	l.Spec.Process.Terminal = true
	s := t.attach(l, runtime.Attach{Stdin: true, Stdout: true, Stderr: true})
	t.start(l)
	out, err := io.ReadAll(s)
	if err != nil || string(out) != "raw\r\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	t.exit(l.ID, "")
	t.delete(l.ID)
}

func unknown(_ *testing.T, t *tester) {
	calls := map[string]error{
		"kill":   t.Runtime.Kill(t.ctx, "nobody", "", 9, false),
		"pause":  t.Runtime.Pause(t.ctx, "nobody"),
		"resume": t.Runtime.Resume(t.ctx, "nobody"),
		"resize": t.Runtime.Resize(t.ctx, "nobody", "", 1, 1),
	}
	for name, err := range calls {
		if !errs.Is(err, errs.NotFound) {
			t.Errorf("%s gives %v", name, err)
		}
	}
	t.delete("nobody")
}
