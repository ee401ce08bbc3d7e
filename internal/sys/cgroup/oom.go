//go:build linux

package cgroup

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// An oomWatch remembers how often the kernel has killed for want of memory.
// systemd removes a scope with its last process, before anybody could look.
type oomWatch struct {
	mu    sync.Mutex
	file  *os.File
	kills atomic.Uint64
}

// WatchOOM follows the group's kills, if the group may go without us.
func (g *Group) WatchOOM() error {
	if g.scope == nil {
		return nil
	}
	name := g.dir("memory") + "/memory.events"
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	rc, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return err
	}
	g.oom.mu.Lock()
	g.oom.file = f
	g.oom.mu.Unlock()
	go func() {
		_ = rc.Read(g.oom.follow)
		g.oom.stop()
	}()
	return nil
}

// follow is called whenever the file has changed. The kernel tells of a change
// ten milliseconds late if there was another just before, such as that of the
// limit being reached: after the first sign, it looks by itself for a while.
func (w *oomWatch) follow(fd uintptr) (gone bool) {
	for range 30 {
		var buf [1024]byte
		n, err := unix.Pread(int(fd), buf[:], 0)
		if err != nil {
			return true // the group is
		}
		kills := keyed(string(buf[:n]))["oom_kill"]
		w.kills.Store(kills)
		if kills > 0 {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

func (w *oomWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
}
