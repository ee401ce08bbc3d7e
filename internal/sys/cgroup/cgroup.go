//go:build linux

// Package cgroup makes, limits, reads and removes control groups, of version 1
// (one hierarchy a controller, also beside an empty version 2) and version 2.
//
// A process is never moved into a group by the cgroup.procs file when that can
// be helped: after an idle moment such a write waits some ten milliseconds for
// a grace period of the kernel. A child is born inside instead: with version 2
// by clone3 ([Group.FD]), with version 1 by a thread that moved itself there
// ([Group.JoinThread]; a thread that moves only itself does not wait).
//
// Where systemd is to make the groups (version 2), they are its scopes, with
// limits told to it as properties and written as well.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

// System is how this host's control groups are mounted.
type System struct {
	unified string      // mount point of version 2, if that has the controllers
	v1      []hierarchy // else the hierarchies of version 1

	// Hold starts the process that a scope of systemd's is made around. It has to
	// be set where scopes are made.
	Hold Holder
	// Keep, if set, starts a process that keeps a group populated as long as the
	// file is open: a scope then stays until [Group.LetGo].
	Keep    func(group *os.File) (*os.File, error)
	systemd *systemd.Manager

	mu      sync.Mutex
	enabled map[string]bool // version 2: parents whose controllers are handed on; guarded by mu
}

type hierarchy struct {
	mount       string
	controllers []string // "cpu", "cpuacct"…, or "name=systemd"
}

func (h hierarchy) has(c string) bool { return slices.Contains(h.controllers, c) }

// Detect reads the mount table.
func Detect() (*System, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	s := &System{enabled: make(map[string]bool), systemd: systemd.New()}
	var v2 string
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		head, tail, ok := strings.Cut(sc.Text(), " - ")
		pre, post := strings.Fields(head), strings.Fields(tail)
		if !ok || len(pre) < 5 || len(post) < 3 {
			continue
		}
		switch post[0] {
		case "cgroup2":
			if v2 == "" {
				v2 = pre[4]
			}
		case "cgroup":
			s.add(pre[4], strings.Split(post[2], ","))
		}
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	if len(s.v1) == 0 {
		if v2 == "" {
			return nil, errors.New("no control groups are mounted")
		}
		s.unified = v2
	}
	return s, nil
}

func (s *System) add(mount string, options []string) {
	known := []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"}
	h := hierarchy{mount: mount}
	for _, o := range options {
		if slices.Contains(known, o) || strings.HasPrefix(o, "name=") {
			h.controllers = append(h.controllers, o)
		}
	}
	if len(h.controllers) == 0 || slices.ContainsFunc(s.v1, func(o hierarchy) bool { return slices.Equal(o.controllers, h.controllers) }) {
		return
	}
	s.v1 = append(s.v1, h)
}

// Unified tells whether version 2 governs.
func (s *System) Unified() bool { return s.unified != "" }

// Mount is one hierarchy as a container's /sys/fs/cgroup shows it.
type Mount struct {
	Name    string // below /sys/fs/cgroup; "" with version 2
	Host    string // mount point here
	Options []string
}

// Mounts lists the hierarchies.
func (s *System) Mounts() []Mount {
	if s.Unified() {
		return []Mount{{Host: s.unified}}
	}
	var out []Mount
	for _, h := range s.v1 {
		out = append(out, Mount{Name: path.Base(h.mount), Host: h.mount, Options: h.controllers})
	}
	return out
}

// Group is one control group, in all hierarchies.
type Group struct {
	sys  *System
	path string // "/parent/id"

	scope *scope // nil: made by ourselves
}

// Open names a group by its path, or as "slice:prefix:name" one that systemd
// makes; it need not exist.
func (s *System) Open(p string) (*Group, error) {
	if IsScope(p) {
		return s.openScope(p)
	}
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p || p == "/" {
		return nil, fmt.Errorf("control group %q: not a clean absolute path below the root", p)
	}
	return &Group{sys: s, path: p}, nil
}

// Name is what [System.Open] knows the group by.
func (g *Group) Name() string {
	if g.scope != nil {
		return g.scope.name()
	}
	return g.path
}

// Path is the group's path below each hierarchy's root.
func (g *Group) Path() string { return g.path }

