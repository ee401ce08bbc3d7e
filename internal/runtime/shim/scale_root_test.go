//go:build root

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// inventoryOf counts what containers may leave behind.
func inventoryOf(t *testing.T, c *Client) map[string]int {
	t.Helper()
	pid, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{
		"mounts":      strings.Count(readFile("/proc/"+itoa(pid)+"/mountinfo"), "\n"),
		"run files":   0,
		"descriptors": count(t, pid),
	}
	for _, k := range keepers(t, c.o.RunDir) {
		n["keeper's descriptors"] = count(t, k)
	}
	entries, err := os.ReadDir(filepath.Join(c.o.RunDir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	n["run files"] = len(entries)
	sys, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range sys.Mounts() {
		dirs, err := filepath.Glob(filepath.Join(m.Host, runtimetest.CgroupParent(), "*", "cgroup.procs"))
		dirs = slices.DeleteFunc(dirs, isParked)
		if err != nil {
			t.Fatal(err)
		}
		n["cgroups"] += len(dirs)
	}
	spaces := make(map[string]bool) // of the shim's children
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		for _, child := range strings.Fields(readFile(f)) {
			cmd := readFile("/proc/" + child + "/cmdline")
			if strings.HasPrefix(cmd, keeperName) || strings.HasPrefix(cmd, launch.InitName) {
				continue // it waits for a container
			}
			n["processes"]++
			for _, ns := range []string{"mnt", "net", "ipc", "uts", "pid", "cgroup"} {
				if id, err := os.Readlink("/proc/" + child + "/ns/" + ns); err == nil {
					spaces[id] = true
				}
			}
		}
	}
	n["namespaces"] = len(spaces)
	return n
}

func memoryOf(t *testing.T, c *Client) (kb int) {
	t.Helper()
	pid, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kb, err = strconv.Atoi(strings.Fields(rss(t, pid))[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

// TestScale starts many idle containers (SKIFF_SCALE, or 40), finds all alive,
// ends them, and looks for what is left.
func TestScale(t *testing.T) {
	many := 40
	if n, err := strconv.Atoi(os.Getenv("SKIFF_SCALE")); err == nil {
		many = n
	}
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx := t.Context()
	rest := memoryOf(t, c)
	runBox(t, c, runtimetest.Launch(t, lower, "warm", "true"))
	parkingDone(t, c)
	before := inventoryOf(t, c)
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ids := make(chan string)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for id := range ids {
				l := runtimetest.Launch(t, lower, id, "sleep", "100000")
				if _, err := c.Start(ctx, l); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	}
	hundred := 0
	for i := range many {
		if i == 100 {
			hundred = memoryOf(t, c)
		}
		ids <- fmt.Sprintf("idle-%d", i)
	}
	close(ids)
	wg.Wait()
	list, err := c.List(ctx)
	if err != nil || len(list) != many {
		t.Fatalf("%d containers, %v", len(list), err)
	}
	during, full := inventoryOf(t, c), memoryOf(t, c)
	for _, st := range list {
		if st.Exit != nil {
			t.Errorf("%s has ended", st.ID)
		}
		if err := c.Kill(ctx, st.ID, "", 9, false); err != nil {
			t.Error(err)
		}
	}
	for range many {
		e := <-exits
		if e.ID == "warm" {
			e = <-exits
		}
		if err := c.Delete(ctx, e.ID); err != nil {
			t.Error(err)
		}
	}
	var after map[string]int
	waitFor(t, func() bool { // idle connections of the client's come and go
		after = inventoryOf(t, c)
		for what, n := range before {
			if what == "descriptors" {
				n += maxIdle
			}
			if after[what] > n { // fewer: what tests before this one left is gone
				return false
			}
		}
		return true
	})
	t.Logf("%-22s %8s %8s %8s", "", "before", fmt.Sprint("with ", many), "after")
	for _, what := range []string{"processes", "mounts", "namespaces", "cgroups", "run files", "descriptors", "keeper's descriptors"} {
		t.Logf("%-22s %8d %8d %8d", what, before[what], during[what], after[what])
	}
	t.Logf("resident memory: %d KB at rest, %d KB with 100, %d KB with %d: %d KB each", rest, hundred, full, many, (full-rest)/many)
}
