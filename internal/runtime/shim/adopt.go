//go:build linux

package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// adopt takes over what an earlier shim left: containers that still run go on
// being logged and watched, those that ended meanwhile are told of as such.
func (s *server) adopt() error {
	dirs, err := os.ReadDir(filepath.Join(s.dir, "c"))
	if errors.Is(err, os.ErrNotExist) {
		return os.Mkdir(filepath.Join(s.dir, "c"), 0o700)
	}
	if err != nil {
		return err
	}
	found, err := s.vault.find()
	if err != nil {
		s.log.Warn("the keeper does not answer", "err", err)
	}
	s.found = found
	for _, d := range dirs {
		if err := s.adoptContainer(d.Name()); err != nil {
			s.log.Error("cannot adopt a container", "container", d.Name(), "err", err)
		}
	}
	s.found = nil
	s.vault.claim(found)
	go s.sweepLot(s.lot.left())
	return nil
}

func (s *server) adoptContainer(id string) error {
	dir := s.containerDir(id)
	if err := killDrafts(dir); err != nil {
		return err
	}
	recs, err := loadRecords(dir)
	if err != nil {
		return err
	}
	if len(recs) == 0 || recs[0].ExecID != "" {
		return s.sweep(dir)
	}
	group, err := s.host.Cgroups.Open(recs[0].Cgroup)
	if err != nil {
		return err
	}
	c := &container{id: id, dir: dir, group: group, own: recs[0].OwnPIDs, execs: make(map[string]*process), cleared: make(chan struct{})}
	s.adoptExternal(c, recs[0].External)
	if recs[0].Exit == nil {
		s.rekeepScope(c)
	}
	s.containers[id] = c
	for _, r := range recs {
		p := &process{rec: r, hub: newHub(s.log, r.IO), done: make(chan struct{})}
		p.hub.used = true
		s.rejoin(p.hub, key{id, r.ExecID})
		if r.ExecID == "" {
			c.main = p
		} else {
			c.execs[r.ExecID] = p
		}
		if r.Exit != nil {
			p.hub.close()
			close(p.done)
			if r.ExecID == "" {
				s.clear(c)
			} else {
				c.ended = append(c.ended, p)
			}
			continue
		}
		s.adoptProcess(c, p)
	}
	slices.SortFunc(c.ended, func(a, b *process) int { return a.rec.Exit.At.Compare(b.rec.Exit.At) })
	return nil
}

func (s *server) adoptProcess(c *container, p *process) {
	mounts, kept := s.kept.process(c.id, p.rec.ExecID)
	var e *ends
	var err error
	if kept != nil {
		p.pidfd, p.child, e = file(kept.PIDFD, "pidfd"), kept.Child, kept.ends(p.rec.IO.TTY)
		if p.rec.ExecID == "" {
			c.mounts = file(mounts, "mounts")
			if c.ext != nil {
				c.ext.c.Mounts = c.mounts
			}
		}
	} else {
		if p.rec.drafted == nil {
			err = s.findProcess(c, p)
		}
		e = s.findStreams(c, p)
	}
	s.vault.take(p.parts(e))
	p.hub.noStdin = func() { s.vault.drop(key{c.id, p.rec.ExecID}.String() + keptStdin) }
	out := s.reopenLog(&p.rec)
	p.hub.journals = journals(c.dir, &p.rec, out)
	p.hub.recover(out)
	p.hub.start(&s.pool, out, e.stdin, e.out[0], e.out[1])
	if d := p.rec.drafted; d != nil {
		s.settle(c, p, *d)
		return
	}
	if err != nil {
		s.settle(c, p, runtime.Exit{ID: c.id, ExecID: p.rec.ExecID, PID: p.rec.PID, Code: 255, Unknown: true, At: time.Now()})
		return
	}
	go s.watch(c, p)
}

// findProcess looks for a process that an earlier shim has left to itself.
func (s *server) findProcess(c *container, p *process) error {
	if p.pidfd = s.found[key{c.id, p.rec.ExecID}.String()+keptPIDFD]; p.pidfd == nil {
		fd, err := proc.Open(p.rec.PID, p.rec.Ticks)
		if err != nil {
			return err
		}
		p.pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	if p.rec.ExecID == "" && c.ext == nil {
		if f, err := os.Open("/proc/" + itoa(p.rec.PID) + "/ns/mnt"); err == nil {
			c.mounts = f
		}
	}
	return nil
}

// findStreams takes its streams from the keeper. Without one, the fifos are
// opened again; of a process that has ended they are empty then.
func (s *server) findStreams(c *container, p *process) *ends {
	name := key{c.id, p.rec.ExecID}.String()
	e := &ends{stdin: s.found[name+keptStdin]}
	if p.rec.IO.TTY {
		e.out[0] = e.stdin
		return e
	}
	if e.out[0], e.out[1] = s.found[name+keptStdout], s.found[name+keptStderr]; e.out[0] != nil && e.out[1] != nil {
		return e
	}
	again, err := reopenStreams(c.dir, p.rec.ExecID, p.rec.IO)
	if err != nil {
		s.log.Error("cannot read a container's output any more", "container", c.id, "err", err)
		return e
	}
	e.out = again.out
	if e.stdin == nil && p.rec.IO.Stdin && !p.rec.IO.Passed {
		// It has seen its stdin's end; it may open it again. This fails if it has
		// closed its side: then nobody wants it.
		e.stdin, _ = openFifo(fifoPath(c.dir, p.rec.ExecID, 0), unix.O_WRONLY|unix.O_NONBLOCK)
	}
	return e
}

// reopenLog opens a process's log to go on with; nil if it has none.
func (s *server) reopenLog(r *record) LogWriter {
	if r.ExecID != "" || r.IO.Passed || s.newLog == nil {
		return nil
	}
	out, err := s.newLog(r.Log)
	if err != nil {
		s.log.Error("cannot write a container's log any more", "container", r.ID, "err", err)
		return nil
	}
	return out
}

// sweep removes what is left of a start that was cut short before the container
// had a process.
func (s *server) sweep(dir string) error {
	s.sweepExternal(dir)
	path, err := os.Readlink(filepath.Join(dir, "group"))
	if err == nil {
		group, gerr := s.host.Cgroups.Open(path)
		if gerr != nil {
			return gerr
		}
		pids, err := group.Procs()
		if err != nil && !errors.Is(err, os.ErrNotExist) { // it may be half made, or half removed
			return err
		}
		for _, pid := range pids { // nobody was told of them
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("end process %d of %s: %w", pid, path, err)
			}
		}
		if err := group.Delete(); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("sweep %s: %w", dir, err)
	}
	return nil
}
