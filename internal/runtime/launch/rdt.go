//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const resctrl = "/sys/fs/resctrl"

// joinRDT makes a container's groups of Intel's resource director and opens the
// files in which the child enters itself. undo removes what was made.
func joinRDT(root, id string, want *specs.LinuxIntelRdt) (tasks []*os.File, undo func(), err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil || root == resctrl && fs.Type != unix.RDTGROUP_SUPER_MAGIC {
		return nil, nil, errs.Newf(errs.Unsupported, "start: intelRdt: no resctrl file system is mounted at %s", root)
	}
	schemata, err := schemataOf(want)
	if err != nil {
		return nil, nil, err
	}
	var made []string
	remove := func() {
		for i := len(made) - 1; i >= 0; i-- {
			_ = os.Remove(made[i])
		}
	}
	defer func() {
		if err != nil {
			for _, f := range tasks {
				_ = f.Close()
			}
			remove()
			tasks = nil
		}
	}()
	group, err := rdtGroup(root, id, want)
	if err != nil {
		return nil, nil, err
	}
	fresh := true
	switch err := os.Mkdir(group, 0o755); {
	case err == nil:
		made = append(made, group)
	case errors.Is(err, os.ErrExist):
		fresh = false
	default:
		return nil, nil, fmt.Errorf("intelRdt: %w", err)
	}
	if fresh && want.ClosID != "" && schemata == "" {
		return tasks, remove, errs.Newf(errs.Invalid, "intelRdt: there is no class of service %q", want.ClosID)
	}
	if err := settleSchemata(filepath.Join(group, "schemata"), schemata, fresh); err != nil {
		return tasks, remove, err
	}
	dirs := []string{group}
	if want.EnableMonitoring {
		mon := filepath.Join(group, "mon_groups", id)
		if err := os.Mkdir(mon, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return tasks, remove, fmt.Errorf("intelRdt: %w", err)
		}
		made = append(made, mon)
		dirs = append(dirs, mon)
	}
	for _, d := range dirs {
		f, err := os.OpenFile(filepath.Join(d, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			return tasks, remove, fmt.Errorf("intelRdt: %w", err)
		}
		tasks = append(tasks, f)
	}
	return tasks, remove, nil
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

// LeaveRDT removes what [Host.Start] made in resctrl, once the container has
// ended. Without resctrl in its specification it does nothing.
func LeaveRDT(s *specs.Spec, id string) error {
	if s.Linux == nil || s.Linux.IntelRdt == nil {
		return nil
	}
	return leaveRDT(resctrl, id, s.Linux.IntelRdt)
}

func leaveRDT(root, id string, want *specs.LinuxIntelRdt) error {
	group, err := rdtGroup(root, id, want)
	if err != nil {
		return err
	}
	remove := func(dir string) error {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("intelRdt: %w", err)
		}
		return nil
	}
	var all error
	if want.EnableMonitoring {
		all = remove(filepath.Join(group, "mon_groups", id))
	}
	if want.ClosID == "" {
		all = errors.Join(all, remove(group))
	}
	return all
}
