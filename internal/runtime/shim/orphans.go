//go:build linux

package shim

import (
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// orphanage takes in processes whose parents are gone. Other runtimes leave the
// processes they start to the shim that way; those nobody asked for are only
// reaped. It opens with the first container of another runtime.
type orphanage struct {
	once sync.Once
	err  error

	// mu is held for reading where children of the shim are not known yet, or are
	// waited for by others than the watchers. Only TryLock is used for writing, so
	// that readers may nest.
	mu sync.RWMutex
}

// orphanPatience is how often orphans are looked for, and how long one is left
// to whoever may be about to wait for it.
const orphanPatience = time.Second

// hold keeps all children unreaped until release is called.
func (o *orphanage) hold() (release func()) {
	o.mu.RLock()
	return o.mu.RUnlock
}

func (s *server) openOrphanage() error {
	s.orphans.once.Do(func() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			s.orphans.err = fmt.Errorf("become a subreaper: %w", err)
			return
		}
		go s.reapOrphans()
	})
	return s.orphans.err
}

// reopenOrphanage goes on as what this process was before an upgrade.
func (s *server) reopenOrphanage() error {
	var reaper int32
	if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&reaper)), 0, 0, 0); err != nil || reaper == 0 {
		return err
	}
	return s.openOrphanage()
}

// reapOrphans reaps children that nobody waits for.
func (s *server) reapOrphans() {
	seen := 0
	for range time.Tick(orphanPatience) {
		for {
			pid := proc.EndedChild()
			if pid == 0 || !s.orphans.mu.TryLock() {
				break
			}
			known := s.waitedFor(pid)
			if !known && pid == seen {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
			s.orphans.mu.Unlock()
			if known || pid != seen {
				seen = pid
				break
			}
		}
	}
}

// waitedFor tells whether a process of a container has this pid.
func (s *server) waitedFor(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.containers {
		if c.main != nil && c.main.rec.PID == pid && c.main.rec.Exit == nil {
			return true
		}
		for _, p := range c.execs {
			if p.rec.PID == pid && p.rec.Exit == nil {
				return true
			}
		}
	}
	return false
}
