//go:build root

package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case launch.InitName, launch.ReaperName, "skiff-shim":
		os.Exit(Main(os.Args))
	}
	code := runtimetest.Isolate(m)
	if err := runtimetest.RemoveCgroupParent(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// options start this test program as the shim.
func options(t testing.TB) Options {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return Options{RunDir: filepath.Join(dir, "run"), Binary: program}
}

// shimOf starts a shim that is ended with the test, which checks that it kept
// nothing.
func shimOf(t testing.TB) *Client {
	t.Helper()
	o := options(t)
	c, err := Ensure(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endShim(t, c) })
	return c
}

func endShim(t testing.TB, c *Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	list, err := c.List(ctx)
	if err != nil {
		t.Errorf("list: %v", err)
	}
	for _, st := range list {
		t.Errorf("container %s is left", st.ID)
		_ = c.Kill(ctx, st.ID, "", 9, true)
	}
	for range list {
		for _, st := range list {
			for range 100 {
				if c.Delete(ctx, st.ID) == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	pid, err := c.Hello(ctx)
	if err != nil {
		t.Errorf("hello: %v", err)
		return
	}
	if t.Failed() {
		if log, err := os.ReadFile(filepath.Join(c.o.RunDir, logName)); err == nil {
			t.Logf("%s", log)
		}
	}
	_ = c.Close()
	_ = unix.Kill(pid, unix.SIGKILL)
	for range 500 { // its memory and descriptors are gone when it is
		if unix.Kill(pid, 0) != nil {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestConformance(t *testing.T) {
	lower := runtimetest.Rootfs(t)
	runtimetest.Suite(t, func(t *testing.T) *runtimetest.Env {
		return &runtimetest.Env{
			Runtime: shimOf(t),
			Launch: func(t *testing.T, id string, args ...string) *runtime.Launch {
				return runtimetest.Launch(t, lower, id, args...)
			},
		}
	})
}
