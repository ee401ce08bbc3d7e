//go:build root

package shim

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(shimEnv) == "" {
		race := os.Getenv("SKIFF_RACE") != ""
		dir, err := os.MkdirTemp("", "skiff-shim")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		program := filepath.Join(dir, "skiff-shim")
		if _, err := exec.LookPath("go"); err != nil { // as in a virtual machine
			program = filepath.Join(os.Getenv("SKIFF_BIN"), "skiff-shim")
		} else {
			build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/skiff-containers/skiff/cmd/skiff-shim")
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if race { // the detector needs cgo; and static, for the shim is also the init of containers without a libc
				build = exec.Command("go", "build", "-race", "-trimpath", "-tags=osusergo,netgo", "-ldflags=-linkmode=external -extldflags=-static",
					"-o", program, "github.com/skiff-containers/skiff/cmd/skiff-shim")
				build.Env = append(os.Environ(), "CGO_ENABLED=1")
				_ = os.Setenv("GORACE", "log_path="+filepath.Join(dir, "race"))
			}
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build the shim: %v\n%s", err, out)
				os.Exit(1)
			}
		}
		_ = os.Setenv(shimEnv, program)
		code := runtimetest.Isolate(m)
		if reports, _ := filepath.Glob(filepath.Join(dir, "race.*")); len(reports) > 0 {
			for _, r := range reports {
				text, _ := os.ReadFile(r)
				fmt.Fprintf(os.Stderr, "%s\n", text)
			}
			code = 1
		}
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}
	code := runtimetest.Isolate(m)
	if err := runtimetest.RemoveCgroupParent(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// shimEnv names the shim that was built for the tests.
const shimEnv = "SKIFF_TEST_SHIM"

// options start the shim that was built.
func options(t testing.TB) Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "shim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return Options{RunDir: filepath.Join(dir, "run"), Path: os.Getenv(shimEnv)}
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
	if log := readFile(filepath.Join(c.o.RunDir, logName)); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
		t.Error("the shim has faults")
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

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
