//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const resctrl = "/sys/fs/resctrl"

// An rdtEntry is a process's way into groups of Intel's resource director.
type rdtEntry struct {
	tasks []*os.File // in which the child enters itself
	made  []string   // directories, outermost first
	own   []string   // those of them that go with the container
}

func (e *rdtEntry) close() {
	for _, f := range e.tasks {
		_ = f.Close()
	}
}

// undo removes what was made.
func (e *rdtEntry) undo() {
	for _, dir := range slices.Backward(e.made) {
		_ = os.Remove(dir)
	}
}

// joinRDT makes a container's groups and opens their files of tasks.
func joinRDT(root, id string, want *specs.LinuxIntelRdt) (_ *rdtEntry, err error) {
	if err := checkRDT(root); err != nil {
		return nil, err
	}
	schemata, err := schemataOf(want)
	if err != nil {
		return nil, err
	}
	e := &rdtEntry{}
	defer func() {
		if err != nil {
			e.close()
			e.undo()
		}
	}()
	group, err := rdtGroup(root, id, want)
	if err != nil {
		return nil, err
	}
	fresh := true
	switch err := os.Mkdir(group, 0o755); {
	case err == nil:
		e.made = append(e.made, group)
		if want.ClosID == "" {
			e.own = append(e.own, group)
		}
	case errors.Is(err, os.ErrExist):
		fresh = false
	default:
		return nil, fmt.Errorf("intelRdt: %w", err)
	}
	if fresh && want.ClosID != "" && schemata == "" {
		return nil, errs.Newf(errs.Invalid, "intelRdt: there is no class of service %q", want.ClosID)
	}
	if err := settleSchemata(filepath.Join(group, "schemata"), schemata, fresh); err != nil {
		return nil, err
	}
	if want.EnableMonitoring {
		mon := monGroup(group, id)
		if err := os.Mkdir(mon, 0o755); err != nil { // also one that is there: it is somebody else's
			return nil, fmt.Errorf("intelRdt: %w", err)
		}
		e.made, e.own = append(e.made, mon), append(e.own, mon)
	}
	return e, e.open(group, id, want)
}

// enterRDT opens the files of tasks of the groups that a container is in.
func enterRDT(root, id string, want *specs.LinuxIntelRdt) (*rdtEntry, error) {
	if err := checkRDT(root); err != nil {
		return nil, err
	}
	group, err := rdtGroup(root, id, want)
	if err != nil {
		return nil, err
	}
	e := &rdtEntry{}
	if err := e.open(group, id, want); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *rdtEntry) open(group, id string, want *specs.LinuxIntelRdt) error {
	dirs := []string{group}
	if want.EnableMonitoring {
		dirs = append(dirs, monGroup(group, id))
	}
	for _, d := range dirs {
		f, err := os.OpenFile(filepath.Join(d, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("intelRdt: %w", err)
		}
		e.tasks = append(e.tasks, f)
	}
	return nil
}

func monGroup(group, id string) string { return filepath.Join(group, "mon_groups", id) }

func checkRDT(root string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil || root == resctrl && fs.Type != unix.RDTGROUP_SUPER_MAGIC {
		return errs.Newf(errs.Unsupported, "start: intelRdt: no resctrl file system is mounted at %s", root)
	}
	return nil
}

// rdtGroup is the directory of a container's class of service.
func rdtGroup(root, id string, want *specs.LinuxIntelRdt) (string, error) {
	switch name := want.ClosID; {
	case name == "/":
		return root, nil
	case name == "":
		return filepath.Join(root, id), nil
	case name == "." || name == ".." || name == "info" || name == "mon_groups" || name == "mon_data" || strings.ContainsAny(name, "/\n"):
		return "", errs.Newf(errs.Invalid, "intelRdt: %q is no name of a class of service", name)
	default:
		return filepath.Join(root, name), nil
	}
}

func schemataOf(want *specs.LinuxIntelRdt) (string, error) {
	var b strings.Builder
	for _, line := range append([]string{want.L3CacheSchema, want.MemBwSchema}, want.Schemata...) {
		if strings.Contains(line, "\n") {
			return "", errs.Newf(errs.Invalid, "intelRdt: schema %q has more than one line", line)
		}
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String(), nil
}

// settleSchemata writes the schemata of a new group and compares those of one
// that was there.
func settleSchemata(path, want string, fresh bool) error {
	if want == "" {
		return nil
	}
	if fresh {
		return writeOnce(path, want)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("intelRdt: %w", err)
	}
	have := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		for _, token := range schemaTokens(line) {
			have[token] = true
		}
	}
	for line := range strings.Lines(want) {
		for _, token := range schemaTokens(line) {
			if !have[token] {
				return errs.Newf(errs.Conflict, "intelRdt: %s says otherwise than %q", path, strings.TrimSpace(line))
			}
		}
	}
	return nil
}

// schemaTokens takes "L3:0=f;1=f" apart, with zeros that mean nothing left out.
func schemaTokens(line string) []string {
	kind, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
	var out []string
	for part := range strings.SplitSeq(rest, ";") {
		id, mask, _ := strings.Cut(strings.TrimSpace(part), "=")
		out = append(out, kind+":"+strings.TrimLeft(id, "0")+"="+strings.TrimLeft(strings.TrimSpace(mask), "0"))
	}
	return out
}

// LeaveRDT removes what [Host.Start] has made in resctrl, as [Child.RDT] tells,
// once the container has ended.
func LeaveRDT(made []string) error {
	var all error
	for _, dir := range slices.Backward(made) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			all = errors.Join(all, fmt.Errorf("intelRdt: %w", err))
		}
	}
	return all
}

// UpdateRDT changes the schemata of a container's group.
func UpdateRDT(id string, old *specs.LinuxIntelRdt, l3, bandwidth string) (*specs.LinuxIntelRdt, error) {
	return updateRDT(resctrl, id, old, l3, bandwidth)
}

func updateRDT(root, id string, old *specs.LinuxIntelRdt, l3, bandwidth string) (*specs.LinuxIntelRdt, error) {
	if err := checkRDT(root); err != nil {
		return nil, err
	}
	group, err := rdtGroup(root, id, old)
	if err != nil {
		return nil, err
	}
	text, err := schemataOf(&specs.LinuxIntelRdt{L3CacheSchema: l3, MemBwSchema: bandwidth})
	if err != nil {
		return nil, err
	}
	if err := writeOnce(filepath.Join(group, "schemata"), text); err != nil {
		return nil, fmt.Errorf("intelRdt: %w", err)
	}
	out := *old
	if l3 != "" {
		out.L3CacheSchema = l3
	}
	if bandwidth != "" {
		out.MemBwSchema = bandwidth
	}
	return &out, nil
}
