//go:build linux

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

// Holder starts a process that does nothing until release ends it.
type Holder func() (pid int, release func(), err error)

// A scope is the unit of systemd that a group is. systemd makes it around a
// process and removes it with the last one; what is below is ours (Delegate).
type scope struct {
	slice, prefix, id string
	unit              string
	release           func() // ends the process it was made around
}

const (
	defaultSlice = "system.slice"
	// A job of systemd's that does not come to an end is an error then.
	jobPatience = time.Minute
	// Below this a limit of processes may be in a launcher's way: systemd is told
	// of it later.
	launcherTasks = 64
)

// IsScope tells whether a group's name is "slice:prefix:name": one that systemd
// makes.
func IsScope(name string) bool {
	return !strings.HasPrefix(name, "/") && strings.Count(name, ":") == 2
}

// openScope names the scope "prefix-name.scope" of a slice.
func (s *System) openScope(name string) (*Group, error) {
	parts := strings.Split(name, ":")
	sc := &scope{slice: parts[0], prefix: parts[1], id: parts[2]}
	if sc.slice == "" {
		sc.slice = defaultSlice
	}
	if strings.HasSuffix(sc.id, ".slice") {
		return nil, fmt.Errorf("control group %q: a container that is a slice is not supported", name)
	}
	dir, err := systemd.SlicePath(sc.slice)
	if err == nil {
		sc.unit, err = systemd.ScopeName(sc.prefix, sc.id)
	}
	if err != nil {
		return nil, fmt.Errorf("control group %q: %w", name, err)
	}
	if !s.Unified() {
		return nil, fmt.Errorf("control group %q: systemd makes them with control groups of version 2 only", name)
	}
	return &Group{sys: s, path: dir + "/" + sc.unit, scope: sc}, nil
}

func (sc *scope) name() string { return sc.slice + ":" + sc.prefix + ":" + sc.id }

// createScope has systemd make the group around a process of no further use: a
// group must exist for a container to be born in it.
func (g *Group) createScope() error {
	if g.sys.Hold == nil {
		return fmt.Errorf("control group %s: nothing to make a scope around", g.path)
	}
	pid, release, err := g.sys.Hold()
	if err != nil {
		return fmt.Errorf("control group %s: %w", g.path, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), jobPatience)
	defer cancel()
	props := []systemd.Property{
		{Name: "Description", Value: g.scope.prefix + " container " + g.scope.id},
		{Name: "Slice", Value: g.scope.slice},
		{Name: "Delegate", Value: true},
		// Whoever made the container ends it, in an order that systemd cannot know.
		{Name: "DefaultDependencies", Value: false},
		{Name: "CollectMode", Value: "inactive-or-failed"},
		{Name: "CPUAccounting", Value: true},
		{Name: "MemoryAccounting", Value: true},
		{Name: "IOAccounting", Value: true},
		{Name: "TasksAccounting", Value: true},
		{Name: "TasksMax", Value: uint64(math.MaxUint64)}, // not systemd's default of some thousands
		{Name: "PIDs", Value: []uint32{uint32(pid)}},
	}
	wait := time.Millisecond
	for try := 0; ; try++ {
		err = g.sys.systemd.StartScope(ctx, g.scope.unit, props)
		if !systemd.Is(err, "UnitExists") || try == 9 {
			break
		}
		// The container's last one is not forgotten yet.
		if pids, perr := g.Procs(); perr == nil && len(pids) > 0 {
			break
		}
		if err := g.clearScope(ctx); err != nil {
			release()
			return err
		}
		time.Sleep(wait)
		wait *= 2
	}
	if err != nil {
		release()
		return fmt.Errorf("control group %s: %w", g.path, err)
	}
	g.scope.release = release
	return nil
}

func (g *Group) clearScope(ctx context.Context) error {
	return errors.Join(g.sys.systemd.ResetFailed(ctx, g.scope.unit), g.sys.systemd.Stop(ctx, g.scope.unit))
}

// Born tells that a container's process is in the group: what kept the group
// until then goes.
func (g *Group) Born() {
	if g.scope != nil && g.scope.release != nil {
		g.scope.release()
		g.scope.release = nil
	}
}

// deleteScope waits until systemd has removed the group.
func (g *Group) deleteScope() error {
	g.Born()
	if !g.Exists() {
		return nil // systemd was faster
	}
	ctx, cancel := context.WithTimeout(context.Background(), jobPatience)
	defer cancel()
	if err := g.sys.systemd.Stop(ctx, g.scope.unit); err != nil {
		return fmt.Errorf("remove control group %s: %w", g.path, err)
	}
	return remove(g.sys.unified + g.path)
}

// tellSystemd makes limits known to who else would write the defaults back,
// with the next daemon-reload or change.
func (g *Group) tellSystemd(r *specs.LinuxResources, laterPIDs bool) error {
	props, err := properties(r)
	if err != nil {
		return err
	}
	if p := tasksMax(r.Pids); p != nil {
		if n := p.Value.(uint64); laterPIDs && n < launcherTasks {
			p.Value = uint64(launcherTasks)
		}
		props = append(props, *p)
	}
	return g.setProperties(props...)
}

func (g *Group) setProperties(props ...systemd.Property) error {
	if len(props) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), jobPatience)
	defer cancel()
	return g.sys.systemd.SetProperties(ctx, g.scope.unit, props)
}

// SettlePIDs tells systemd of a limit of processes that the launcher has set,
// if it does not know.
func (g *Group) SettlePIDs(r *specs.LinuxResources) error {
	if g.scope == nil || r == nil {
		return nil
	}
	if p := tasksMax(r.Pids); p != nil && p.Value.(uint64) < launcherTasks {
		return g.setProperties(*p)
	}
	return nil
}
