//go:build linux

package shim

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

func itoa(n int) string { return strconv.Itoa(n) }

const (
	// How long orphans of an ended process may go on printing to its streams.
	orphanGrace = 200 * time.Millisecond
	// How many ended execs of a container are remembered.
	keptExecs = 100
)

// watch waits for a process to end and records how.
func (s *server) watch(c *container, p *process) {
	status, err := s.await(p, func() bool { return s.beginExit(c, p) })
	if errors.Is(err, errHeld) {
		return // the next shim hears of it, or this one, later
	}
	exit := runtime.Exit{ID: c.id, ExecID: p.rec.ExecID, PID: p.rec.PID, At: time.Now(), Code: proc.Code(status)}
	if err != nil {
		exit.Code, exit.Unknown = 255, true
	}
	s.settle(c, p, exit)
	s.endExit(p)
}

var errHeld = errors.New("not now")

// await waits for the end, holding no thread, and returns the wait status; the
// process is still to be reaped. Begin may forbid to go on: then it is errHeld.
func (s *server) await(p *process, begin func() bool) (unix.WaitStatus, error) {
	rc, err := p.pidfd.SyscallConn()
	if err != nil {
		return 0, err
	}
	var status unix.WaitStatus
	var serr error
	begun := false
	err = rc.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, perr := unix.Poll(poll, 0)
		if errors.Is(perr, unix.EINTR) || perr == nil && n == 0 {
			return false
		}
		if !begun && !begin() {
			serr = errHeld
			return true
		}
		begun = true
		if p.child {
			status, serr = proc.Peek(int(fd))
		} else {
			status, serr = adoptedExit(int(fd), &p.rec)
		}
		return !errors.Is(serr, unix.EAGAIN)
	})
	if err != nil {
		return 0, err
	}
	return status, serr
}

// adoptedExit asks how somebody else's child has ended: the process table knows
// until its parent has reaped it, the kernel's pidfd from then on.
func adoptedExit(fd int, r *record) (unix.WaitStatus, error) {
	for range 200 {
		if status, err := proc.ZombieExit(r.PID, r.Ticks); err == nil {
			return status, nil
		}
		status, err := proc.ExitOf(fd)
		if !errors.Is(err, unix.EAGAIN) {
			return status, err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, unix.ENODATA
}

// reap lets the kernel forget a child that has ended.
func (p *process) reap() {
	if p.child {
		_ = p.control(func(fd int) error { _, err := proc.Wait(fd); return err })
	}
}

// ending is the record of a process with its exit.
func (s *server) ending(p *process, exit runtime.Exit) record {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := p.rec
	rec.Exit = &exit
	return rec
}

// settle records and tells an exit: first it is on disk as one that the next shim
// goes on with, then the kernel may forget it; then what it printed is all read,
// then the record is whole, then anybody hears of it.
func (s *server) settle(c *container, p *process, exit runtime.Exit) {
	first := p.rec.ExecID == ""
	if first {
		if n, err := c.group.OOMKills(); err == nil && n > 0 {
			exit.OOM = true
		}
	}
	rec := s.ending(p, exit)
	derr := rec.write(c.dir)
	p.reap()
	if first {
		s.letScopeGo(c)
		if !c.own {
			// Nothing else ends those it left behind.
			s.warn(c.id, s.signalAll(c, unix.SIGKILL))
		}
	}
	p.hub.finish(orphanGrace)
	removeFifos(c.dir, p.rec.ExecID)
	s.mu.Lock()
	p.rec.Exit = &exit
	s.mu.Unlock()
	finish := rec.begun
	if derr != nil {
		finish = rec.save // there may be room by now
	}
	if err := finish(c.dir); err != nil {
		s.log.Error("an exit is not recorded", "container", c.id, "exec", p.rec.ExecID, "err", err)
	}
	s.mu.Lock()
	close(p.done)
	for w := range s.watchers {
		w.Put(exit)
	}
	if !first {
		c.ended = append(c.ended, p)
		if len(c.ended) > keptExecs {
			old := c.ended[0]
			c.ended = c.ended[1:]
			delete(c.execs, old.rec.ExecID)
			_ = os.Remove(old.rec.path(c.dir))
		}
	}
	s.mu.Unlock()
	// Once it is recorded, and nobody waits for it.
	s.vault.dropProcess(p)
	if p.pidfd != nil {
		_ = p.pidfd.Close()
	}
	if first {
		s.clear(c)
	}
}
