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

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// Shims are killed over starts, early and late in them: each start succeeds all
// the same, once.
func TestStartOutlivesShim(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	exits, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const many = 24
	for i := range many {
		id := fmt.Sprintf("lost-%d", i)
		l := runtimetest.Launch(t, lower, id, "sleep", "1000")
		l.Rootfs.Volatile = false
		pid, err := c.Hello(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			time.Sleep(time.Duration(i) * time.Millisecond)
			_ = unix.Kill(pid, unix.SIGKILL)
		}()
		started, err := c.Start(t.Context(), l)
		<-killed
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		pids, err := c.PIDs(t.Context(), id)
		if err != nil || len(pids) != 1 || pids[0] != started.PID {
			t.Errorf("%s: started as %d, and there are %v, %v", id, started.PID, pids, err)
		}
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != many {
		t.Errorf("%d containers, %v", len(list), err)
	}
	for _, st := range list {
		if err := c.Kill(t.Context(), st.ID, "", 9, false); err != nil {
			t.Error(err)
		}
	}
	for range list {
		if err := c.Delete(t.Context(), (<-exits).ID); err != nil {
			t.Error(err)
		}
	}
}

// A process whose record is gone, for the shim was killed while it undid a
// start, is nobody's: the next shim ends it.
func TestUnknownProcessEnds(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	st, err := c.Start(t.Context(), runtimetest.Launch(t, lower, "nobodys", "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.o.RunDir, "c", "nobodys")
	if err := os.Remove(filepath.Join(dir, "p-")); err != nil {
		t.Fatal(err)
	}
	killShim(t, c)
	if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	waitFor(t, func() bool { return unix.Kill(st.PID, 0) != nil })
	if exists(dir) {
		t.Error("its directory is left")
	}
}

// How a process ended outlives a shim that is killed while it still reads what
// was printed, even where the kernel tells nobody else: from before it is reaped
// on it is on disk.
func TestExitOutlivesShimThatReads(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	exits, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := runtimetest.Launch(t, lower, "reads", "sleep", "1000")
	if _, err := c.Start(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	command := *l.Spec.Process
	command.Args = []string{"sh", "-c", "sleep 1000 & exit 3"} // which holds the pipes
	st, err := c.Exec(t.Context(), &runtime.Exec{ContainerID: "reads", ExecID: "e", Process: &command})
	if err != nil {
		t.Fatal(err)
	}
	shim, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return unix.Kill(st.PID, 0) != nil })
	for _, pid := range append([]int{shim}, keepers(t, c.o.RunDir)...) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if e := <-exits; e.ExecID != "e" || e.Code != 3 || e.Unknown {
		t.Errorf("exit %+v", e)
	}
	if err := c.Kill(t.Context(), "reads", "", 9, true); err != nil {
		t.Fatal(err)
	}
	if e := <-exits; e.ID != "reads" {
		t.Errorf("exit %+v", e)
	}
	if err := c.Delete(t.Context(), "reads"); err != nil {
		t.Error(err)
	}
}

// A client that leaves at any moment of a start whose streams are its own and then
// has it deleted leaves nothing.
func TestClientLeavesDuringStart(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	for i := range 120 {
		id := fmt.Sprintf("left-%d", i)
		l := runtimetest.Launch(t, lower, id, "sleep", "1000")
		l.IO.Passed = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		_, err := c.Start(ctx, l)
		cancel()
		if err != nil {
			err = c.Delete(t.Context(), id) // one that runs is told of
			if _, pidErr := c.PIDs(t.Context(), id); err == nil && pidErr == nil {
				t.Errorf("%s was deleted and is there", id)
			}
		}
		if err == nil || errs.Is(err, errs.Conflict) {
			_ = c.Kill(t.Context(), id, "", 9, true)
			waitFor(t, func() bool { return c.Delete(t.Context(), id) == nil })
		}
	}
	waitFor(t, func() bool { list, err := c.List(t.Context()); return err == nil && len(list) == 0 })
}