// dir is where controller c of the group lives, or "" if it is not mounted.
func (g *Group) dir(c string) string {
	if g.sys.Unified() {
		return g.sys.unified + g.path
	}
	for _, h := range g.sys.v1 {
		if h.has(c) {
			return h.mount + g.path
		}
	}
	return ""
}

func (g *Group) dirs() []string {
	if g.sys.Unified() {
		return []string{g.sys.unified + g.path}
	}
	out := make([]string, len(g.sys.v1))
	for i, h := range g.sys.v1 {
		out[i] = h.mount + g.path
	}
	return out
}

// Create makes the group and its parents.
func (g *Group) Create() error {
	if g.scope != nil {
		return g.createScope()
	}
	if g.sys.Unified() {
		return g.createV2()
	}
	for _, h := range g.sys.v1 {
		dir := h.mount + g.path
		if err := mkdirs(dir); err != nil {
			return err
		}
		if h.has("cpuset") {
			if err := fillCpuset(h.mount, g.path); err != nil {
				return err
			}
		}
	}
	return nil
}

func mkdirs(dir string) error {
	err := os.Mkdir(dir, 0o755)
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return os.MkdirAll(dir, 0o755)
	}
	return err
}

// fillCpuset copies the parent's processors and memory nodes: a fresh version 1
// cpuset has none and takes no process.
func fillCpuset(mount, p string) error {
	parent := path.Dir(p)
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := read(mount+p, file)
		if err != nil {
			return err
		}
		if own != "" {
			continue
		}
		if parent != "/" {
			if err := fillCpuset(mount, parent); err != nil {
				return err
			}
		}
		value, err := read(mount+parent, file)
		if err != nil {
			return err
		}
		if err := write(mount+p, file, value); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) createV2() error {
	parent := path.Dir(g.path)
	if err := g.sys.handOn(parent); err != nil {
		return err
	}
	err := os.Mkdir(g.sys.unified+g.path, 0o755)
	if errors.Is(err, fs.ErrNotExist) { // the parent was removed behind our back
		g.sys.forget(parent)
		if err := g.sys.handOn(parent); err != nil {
			return err
		}
		err = os.Mkdir(g.sys.unified+g.path, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (s *System) forget(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; p != "/"; p = path.Dir(p) {
		delete(s.enabled, p)
	}
}

// handOn makes the group p of version 2 and lets its children use every
// controller it has.
func (s *System) handOn(p string) error {
	s.mu.Lock()
	done := s.enabled[p]
	s.mu.Unlock()
	if done {
		return nil
	}
	if p != "/" {
		if err := s.handOn(path.Dir(p)); err != nil {
			return err
		}
	}
	dir := s.unified + p
	if err := mkdirs(dir); err != nil {
		return err
	}
	have, err := read(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(have) {
		// A controller may be refused (threaded groups, realtime tasks); a limit
		// that needs it then fails with the name of its file.
		_ = write(dir, "cgroup.subtree_control", "+"+c)
	}
	s.mu.Lock()
	s.enabled[p] = true
	s.mu.Unlock()
	return nil
}

// FD opens the group for clone3's CLONE_INTO_CGROUP; version 2 only.
func (g *Group) FD() (*os.File, error) {
	fd, err := unix.Open(g.sys.unified+g.path, unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open control group %s: %w", g.path, err)
	}
	return os.NewFile(uintptr(fd), g.path), nil
}

// JoinThread moves the calling thread alone into the group; version 1 only. Its
// children are born there.
func (g *Group) JoinThread() error {
	for _, dir := range g.dirs() {
		if err := write(dir, "tasks", "0"); err != nil {
			return err
		}
	}
	return nil
}

// Add moves a process into the group: slow, see the package comment.
func (g *Group) Add(pid int) error {
	for _, dir := range g.dirs() {
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Exists tells whether any hierarchy has the group.
func (g *Group) Exists() bool {
	return slices.ContainsFunc(g.dirs(), func(d string) bool {
		_, err := os.Stat(d)
		return err == nil
	})
}

func read(dir, file string) (string, error) {
	data, err := os.ReadFile(dir + "/" + file)
	return strings.TrimSpace(string(data)), err
}

// write writes in one system call: control files act on each.
func write(dir, file string, values ...string) error {
	name := dir + "/" + file
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	for _, value := range values {
		for {
			_, err = unix.Write(fd, []byte(value))
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if err != nil {
			return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: name, Err: err}
		}
	}
	return nil
}
