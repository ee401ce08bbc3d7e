//go:build root

package cgroup

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// useUp runs a process in the group that needs more memory than there is.
func useUp(t *testing.T, g *Group) {
	t.Helper()
	procs := g.dir("memory") + "/cgroup.procs"
	cmd := exec.Command("sh", "-c", "echo $$ > "+procs+" && exec dd if=/dev/zero of=/dev/null bs=64M count=1")
	if err := cmd.Run(); err == nil {
		t.Fatal("it had memory enough")
	}
}

func heard(t *testing.T, told <-chan struct{}, want bool) {
	t.Helper()
	wait := 5 * time.Second
	if !want {
		wait = 300 * time.Millisecond
	}
	select {
	case <-told:
		if !want {
			t.Error("told without a kill")
		}
	case <-time.After(wait):
		if want {
			t.Error("not told")
		}
	}
}

func TestOOMWatch(t *testing.T) {
	g := groupOf(t)
	limit := int64(16 << 20)
	if err := g.Apply(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}, false); err != nil {
		t.Fatal(err)
	}
	w := g.sys.OOMWatcher()
	told := make(chan struct{}, 100)
	watch := func(known bool) *OOMWatch {
		x, err := w.Watch(g, known, func() { told <- struct{}{} })
		if err != nil || x == nil {
			t.Fatal(x, err)
		}
		return x
	}
	x := watch(false)
	heard(t, told, false)
	for range 3 {
		useUp(t, g)
		heard(t, told, true)
	}
	heard(t, told, false)
	x.Stop()
	x.Stop()
	useUp(t, g)
	heard(t, told, false)
	x = watch(true) // what was before is known
	heard(t, told, false)
	useUp(t, g)
	heard(t, told, true)
	x.Stop()
	x = watch(false) // or told at once
	heard(t, told, true)
	x.Stop()

	gone, err := g.sys.Open(g.path + "/gone-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if x, err := w.Watch(gone, false, func() { told <- struct{}{} }); x != nil || err != nil {
		t.Errorf("of a group that is gone: %v, %v", x, err)
	}
	if err := gone.Create(); err != nil {
		t.Fatal(err)
	}
	y, err := w.Watch(gone, false, func() { told <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Delete(); err != nil {
		t.Fatal(err)
	}
	heard(t, told, false)
	y.Stop()
	(*OOMWatch)(nil).Stop()
}
