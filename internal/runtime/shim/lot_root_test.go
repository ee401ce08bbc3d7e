//go:build root

package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// parkedIn lists the links to what a shim has parked, and the processes that
// are in those groups.
func parkedIn(t *testing.T, c *Client) (names, pids []string) {
	t.Helper()
	// Threads of the shim visit the groups when they clone.
	hello, err := c.call(context.Background(), &request{Op: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	links, _ := os.ReadDir(filepath.Join(c.o.RunDir, lotDir))
	for _, l := range links {
		names = append(names, l.Name())
		group, _ := os.Readlink(filepath.Join(c.o.RunDir, lotDir, l.Name()))
		pids = append(pids, strings.Fields(readFile("/sys/fs/cgroup/memory"+group+"/cgroup.procs"))...)
	}
	pids = slices.DeleteFunc(pids, func(p string) bool { return p == itoa(hello.PID) })
	return names, pids
}

// stocked waits until the lot is full.
func stocked(t *testing.T, c *Client) (names, pids []string) {
	t.Helper()
	waitFor(t, func() bool {
		names, pids = parkedIn(t, c)
		return len(names) == lotSize && len(pids) == lotSize
	})
	return names, pids
}

// isParked tells whether a file is of the control group of a parked child.
func isParked(file string) bool {
	return strings.HasPrefix(filepath.Base(filepath.Dir(file)), "parked-")
}

// parkingDone waits until the shim has what it will have, where it parks at all.
func parkingDone(t *testing.T, c *Client) {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		stocked(t, c)
	}
}

func lotOf(t *testing.T) *Client {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		t.Skip("control groups of version 2 cannot be renamed: nothing is parked")
	}
	return shimOf(t)
}

// parkedGroups lists the groups of parked children, whoever's they are.
func parkedGroups() []string {
	out, _ := filepath.Glob("/sys/fs/cgroup/*" + runtimetest.CgroupParent() + "/parked-*")
	return out
}

// The second container is one that was parked; it is in the group that its
// specification names, and in none of another name.
func TestParkedIsTaken(t *testing.T) {
	c, lower := lotOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for i := range 4 {
		l := runtimetest.Launch(t, lower, fmt.Sprintf("taken-%d", i), "sh", "-c", "exec sleep 1000")
		st, err := c.Start(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && !slices.Contains(pids, itoa(st.PID)) {
			t.Errorf("container %d is process %d, which was not parked: %v", i, st.PID, pids)
		}
		for line := range strings.Lines(readFile("/proc/" + itoa(st.PID) + "/cgroup")) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if f[0] != "0" && f[2] != l.Spec.Linux.CgroupsPath {
				t.Errorf("it is in %s", line)
			}
		}
		waitFor(t, func() bool { return strings.HasPrefix(readFile("/proc/"+itoa(st.PID)+"/cmdline"), "sleep") })
		if got, err := c.PIDs(ctx, l.ID); err != nil || !slices.Equal(got, []int{st.PID}) {
			t.Errorf("its processes are %v (%v), want %d", got, err, st.PID)
		}
		_, pids = stocked(t, c)
	}
	for i := range 4 {
		id := fmt.Sprintf("taken-%d", i)
		if err := c.Kill(ctx, id, "", 9, false); err != nil {
			t.Error(err)
		}
		<-exits
		if err := c.Delete(ctx, id); err != nil {
			t.Error(err)
		}
	}
	// Dead ones are not taken: the next start works all the same.
	_, pids = stocked(t, c)
	for _, pid := range pids {
		_ = unix.Kill(atoi(pid), unix.SIGKILL)
	}
	waitFor(t, func() bool { _, alive := parkedIn(t, c); return len(alive) == 0 })
	if r := runBox(t, c, runtimetest.Launch(t, lower, "after", "echo", "fine")); r.out != "fine\n" {
		t.Errorf("%+v", r)
	}
}

// A shim that is killed leaves no parked child; the next one removes the groups.
func TestParkedShimKilled(t *testing.T) {
	c, lower := lotOf(t), runtimetest.Rootfs(t)
	before := parkedGroups()
	runBox(t, c, runtimetest.Launch(t, lower, "first", "true"))
	names, pids := stocked(t, c)
	killShim(t, c)
	for _, pid := range pids {
		waitFor(t, func() bool { return unix.Kill(atoi(pid), 0) != nil })
	}
	if _, err := c.Hello(context.Background()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		left, _ := parkedIn(t, c)
		return len(left) == 0
	})
	for _, g := range parkedGroups() {
		if slices.Contains(names, filepath.Base(g)) {
			t.Errorf("%s is left", g)
		}
	}
	if now := parkedGroups(); len(now) > len(before) {
		t.Errorf("groups %v are left, before there were %v", now, before)
	}
}

// An upgrade parks nobody on the way: what was there is gone, and what comes
// after is new.
func TestParkedUpgrade(t *testing.T) {
	c, lower := lotOf(t), runtimetest.Rootfs(t)
	runBox(t, c, runtimetest.Launch(t, lower, "first", "true"))
	names, pids := stocked(t, c)
	become(t, c, 1)
	left, _ := parkedIn(t, c)
	if len(left) != 0 {
		t.Errorf("%v of %v are left", left, names)
	}
	for _, pid := range pids {
		if unix.Kill(atoi(pid), 0) == nil {
			t.Errorf("parked child %s is left", pid)
		}
	}
	runBox(t, c, runtimetest.Launch(t, lower, "second", "true"))
	stocked(t, c)
}

// Other limits of devices, or another parent: not what was parked for.
func TestParkedForAnother(t *testing.T) {
	t.Cleanup(func() { // after the shim's end
		sys, err := cgroup.Detect()
		if err != nil {
			t.Fatal(err)
		}
		g, err := sys.Open(runtimetest.CgroupParent() + "/deeper")
		if err == nil {
			err = g.Delete()
		}
		if err != nil {
			t.Error(err)
		}
	})
	c, lower := lotOf(t), runtimetest.Rootfs(t)
	runBox(t, c, runtimetest.Launch(t, lower, "first", "true"))
	names, _ := stocked(t, c)
	for i := range 2 {
		l := runtimetest.Launch(t, lower, fmt.Sprintf("other-%d", i), "true")
		l.Spec.Linux.CgroupsPath = runtimetest.CgroupParent() + "/deeper/" + l.ID
		runBox(t, c, l)
		if i == 0 { // once is not enough to change what is parked
			if now, _ := stocked(t, c); !slices.Equal(now, names) {
				t.Errorf("%v were exchanged for %v", names, now)
			}
		}
	}
	waitFor(t, func() bool {
		now, _ := stocked(t, c)
		return !slices.ContainsFunc(now, func(n string) bool { return slices.Contains(names, n) })
	})
}
