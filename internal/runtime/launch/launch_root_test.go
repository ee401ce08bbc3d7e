//go:build root

package launch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// The tests' own program is the launcher, too.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case InitName:
		Main()
	case ReaperName:
		os.Exit(Reaper(os.Args))
	case labelsName:
		printLabels(os.Args[1:])
		os.Exit(0)
	}
	if os.Getenv("SKIFF_TEST_ISOLATED") == "" {
		os.Exit(runtimetest.Isolate(m))
	}
	if os.Getenv(onVersion2) != "" {
		if err := hideVersion1(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	unix.Umask(0) // like the shim
	code := runtimetest.Isolate(m)
	if err := runtimetest.RemoveCgroupParent(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func host(t testing.TB) *Host {
	t.Helper()
	sys, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	return &Host{Cgroups: sys, Exe: "/proc/self/exe"}
}

// A box is a container under test.
type box struct {
	t     testing.TB
	h     *Host
	l     *runtime.Launch
	o     Options
	group *cgroup.Group

	child    *Child
	console  *os.File
	out, err bytes.Buffer
	copied   chan struct{}
}

func newBox(t testing.TB, script string) *box {
	t.Helper()
	dir := t.TempDir() // numbered within a test
	id := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + "-" + filepath.Base(dir)
	b := &box{t: t, h: host(t), l: runtimetest.Launch(t, runtimetest.Rootfs(t), id, "sh", "-c", script), copied: make(chan struct{})}
	b.o.MountPoint = filepath.Join(dir, "root")
	if err := os.Mkdir(b.o.MountPoint, 0o700); err != nil {
		t.Fatal(err)
	}
	return b
}

// start launches it; what it prints is collected.
func (b *box) start() error {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var err error
	if b.group, err = b.h.Cgroups.Open(b.l.Spec.Linux.CgroupsPath); err != nil {
		b.t.Fatal(err)
	}
	if err := b.group.Create(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := b.group.Delete(); err != nil {
			b.t.Error(err)
		}
	})
	var prog *seccomp.Program
	if b.l.Spec.Linux.Seccomp != nil {
		if prog, err = seccomp.Compile(b.l.Spec.Linux.Seccomp, seccomp.Native()); err != nil {
			return err
		}
	}
	r1, w1, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	r2, w2, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.child, err = b.h.Start(b.l, prog, b.group, Streams{nil, w1, w2}, b.o)
	_, _ = w1.Close(), w2.Close()
	go func() {
		defer close(b.copied)
		_, _ = io.Copy(&b.out, r1)
		_, _ = io.Copy(&b.err, r2)
		_, _ = r1.Close(), r2.Close()
	}()
	if err != nil {
		return err
	}
	b.t.Cleanup(func() {
		if b.child != nil {
			_ = unix.PidfdSendSignal(b.child.PidFD, unix.SIGKILL, nil, 0)
			b.wait()
		}
	})
	b.console, err = b.child.Go(ctx)
	return err
}

// wait waits for the end and returns the exit code.
func (b *box) wait() int {
	b.t.Helper()
	poll := []unix.PollFd{{Fd: int32(b.child.PidFD), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, 30000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			b.t.Errorf("the container does not end: %v", err)
			_ = unix.PidfdSendSignal(b.child.PidFD, unix.SIGKILL, nil, 0)
		}
		break
	}
	status, err := proc.Wait(b.child.PidFD)
	if err != nil {
		b.t.Fatalf("wait: %v", err)
	}
	_ = unix.Close(b.child.PidFD)
	b.child = nil
	<-b.copied
	return proc.Code(status)
}

// run starts the box, waits for it and returns what it printed.
func (b *box) run() (string, error) {
	b.t.Helper()
	if err := b.start(); err != nil {
		return "", err
	}
	code := b.wait()
	if code != 0 {
		b.t.Logf("exit code %d, stderr: %s", code, b.err.String())
	}
	return b.out.String(), nil
}

// prints fails the test unless the box prints exactly this.
func (b *box) prints(want string) {
	b.t.Helper()
	got, err := b.run()
	if err != nil {
		b.t.Fatal(err)
	}
	if got != want {
		b.t.Errorf("printed %q, want %q; stderr %q", got, want, b.err.String())
	}
}

// fails fails the test unless the launch fails with these words.
func (b *box) fails(words string) {
	b.t.Helper()
	out, err := b.run()
	if err == nil || !strings.Contains(err.Error(), words) {
		b.t.Errorf("error is %v, want %q; it printed %q", err, words, out)
	}
}

// exec runs one more process in the box.
func (b *box) exec(p *specs.Process, prog *seccomp.Program) (string, error) {
	b.t.Helper()
	return b.execAs(&runtime.Exec{Process: p}, prog)
}

func (b *box) execAs(e *runtime.Exec, prog *seccomp.Program) (string, error) {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	e.ContainerID, e.ExecID = b.l.ID, "e"
	c, err := b.h.Exec(e, prog, b.group, Streams{nil, w, w}, b.child.PID, b.child.PidFD, ProcessOptions{})
	_ = w.Close()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, gerr := c.Go(ctx)
	out, _ := io.ReadAll(r)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.PidFD), Events: unix.POLLIN}}, 30000)
	_, werr := proc.Wait(c.PidFD)
	_ = unix.Close(c.PidFD)
	if werr != nil {
		b.t.Errorf("wait for exec: %v", werr)
	}
	return string(out), gerr
}

func itoa(n int) string { return fmt.Sprint(n) }
