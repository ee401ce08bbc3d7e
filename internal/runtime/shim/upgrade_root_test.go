//go:build root

package shim

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// another is the shim's program with something behind its end: another build.
func another(t *testing.T, n int) []byte {
	t.Helper()
	program, err := os.ReadFile(os.Getenv(shimEnv))
	if err != nil {
		t.Fatal(err)
	}
	return append(program, byte(n))
}

// become has the client's shim upgraded to another build and checks that it is
// the same process.
func become(t *testing.T, c *Client, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	before, err := c.call(ctx, &request{Op: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	next, err := Ensure(ctx, Options{RunDir: c.o.RunDir, Binary: another(t, n)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	after, err := c.call(ctx, &request{Op: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	if before.PID != after.PID || before.Build == after.Build {
		t.Fatalf("upgraded from %+v to %+v", before, after)
	}
}

// linesOf reads numbers, one a line, and checks that none is missing or twice.
func linesOf(r io.Reader) (n int, err error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		n++
		if text := strings.TrimSuffix(s.Text(), "\r"); text != strconv.Itoa(n) {
			return n, fmt.Errorf("line %d is %q", n, text)
		}
	}
	return n, s.Err()
}

// numbered makes lines of 64 bytes and a newline.
func numbered(lines int) []byte {
	var b bytes.Buffer
	for i := range lines {
		_, _ = fmt.Fprintf(&b, "%064d\n", i)
	}
	return b.Bytes()
}

// demux gives the stdout of multiplexed frames as they come.
func demux(r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		var head [8]byte
		for {
			if _, err := io.ReadFull(r, head[:]); err != nil {
				_ = pw.CloseWithError(err)
				return
			}
			n := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
			if _, err := io.CopyN(pw, r, n); err != nil {
				_ = pw.CloseWithError(err)
				return
			}
		}
	}()
	return pr
}

// One container writes 100 MB to its log, another does so on a terminal before
// a client, a third to a client that is slow, an exec runs, containers end and
// begin: and the shim is upgraded again and again.
func TestUpgrade(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const rounds, some = 20, 300000
	chunk := numbered(80000) // 20 of it are 104 MB
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "chunk"), chunk, 0o644); err != nil {
		t.Fatal(err)
	}
	loud := runtimetest.Launch(t, lower, "loud", "sh", "-c", fmt.Sprintf("for i in $(seq %d); do cat /flag/chunk; sleep 0.03; done", rounds))
	loud.Spec.Mounts = append(loud.Spec.Mounts, bindMount("/flag", dir))
	loud.Log = runtime.Log{Driver: "local", Path: filepath.Join(t.TempDir(), "log")}
	tty := runtimetest.Launch(t, lower, "tty", "sh", "-c", fmt.Sprintf("read x; seq 1 %d; exit 9", some))
	tty.IO, tty.Spec.Process.Terminal = runtime.IO{TTY: true, Stdin: true}, true
	echo := runtimetest.Launch(t, lower, "echo", "cat")
	echo.IO = runtime.IO{Stdin: true, StdinOnce: true}
	host := runtimetest.Launch(t, lower, "host", "sleep", "1000")

	terminal, err := c.Attach(ctx, tty.ID, "", runtime.Attach{Stdin: true, Stdout: true, Stderr: true}, tty.IO, tty.Log)
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := c.Attach(ctx, echo.ID, "", runtime.Attach{Stdin: true, Stdout: true}, echo.IO, echo.Log)
	if err != nil {
		t.Fatal(err)
	}
	early, err := c.Attach(ctx, "later", "", runtime.Attach{Stdout: true}, runtime.IO{}, runtime.Log{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*runtime.Launch{loud, tty, echo, host} {
		if _, err := c.Start(ctx, l); err != nil {
			t.Fatal(err)
		}
	}
	command := *host.Spec.Process
	command.Args = []string{"sh", "-c", fmt.Sprintf("seq 1 %d; exit 8", some)}
	run, err := c.Attach(ctx, host.ID, "e", runtime.Attach{Stdout: true}, runtime.IO{}, runtime.Log{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(ctx, &runtime.Exec{ContainerID: host.ID, ExecID: "e", Process: &command}); err != nil {
		t.Fatal(err)
	}

	var readers sync.WaitGroup
	expect := func(what string, r io.Reader, want int) {
		readers.Go(func() {
			if n, err := linesOf(r); n != want || err != nil {
				t.Errorf("%s: %d lines, %v", what, n, err)
			}
		})
	}
	if _, err := io.WriteString(terminal, "\n"); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 2) // the echo of what was typed
	if _, err := io.ReadFull(terminal, head); err != nil || string(head) != "\r\n" {
		t.Fatalf("%q, %v", head, err)
	}
	expect("terminal", terminal, some)
	expect("exec", demux(run), some)
	expect("cat", &slowReader{r: demux(pipe)}, some)
	expect("attached early", demux(early), 3)
	readers.Go(func() {
		w := bufio.NewWriter(pipe)
		for i := range some {
			_, _ = fmt.Fprintln(w, i+1)
		}
		if err := errors.Join(w.Flush(), pipe.CloseWrite()); err != nil {
			t.Error(err)
		}
	})
	codes := make(chan map[string]int)
	go func() {
		got := make(map[string]int)
		for e := range exits {
			if e.Unknown || got[e.ID+e.ExecID] != 0 {
				t.Errorf("told of %+v", e)
			}
			got[e.ID+e.ExecID] = e.Code + 1
			if len(got) == 15 {
				break
			}
		}
		codes <- got
	}()
	for n := range 5 {
		for _, gap := range []int{0, 30} { // these end at about the time of the upgrade
			id := fmt.Sprintf("short-%d-%d", n, gap)
			if _, err := c.Start(ctx, runtimetest.Launch(t, lower, id, "sh", "-c", fmt.Sprintf("sleep 0.0%d; exit %d", gap, n))); err != nil {
				t.Fatal(err)
			}
		}
		become(t, c, n)
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := c.Start(ctx, runtimetest.Launch(t, lower, "later", "seq", "1", "3")); err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	select {
	case got = <-codes:
	case <-ctx.Done():
		t.Fatal("not all ended")
	}
	readers.Wait()
	for id, code := range map[string]int{"loud": 0, "tty": 9, "echo": 0, "hoste": 8, "later": 0, "short-3-0": 3, "short-4-30": 4} {
		if got[id] != code+1 {
			t.Errorf("%s: exit code %d, want %d", id, got[id]-1, code)
		}
	}
	rd, err := logs.Open(ctx, loud.Log, logs.ReadOptions{Stdout: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	pr, pw := io.Pipe()
	go func() { _, err := rd.WriteTo(pw); _ = pw.CloseWithError(err) }()
	all := demux(pr)
	for n := range rounds {
		got := make([]byte, len(chunk))
		if _, err := io.ReadFull(all, got); err != nil || !bytes.Equal(got, chunk) {
			t.Fatalf("log: part %d is not what was printed, %v", n, err)
		}
	}
	if n, err := io.Copy(io.Discard, all); n != 0 || err != nil {
		t.Errorf("log: %d bytes more, %v", n, err)
	}
	_ = rd.Close()
	if err := c.Kill(ctx, host.ID, "", 9, false); err != nil {
		t.Error(err)
	}
	waitFor(t, func() bool { return c.Delete(ctx, host.ID) == nil })
	for id := range got {
		if id != "hoste" {
			if err := c.Delete(ctx, id); err != nil {
				t.Error(err)
			}
		}
	}
}

// slowReader lets the shim's queue fill.
type slowReader struct {
	r io.Reader
	n int
}

func (s *slowReader) Read(p []byte) (int, error) {
	if s.n++; s.n%16 == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	return s.r.Read(p)
}

// An upgraded shim holds no descriptor more than before, and its containers get
// none.
func TestUpgradeLeaksNothing(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx := t.Context()
	l := runtimetest.Launch(t, lower, "host", "cat")
	l.IO.Stdin = true
	if _, err := c.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	pid, err := c.Hello(ctx)
	if err != nil {
		t.Fatal(err)
	}
	become(t, c, 1)
	fds := count(t, pid)
	for n := range 3 {
		become(t, c, n+2)
	}
	waitFor(t, func() bool { return count(t, pid) <= fds+maxIdle })
	r := runBox(t, c, runtimetest.Launch(t, lower, "look", "sh", "-c", "ls /proc/self/fd | wc -l"))
	if r.out != "4\n" { // the streams and the directory
		t.Errorf("a container has %s descriptors", strings.TrimSpace(r.out))
	}
	if err := c.Kill(ctx, l.ID, "", 9, false); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return c.Delete(ctx, l.ID) == nil })
}

// What cannot take over does not.
func TestUpgradeRefused(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx := t.Context()
	l := runtimetest.Launch(t, lower, "host", "cat")
	l.IO = runtime.IO{Stdin: true, StdinOnce: true}
	s, err := c.Attach(ctx, l.ID, "", runtime.Attach{Stdin: true, Stdout: true}, l.IO, l.Log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	truth, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.Open("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	for name, f := range map[string]*os.File{"text": seal(t, []byte("hello")), "script": seal(t, []byte("#!/bin/sh\nsleep 1\n")), "true": seal(t, truth), "open": open} {
		_, err := c.call(ctx, &request{Op: "upgrade", Program: true}, int(f.Fd()))
		if !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.call(ctx, &request{Op: "upgrade"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := io.WriteString(s, "still\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, _, err := runtimetest.Demux(s); err != nil || out != "still\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	waitFor(t, func() bool { return c.Delete(ctx, l.ID) == nil })
}

func seal(t *testing.T, program []byte) *os.File {
	t.Helper()
	f, err := Seal(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// The kernel refuses to execute at the very end: all goes on as it was.
func TestUpgradeFails(t *testing.T) {
	lower, o := runtimetest.Rootfs(t), options(t)
	if err := os.MkdirAll(o.RunDir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := newServer(o.RunDir, openLog, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	s.host.Exe = o.Path
	s.execve = func(string, []string, []string) error { tried++; return unix.ENOMEM }
	l, err := s.begin()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.serve(l) }()
	defer func() { _ = s.lock.Close() }()
	c, err := Ensure(t.Context(), Options{RunDir: o.RunDir}) // no program: it has what there is
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx := t.Context()
	box := runtimetest.Launch(t, lower, "box", "cat")
	box.IO = runtime.IO{Stdin: true, StdinOnce: true}
	box.Log = runtime.Log{Driver: "json-file", Path: filepath.Join(t.TempDir(), "log")}
	st, err := c.Attach(ctx, box.ID, "", runtime.Attach{Stdin: true, Stdout: true}, box.IO, box.Log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(ctx, box); err != nil {
		t.Fatal(err)
	}
	const lines = 60000
	go func() {
		w := bufio.NewWriter(st)
		for i := range lines {
			_, _ = fmt.Fprintln(w, i+1)
		}
		_ = w.Flush()
		_ = st.CloseWrite()
	}()
	done := make(chan error)
	go func() {
		n, err := linesOf(demux(st))
		if err == nil && n != lines {
			err = fmt.Errorf("%d lines", n)
		}
		done <- err
	}()
	for range 5 {
		if _, err := c.call(ctx, &request{Op: "upgrade", Program: true}, int(seal(t, another(t, 0)).Fd())); err == nil || !strings.Contains(err.Error(), "cannot allocate memory") {
			t.Errorf("upgrade gives %v", err)
		}
	}
	if err := <-done; err != nil || tried != 5 {
		t.Errorf("after %d attempts: %v", tried, err)
	}
	waitFor(t, func() bool { return c.Delete(ctx, box.ID) == nil })
	if text := readFile(box.Log.Path); strings.Count(text, "\n") < lines {
		t.Errorf("the log has %d lines", strings.Count(text, "\n"))
	}
	_ = l.Close()
	if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
