//go:build linux

package shim

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// lot keeps children parked for the next starts, each in a control group that
// is renamed when it is taken. Only with version 1: there alone groups can be
// renamed. It is filled when a start is over, for more of the kind, and emptied
// after a minute without any: a container's first process is as old as its
// parked child, so that one may not be old.
type lot struct {
	s *server

	mu     sync.Mutex // guards all below
	idle   []*parkedChild
	kind   kind // of those to be made
	last   kind // that was asked for
	starts int  // under way: nothing is made meanwhile
	shut   bool // while this program gives way to another one
	fill   *time.Timer
	expire *time.Timer

	filling sync.Mutex // held while a child is made or ended
}

const (
	lotSize   = 2
	lotDelay  = 2 * time.Millisecond // after a start, which has processors to itself until then
	lotExpiry = time.Minute
	lotDir    = "parked" // of links to the groups, for the next shim
)

// A kind is what parked children are prepared for.
type kind struct {
	parent  string // control group
	devices []specs.LinuxDeviceCgroup
}

func (k kind) is(o kind) bool {
	return k.parent == o.parent && reflect.DeepEqual(k.devices, o.devices)
}

type parkedChild struct {
	kind  kind
	group *cgroup.Group
	link  string
	child *launch.Parked
}

func kindOf(l *runtime.Launch, g *cgroup.Group) kind {
	return kind{parent: path.Dir(g.Path()), devices: deviceRules(l.Spec)}
}

// begin tells that a start is under way, and returns a parked child for it if
// there is one. The child is the caller's.
func (t *lot) begin(l *runtime.Launch, g *cgroup.Group, prog *seccomp.Program) (p *parkedChild, done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.starts++
	done = t.end
	if t.s.host.Cgroups.Unified() || l.External != nil || l.Restore != nil || !launch.Parkable(l, prog) {
		return nil, done
	}
	k := kindOf(l, g)
	for len(t.idle) > 0 && p == nil {
		if p = t.idle[0]; !p.kind.is(k) {
			p = nil
			break
		}
		t.idle = t.idle[1:]
		if !p.child.Alive() {
			go t.s.unpark(p)
			p = nil
		}
	}
	if k.is(t.last) || len(t.idle) == 0 { // starts of two kinds in turn shall not make it change each time
		t.kind = k
	}
	t.last = k
	return p, done
}

// end tells that a start is over.
func (t *lot) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.starts--; t.starts > 0 || t.shut || t.kind.parent == "" {
		return
	}
	if t.fill == nil {
		t.fill, t.expire = time.AfterFunc(lotDelay, t.stock), time.AfterFunc(lotExpiry, t.clear)
		return
	}
	t.fill.Reset(lotDelay)
	t.expire.Reset(lotExpiry)
}

// stock makes what is missing, until a start begins.
func (t *lot) stock() {
	t.filling.Lock()
	defer t.filling.Unlock()
	for {
		t.mu.Lock()
		k := t.kind
		stale := t.drop(func(p *parkedChild) bool { return !p.kind.is(k) })
		enough := t.starts > 0 || t.shut || len(t.idle) >= lotSize || k.parent == ""
		t.mu.Unlock()
		t.s.unpark(stale...)
		if enough {
			return
		}
		p, err := t.s.parkChild(k)
		if err != nil {
			t.s.log.Warn("cannot park a child", "err", err)
			return
		}
		t.mu.Lock()
		if t.shut {
			t.mu.Unlock()
			t.s.unpark(p)
			return
		}
		t.idle = append(t.idle, p)
		t.mu.Unlock()
	}
}

// drop takes out those that f tells; t.mu is held.
func (t *lot) drop(f func(*parkedChild) bool) (out []*parkedChild) {
	var rest []*parkedChild
	for _, p := range t.idle {
		if f(p) {
			out = append(out, p)
		} else {
			rest = append(rest, p)
		}
	}
	t.idle = rest
	return out
}

// clear ends all that are parked.
func (t *lot) clear() {
	t.filling.Lock()
	defer t.filling.Unlock()
	t.mu.Lock()
	all := t.idle
	t.idle, t.kind = nil, kind{}
	t.mu.Unlock()
	t.s.unpark(all...)
}

// close empties the lot, and keeps it empty until it is opened again.
func (t *lot) close() {
	t.mu.Lock()
	t.shut = true
	t.mu.Unlock()
	t.clear()
}

func (t *lot) open() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shut = false
}

// parkChild makes one. Its group is noted on disk first, so that the next shim
// removes it if this one cannot.
func (s *server) parkChild(k kind) (_ *parkedChild, err error) {
	var id [8]byte
	_, _ = rand.Read(id[:])
	name := "parked-" + hex.EncodeToString(id[:])
	p := &parkedChild{kind: k, link: filepath.Join(s.dir, lotDir, name)}
	if p.group, err = s.host.Cgroups.Open(path.Join(k.parent, name)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Dir(p.link), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := os.Symlink(p.group.Name(), p.link); err != nil {
		return nil, err
	}
	err = p.group.Create()
	if err == nil {
		err = p.group.LimitDevices(k.devices)
	}
	if err == nil {
		defer s.orphans.hold()()
		p.child, err = s.host.Park(p.group)
	}
	if err != nil {
		s.unpark(p)
		return nil, err
	}
	return p, nil
}

// unpark ends children that nobody took, and removes their groups.
func (s *server) unpark(all ...*parkedChild) {
	for _, p := range all {
		if p == nil {
			continue
		}
		if p.child != nil {
			p.child.End()
		}
		if err := p.group.Delete(); err != nil {
			s.warn(path.Base(p.link), err)
			continue // the next shim tries again
		}
		_ = os.Remove(p.link)
	}
}

// left lists what a shim that was killed had parked.
func (t *lot) left() []os.DirEntry {
	links, err := os.ReadDir(filepath.Join(t.s.dir, lotDir))
	if err != nil {
		return nil // there never was any
	}
	return links
}

// sweepLot removes it. The children ended with that shim, or are about to.
func (s *server) sweepLot(links []os.DirEntry) {
	dir := filepath.Join(s.dir, lotDir)
	for _, e := range links {
		link := filepath.Join(dir, e.Name())
		name, err := os.Readlink(link)
		if err == nil {
			err = s.sweepParked(name)
		}
		if err == nil {
			err = os.Remove(link)
		}
		if err != nil {
			s.warn(e.Name(), err)
		}
	}
}

func (s *server) sweepParked(name string) error {
	g, err := s.host.Cgroups.Open(name)
	if err != nil {
		return err
	}
	if !g.Exists() {
		return nil
	}
	if err := s.signalAll(&container{group: g}, unix.SIGKILL); err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	return g.Delete()
}
