//go:build linux

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

// Holder starts a process that does nothing until release ends it.
type Holder func() (pid int, release func(), err error)

// A scope is the unit of systemd that a group is. systemd makes it around a
// process and removes it with the last one; what is below is ours (Delegate).
//
// Where it has to stay until somebody has read why its last process ended, the
// group is one below it, beside another one with a process that only waits.
type scope struct {
	slice, prefix, id string
	unit              string
	path              string // of the scope itself
	release           func() // ends the process it was made around

	mu   sync.Mutex
	kept *os.File // the scope stays while this, or a copy of it, is open; guarded by mu
}

// The groups below a scope that is kept.
const (
	keptGroup = "/container"
	keepGroup = "/skiff-keep"
)

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
	g := &Group{sys: s, path: dir + "/" + sc.unit, scope: sc}
	sc.path = g.path
	if _, err := os.Stat(s.unified + sc.path + keepGroup); err == nil {
		g.path += keptGroup
	}
	return g, nil
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
	if g.sys.Keep == nil {
		return nil
	}
	if err := g.split(); err != nil {
		return errors.Join(err, g.deleteScope())
	}
	return nil
}

// split moves the group below its scope, which something else then keeps.
func (g *Group) split() error {
	if err := g.Rekeep(); err != nil {
		return err
	}
	g.Born()
	root := g.sys.unified + g.scope.path
	have, err := read(root, "cgroup.controllers")
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(have) {
		for try := 0; ; try++ {
			err := write(root, "cgroup.subtree_control", "+"+c)
			// The process that the scope was made around may still be leaving. Other
			// refusals are told by a limit that needs the controller.
			if !errors.Is(err, unix.EBUSY) || try == 10 {
				break
			}
			time.Sleep(time.Millisecond << try)
		}
	}
	if err := mkdirs(root + keptGroup); err != nil {
		return err
	}
	g.path = g.scope.path + keptGroup
	return nil
}

// Rekeep starts what keeps the scope, if there was none or it has gone.
func (g *Group) Rekeep() error {
	if g.scope == nil || g.sys.Keep == nil {
		return nil
	}
	dir := g.sys.unified + g.scope.path + keepGroup
	if err := mkdirs(dir); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	defer func() { _ = f.Close() }()
	kept, err := g.sys.Keep(f)
	if err != nil {
		return fmt.Errorf("control group %s: %w", g.scope.path, err)
	}
	g.KeepBy(kept)
	return nil
}

// Split tells whether the group lies below its scope, which can be kept.
func (g *Group) Split() bool { return g.scope != nil && g.path != g.scope.path }

// Kept is what the scope stays for, to be kept by others too; nil if nothing.
func (g *Group) Kept() *os.File {
	if g.scope == nil {
		return nil
	}
	g.scope.mu.Lock()
	defer g.scope.mu.Unlock()
	return g.scope.kept
}

// KeepBy keeps the scope by what [Group.Kept] was before.
func (g *Group) KeepBy(f *os.File) {
	if g.scope == nil {
		return
	}
	g.scope.mu.Lock()
	defer g.scope.mu.Unlock()
	if g.scope.kept != nil && g.scope.kept != f {
		_ = g.scope.kept.Close()
	}
	g.scope.kept = f
}

// LetGo leaves the scope to systemd, which removes it with its last process.
func (g *Group) LetGo() { g.KeepBy(nil) }

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
	g.LetGo()
	if _, err := os.Stat(g.sys.unified + g.scope.path); err != nil {
		return nil // systemd was faster
	}
	ctx, cancel := context.WithTimeout(context.Background(), jobPatience)
	defer cancel()
	if err := g.sys.systemd.Stop(ctx, g.scope.unit); err != nil {
		return fmt.Errorf("remove control group %s: %w", g.path, err)
	}
	return remove(g.sys.unified + g.scope.path)
}

// tellSystemd makes limits known to who else would write the defaults back,
// with the next daemon-reload or change.
func (g *Group) tellSystemd(r *specs.LinuxResources, laterPIDs bool) error {
	props, err := properties(r)
	if err != nil {
		return err
	}
	if p := g.tasksMax(PIDs(r)); p != nil {
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
	if p := g.tasksMax(PIDs(r)); p != nil && p.Value.(uint64) < launcherTasks {
		return g.setProperties(*p)
	}
	return nil
}

// tasksMax is one more where a process of ours is in the scope.
func (g *Group) tasksMax(p *specs.LinuxPids) *systemd.Property {
	t := tasksMax(p)
	if t != nil && g.Split() && t.Value.(uint64) < unlimited {
		t.Value = t.Value.(uint64) + 1
	}
	return t
}
