//go:build root

package shim

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// keepers finds the processes that keep terminals for a run directory.
func keepers(t *testing.T, dir string) []int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, p := range all {
		if readFile(filepath.Join(p, "cmdline")) == keeperName+"\x00"+dir+"\x00" {
			out = append(out, atoi(filepath.Base(p)))
		}
	}
	return out
}

func atoi(s string) (n int) {
	for _, b := range []byte(s) {
		n = n*10 + int(b-'0')
	}
	return n
}

func killShim(t *testing.T, c *Client) {
	t.Helper()
	pid, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return unix.Kill(pid, 0) != nil })
}

// Terminals and stdins outlive a shim that is killed, also a keeper that is, as
// long as not both are.
func TestTerminalOutlivesShim(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tty := runtimetest.Launch(t, lower, "tty", "sh", "-c", "while read x; do echo got $x; [ $x = end ] && exit 7; done; exit 1")
	tty.IO, tty.Spec.Process.Terminal = runtime.IO{TTY: true, Stdin: true}, true
	tty.Log = runtime.Log{Driver: "json-file", Path: filepath.Join(t.TempDir(), "log")}
	cat := runtimetest.Launch(t, lower, "cat", "sh", "-c", "cat; exit 6")
	cat.IO = runtime.IO{Stdin: true, StdinOnce: true}
	for _, l := range []*runtime.Launch{tty, cat} {
		if _, err := c.Start(ctx, l); err != nil {
			t.Fatal(err)
		}
	}
	command := *tty.Spec.Process
	command.Args = []string{"sh", "-c", "read x; echo exec $x; exit 5"}
	if _, err := c.Exec(ctx, &runtime.Exec{ContainerID: "tty", ExecID: "e", Process: &command, IO: tty.IO}); err != nil {
		t.Fatal(err)
	}
	say := func(id, execID string, io_ runtime.IO, text, want string) {
		t.Helper()
		s, err := c.Attach(ctx, id, execID, runtime.Attach{Stdin: true, Stdout: true}, io_, runtime.Log{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(s, text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(s, got); err != nil || string(got) != want {
			t.Fatalf("%s %s says %q, %v", id, execID, got, err)
		}
		_ = s.Close()
	}
	say("tty", "", tty.IO, "one\n", "one\r\ngot one\r\n")
	killShim(t, c)
	say("tty", "", tty.IO, "two\n", "two\r\ngot two\r\n")
	if err := c.Resize(ctx, "tty", "", 10, 20); err != nil {
		t.Error(err)
	}
	kept := keepers(t, c.o.RunDir)
	if len(kept) != 1 {
		t.Fatalf("keepers %v", kept)
	}
	t.Logf("the keeper has %s of memory", rss(t, kept[0]))
	if err := unix.Kill(kept[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { now := keepers(t, c.o.RunDir); return len(now) == 1 && now[0] != kept[0] })
	killShim(t, c)
	become(t, c, 1)
	killShim(t, c)
	say("tty", "e", tty.IO, "x\n", "x\r\nexec x\r\n")
	say("tty", "", tty.IO, "end\n", "end\r\ngot end\r\n")

	s, err := c.Attach(ctx, "cat", "", runtime.Attach{Stdin: true, Stdout: true}, cat.IO, cat.Log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "fed\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, _, err := runtimetest.Demux(s); err != nil || out != "fed\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	want := map[string]int{"tty": 7, "cat": 6, "ttye": 5}
	for range len(want) {
		e := <-exits
		if !adoptedEnd(e, want[e.ID+e.ExecID]) {
			t.Errorf("exit %+v", e)
		}
	}
	for _, id := range []string{"tty", "cat"} {
		if err := c.Delete(ctx, id); err != nil {
			t.Error(err)
		}
	}
	if text := readFile(tty.Log.Path); strings.Count(text, "got ") != 3 {
		t.Errorf("log: %s", text)
	}
	killShim(t, c) // it held the last
	waitFor(t, func() bool { return len(keepers(t, c.o.RunDir)) == 0 })
}

func rss(t *testing.T, pid int) string {
	t.Helper()
	for line := range strings.Lines(readFile("/proc/" + itoa(pid) + "/status")) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "?"
}

// A keeper that nobody needs goes with its run directory.
func TestKeeperEnds(t *testing.T) {
	o := options(t)
	c, err := Ensure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	l := runtimetest.Launch(t, runtimetest.Rootfs(t), "cat", "cat")
	l.IO.Stdin = true
	st, err := c.Start(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for _, p := range []int{pid, st.PID} {
		if err := unix.Kill(p, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(o.RunDir); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(keepers(t, o.RunDir)) == 0 })
	waitFor(t, func() bool { return unix.Kill(st.PID, 0) != nil })
	g, err := newServer(o.RunDir, openLog, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	group, err := g.group(l.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Delete(); err != nil {
		t.Error(err)
	}
}
