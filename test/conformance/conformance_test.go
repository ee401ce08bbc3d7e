//go:build root

// Package conformance runs public test suites against the built executables.
package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
	"github.com/skiff-containers/skiff/test/harness"
)

func TestMain(m *testing.M) {
	// Once out here, where there is a network; inside it is in Go's cache.
	get := exec.Command("go", "mod", "download")
	get.Dir = "suite"
	_ = get.Run() // the test says what is missing
	os.Exit(runtimetest.Isolate(m))
}

// ofVersion1 are the programs that look into control groups.
var ofVersion1 = regexp.MustCompile(`^(linux_cgroups_.*|delete_resources|delete_only_create_resources)$`)

// TestRuntimeTools runs the OCI's validation programs with skiff-runtime. Those
// that docs/conformance.md lists may fail, for the reason given there; the others
// must pass.
func TestRuntimeTools(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skipf("the suite brings no root file system for %s", runtime.GOARCH)
	}
	dir := t.TempDir()
	programs := buildSuite(t, dir)
	wrapper := filepath.Join(dir, "runtime")
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s \"$@\"\n", harness.Bin(t, "skiff-runtime"), filepath.Join(dir, "state"))
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	known := knownFailures(t)
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	v2 := err == nil
	programsPassed, ok, notOK := 0, 0, 0
	for _, p := range programs {
		name := filepath.Base(p)
		if v2 && ofVersion1.MatchString(name) {
			t.Logf("%s: not run, the suite knows control groups of version 1 only", name)
			continue
		}
		_, listed := known[name]
		r := runProgram(t, dir, p, wrapper)
		// Some programs race with their containers: a signal sent before the shell
		// in there has set its trap is lost on process 1.
		for try := 1; !r.passed() && !listed && try < 4; try++ {
			t.Logf("%s: once more, after %d of %d", name, r.ok, r.ok+r.notOK)
			r = runProgram(t, dir, p, wrapper)
		}
		ok, notOK = ok+r.ok, notOK+r.notOK
		switch {
		case r.passed():
			programsPassed++
			if listed {
				t.Logf("%s passes, though docs/conformance.md lists it", name)
			}
		case listed:
			t.Logf("%s: %d of %d, as listed: %s", name, r.ok, r.ok+r.notOK, known[name])
		default:
			t.Errorf("%s: %v, %d of %d\n%s\n%s", name, r.err, r.ok, r.ok+r.notOK, r.out, r.stderr)
		}
	}
	count := fmt.Sprintf("OCI runtime-tools: %d of %d programs pass; %d of %d assertions", programsPassed, len(programs), ok, ok+notOK)
	t.Log(count)
	// For scripts/test-root.sh, which prints it: go test is silent about what passed.
	if err := os.WriteFile(filepath.Join(filepath.Dir(harness.Bin(t, "skiff-runtime")), "conformance.txt"), []byte(count+"\n"), 0o644); err != nil {
		t.Log(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "state")); err == nil && len(left) > 0 {
		t.Logf("the suite left %d containers behind", len(left))
		for _, e := range left {
			_ = exec.Command(wrapper, "delete", "--force", e.Name()).Run()
		}
	}
}

const helper, image = "runtimetest", "rootfs-amd64.tar.gz"

// buildSuite builds the programs and lays out what they look for in their
// working directory. With SKIFF_TEST_SUITE they are in that directory already.
func buildSuite(t *testing.T, dir string) []string {
	t.Helper()
	bin := os.Getenv("SKIFF_TEST_SUITE")
	if bin == "" {
		bin = filepath.Join(filepath.Dir(harness.Bin(t, "skiff-runtime")), "conformance")
		build(t, bin)
	}
	found, err := os.ReadDir(bin)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range found {
		from := filepath.Join(bin, e.Name())
		if e.Name() != helper && e.Name() != image {
			out = append(out, from)
			continue
		}
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// build leaves the programs and their image in a directory.
func build(t *testing.T, bin string) {
	t.Helper()
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	golang := func(args ...string) []byte {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = "suite", append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		out, err := cmd.Output()
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Skipf("the suite cannot be built here: go %s: %s", args[0], ee.Stderr)
		}
		if err != nil {
			t.Skip(err)
		}
		return out
	}
	const module = "github.com/opencontainers/runtime-tools"
	imports := strings.Fields(string(golang("list", "-e", "-tags", "tools", "-f", `{{join .Imports "\n"}}`, ".")))
	golang(append([]string{"build", "-ldflags", "-s -w", "-o", bin + "/"}, imports...)...)
	src := strings.TrimSpace(string(golang("list", "-m", "-f", "{{.Dir}}", module)))
	data, err := os.ReadFile(filepath.Join(src, image))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, image), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

type result struct {
	ok, notOK   int
	err         error
	out, stderr string
}

func (r *result) passed() bool { return r.err == nil && r.notOK == 0 }

func runProgram(t *testing.T, dir, program, wrapper string) *result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &stderr
	cmd.Env = append(os.Environ(), "RUNTIME="+wrapper)
	r := &result{err: cmd.Run(), out: out.String(), stderr: stderr.String()}
	r.ok = len(regexp.MustCompile(`(?m)^ok `).FindAllString(r.out, -1))
	r.notOK = len(regexp.MustCompile(`(?m)^not ok `).FindAllString(r.out, -1))
	return r
}

// knownFailures reads the table of docs/conformance.md.
func knownFailures(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "conformance.md"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (.*) \\|$").FindAllStringSubmatch(string(page), -1) {
		known[m[1]] = m[2]
	}
	return known
}
