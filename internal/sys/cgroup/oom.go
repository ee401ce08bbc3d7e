//go:build linux

package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// OOMWatcher tells of groups whose processes the kernel kills because memory
// was used up. It takes no thread: with version 2 one descriptor serves all
// groups, with version 1 each has one.
type OOMWatcher struct {
	sys *System

	mu      sync.Mutex // guards all below
	inotify *os.File   // nil until it is needed; version 2
	watches map[int32]*OOMWatch
}

// OOMWatch is a watched group. Stop it, or what the watcher has of it stays.
type OOMWatch struct {
	w     *OOMWatcher
	group *Group
	tell  func()

	mu   sync.Mutex // guards told; held while it tells, so that this is in order
	told uint64

	event *os.File // version 1
	id    int32    // version 2
}

// OOMWatcher makes a watcher of groups of this system.
func (s *System) OOMWatcher() *OOMWatcher {
	return &OOMWatcher{sys: s, watches: map[int32]*OOMWatch{}}
}

// Watch calls tell, from any goroutine, when processes of the group were killed;
// at once if that was so before, unless it is known. A group that is gone, or
// has no memory controller, is no error, and nil.
func (w *OOMWatcher) Watch(g *Group, known bool, tell func()) (*OOMWatch, error) {
	dir := g.dir("memory")
	if dir == "" {
		return nil, nil
	}
	x := &OOMWatch{w: w, group: g, tell: tell}
	if known {
		x.told, _ = g.OOMKills()
	}
	add := w.addEvents
	if w.sys.Unified() {
		add = w.addInotify
	}
	err := add(x, dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch the memory of control group %s: %w", g.path, err)
	}
	x.look()
	return x, nil
}

// look reports whether there are kills that were not told of, and tells.
func (x *OOMWatch) look() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, err := x.group.OOMKills()
	if err != nil || n <= x.told { // gone, or of no interest
		return false
	}
	x.told = n
	x.tell()
	return true
}

// Stop ends the watch; it does not wait for a call of tell.
func (x *OOMWatch) Stop() {
	if x == nil {
		return
	}
	if x.event != nil {
		_ = x.event.Close() // the kernel lets go of it, too
		return
	}
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	if x.w.watches[x.id] != x {
		return // the group is gone, and its watch with it
	}
	delete(x.w.watches, x.id)
	if rc, err := x.w.inotify.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			_, _ = unix.InotifyRmWatch(int(fd), uint32(x.id)) // fails where the group is just gone
		})
	}
}

// killPauses are waited between looks after the kernel of version 1 told that it
// will kill: it counts when it has.
var killPauses = [...]time.Duration{2 * time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond}

// addEvents is for version 1: an eventfd, which is also signalled when the group
// is removed.
func (w *OOMWatcher) addEvents(x *OOMWatch, dir string) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	x.event = os.NewFile(uintptr(fd), "eventfd")
	control, err := os.Open(dir + "/memory.oom_control")
	if err == nil {
		err = write(dir, "cgroup.event_control", strconv.Itoa(fd)+" "+strconv.Itoa(int(control.Fd())))
		_ = control.Close()
	}
	if err != nil {
		_ = x.event.Close()
		return err
	}
	go x.readEvents()
	return nil
}

func (x *OOMWatch) readEvents() {
	var count [8]byte
	for {
		if _, err := x.event.Read(count[:]); err != nil {
			return // stopped
		}
		for _, pause := range killPauses {
			if x.look() || !x.group.Exists() {
				break
			}
			time.Sleep(pause)
		}
	}
}

// addInotify is for version 2: memory.events tells when it has changed.
func (w *OOMWatcher) addInotify(x *OOMWatch, dir string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inotify == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return fmt.Errorf("inotify: %w", err)
		}
		w.inotify = os.NewFile(uintptr(fd), "inotify")
		go w.readInotify(w.inotify)
	}
	rc, err := w.inotify.SyscallConn() // its number, without making it block
	if err != nil {
		return err
	}
	var id int
	if cerr := rc.Control(func(fd uintptr) {
		id, err = unix.InotifyAddWatch(int(fd), dir+"/memory.events", unix.IN_MODIFY)
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return &fs.PathError{Op: "watch", Path: dir + "/memory.events", Err: err}
	}
	x.id = int32(id)
	w.watches[x.id] = x
	return nil
}

func (w *OOMWatcher) readInotify(f *os.File) {
	buf := make([]byte, 64*unix.SizeofInotifyEvent)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		for _, x := range w.changed(buf[:n]) {
			x.look()
		}
	}
}

// changed lists whose file was written, each once; those whose file is gone are
// forgotten.
func (w *OOMWatcher) changed(buf []byte) (out []*OOMWatch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[int32]bool{}
	for len(buf) >= unix.SizeofInotifyEvent {
		id := int32(binary.NativeEndian.Uint32(buf))
		mask := binary.NativeEndian.Uint32(buf[4:])
		size := binary.NativeEndian.Uint32(buf[12:])
		buf = buf[min(unix.SizeofInotifyEvent+int(size), len(buf)):]
		x := w.watches[id]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0: // some were not told of: look at all
			for other, y := range w.watches {
				if !seen[other] {
					seen[other], out = true, append(out, y)
				}
			}
		case x == nil:
		case mask&unix.IN_IGNORED != 0:
			delete(w.watches, id)
		case !seen[id]:
			seen[id], out = true, append(out, x)
		}
	}
	return out
}
