//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Procs lists the processes of the group and of those below it.
func (g *Group) Procs() ([]int, error) {
	var root string
	for _, c := range []string{"pids", "memory", "freezer"} {
		if root = g.dir(c); root != "" {
			break
		}
	}
	if root == "" {
		root = g.dirs()[0]
	}
	var out []int
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p != root {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		text, err := read(p, "cgroup.procs")
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for line := range strings.FieldsSeq(text) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				out = append(out, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("processes of control group %s: %w", g.path, err)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Leaf is the group of version 2, this one or one below, that a process is in.
func (g *Group) Leaf(pid int) (*Group, error) {
	text, err := read("/proc/"+strconv.Itoa(pid), "cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if ok && (p == g.path || strings.HasPrefix(p, g.path+"/")) {
			return g.sys.Open(p)
		}
	}
	return nil, fmt.Errorf("process %d is not in control group %s", pid, g.path)
}

// Freeze stops all processes of the group, or lets them go on, and waits until
// that is so.
func (g *Group) Freeze(frozen bool) error {
	dir := g.dir("freezer")
	if dir == "" {
		return fmt.Errorf("control group %s: no freezer is mounted", g.path)
	}
	if g.sys.Unified() {
		err := freezeV2(dir, frozen)
		if g.scope != nil && !frozen && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)) {
			return nil // killed while frozen, and gone with its last process
		}
		return err
	}
	want := "THAWED"
	if frozen {
		want = "FROZEN"
	}
	for i := range 1000 {
		// Written anew each time: a fork at the wrong moment keeps the group
		// FREEZING for ever otherwise.
		if err := write(dir, "freezer.state", want); err != nil {
			return err
		}
		now, err := read(dir, "freezer.state")
		if err != nil {
			return err
		}
		if now == want {
			return nil
		}
		if i%50 == 49 { // let a fork finish, then try again
			_ = write(dir, "freezer.state", "THAWED")
		}
		time.Sleep(time.Millisecond)
	}
	_ = write(dir, "freezer.state", "THAWED")
	return fmt.Errorf("control group %s: not %s after a second", g.path, strings.ToLower(want))
}

func freezeV2(dir string, frozen bool) error {
	want := "0"
	if frozen {
		want = "1"
	}
	if err := write(dir, "cgroup.freeze", want); err != nil {
		return err
	}
	for range 1000 {
		events, err := read(dir, "cgroup.events")
		if err != nil {
			return err
		}
		if strings.Contains(events, "frozen "+want) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("%s: not frozen after a second", dir)
}

// Frozen tells whether the group is, or is becoming, frozen.
func (g *Group) Frozen() (bool, error) {
	if g.sys.Unified() {
		s, err := read(g.dir(""), "cgroup.freeze")
		return s == "1", err
	}
	dir := g.dir("freezer")
	if dir == "" {
		return false, nil
	}
	s, err := read(dir, "freezer.state")
	return s != "THAWED" && err == nil, err
}

// OOMKills counts the processes the kernel killed because the group's memory
// was used up.
func (g *Group) OOMKills() (uint64, error) {
	dir, file := g.dir("memory"), "memory.oom_control"
	if dir == "" {
		return 0, nil
	}
	if g.sys.Unified() {
		file = "memory.events"
	}
	text, err := read(dir, file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return keyed(text)["oom_kill"], err
}

// Rename gives a group of version 1, with the processes in it, the name of
// another one that does not exist below the same parent.
func (g *Group) Rename(to *Group) error {
	from, dirs := g.dirs(), to.dirs()
	for i := range from {
		err := unix.Rename(from[i], dirs[i])
		if err == nil {
			continue
		}
		for j := range i {
			_ = unix.Rename(dirs[j], from[j])
		}
		return &os.LinkError{Op: "rename", Old: from[i], New: dirs[i], Err: err}
	}
	return nil
}

// Delete removes the group with those below it, which must have no processes
// any more; the last of them may still be leaving.
func (g *Group) Delete() error {
	if g.scope != nil {
		return g.deleteScope()
	}
	var all error
	for _, dir := range g.dirs() {
		if err := remove(dir); err != nil {
			all = errors.Join(all, err)
		}
	}
	if all != nil {
		return fmt.Errorf("remove control group %s: %w", g.path, all)
	}
	return nil
}

func remove(dir string) error {
	wait := time.Millisecond
	for try := 0; ; try++ {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || try == 9 {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		entries, rerr := os.ReadDir(dir)
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			return rerr
		}
		for _, e := range entries {
			if e.IsDir() {
				_ = remove1(dir + "/" + e.Name())
			}
		}
		time.Sleep(wait)
		wait *= 2
	}
}

// remove1 removes the groups below dir and dir, once.
func remove1(dir string) error {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			_ = remove1(dir + "/" + e.Name())
		}
	}
	return unix.Rmdir(dir)
}

// FreezerDir is the directory whose files freeze the group; "" if nothing can.
func (g *Group) FreezerDir() string { return g.dir("freezer") }
