package logs

import (
	"math"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// rest is the least time between two looks at a busy log, so that following
	// it costs little however small its writes are.
	rest = 4 * time.Millisecond
	// The time between looks where nothing tells of changes, and where something
	// does (and might have missed one).
	pollEvery  = 50 * time.Millisecond
	checkEvery = time.Second
)

// wait returns when there may be more to read; false: nothing will come after
// what is there now.
func (c *cursor) wait() bool {
	if c.watch == nil {
		c.watch = newWatch(c.at.seg.f)
		return true // what came before the watch was set
	}
	if d := rest - time.Since(c.slept); d > 0 {
		time.Sleep(d)
	}
	every := checkEvery
	if c.watch.changed == nil {
		every = pollEvery
	}
	more := c.r.pause(c.watch.changed, every, c.until)
	c.slept = time.Now()
	return more
}

// pause waits for a change, at most for a time; false: the container has ended,
// the context has, or the time asked for is over.
func (r *reader) pause(changed <-chan struct{}, most time.Duration, until int64) bool {
	over := false
	if until != math.MaxInt64 {
		if left := time.Until(time.Unix(0, until)); left < most {
			most, over = max(left, 0), true
		}
	}
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
		return !over
	case <-r.o.Done:
		return false
	case <-r.ctx.Done():
		return false
	}
	return true
}

// watch tells of changes of one file. Where the kernel gives no more watches,
// changed is nil, and the reader polls.
type watch struct {
	f       *os.File
	changed chan struct{}
}

func newWatch(log *os.File) *watch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &watch{}
	}
	const events = unix.IN_MODIFY | unix.IN_MOVE_SELF | unix.IN_ATTRIB | unix.IN_DELETE_SELF
	if _, err := unix.InotifyAddWatch(fd, "/proc/self/fd/"+strconv.Itoa(int(log.Fd())), events); err != nil {
		_ = unix.Close(fd)
		return &watch{}
	}
	w := &watch{f: os.NewFile(uintptr(fd), "inotify"), changed: make(chan struct{}, 1)}
	go func() {
		b := make([]byte, 4096)
		for {
			if _, err := w.f.Read(b); err != nil {
				return // closed
			}
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

func (w *watch) close() {
	if w != nil && w.f != nil {
		_ = w.f.Close()
	}
}
