//go:build linux

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
)

var (
	unixPast = time.Unix(1, 0)
	never    time.Time
)

// ends are the two sides of a process's streams.
type ends struct {
	child launch.Streams // the process's; closed once it has them
	stdin *os.File       // ours
	out   [2]*os.File    // ours: stdout, stderr
}

func fifoPath(dir, execID string, n int) string {
	return filepath.Join(dir, strconv.Itoa(n)+"-"+execID)
}

// openStreams makes the streams of a process. They are fifos, and the process
// holds those it writes to open for reading as well: so it never gets SIGPIPE
// when the shim dies, and the next shim reads on.
func openStreams(dir, execID string, io runtime.IO, passed [3]*os.File) (e *ends, err error) {
	e = &ends{}
	if io.Passed {
		e.child = passed
		return e, nil
	}
	if io.TTY {
		return e, nil // the process opens its terminal
	}
	defer func() {
		if err != nil {
			e.close()
			removeFifos(dir, execID)
		}
	}()
	if io.Stdin {
		path := fifoPath(dir, execID, 0)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return e, fmt.Errorf("make stdin: %w", err)
		}
		if e.child[0], err = openFifo(path, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
			return e, err
		}
		if e.stdin, err = openFifo(path, unix.O_WRONLY|unix.O_NONBLOCK); err != nil {
			return e, err
		}
		if err = unix.SetNonblock(int(e.child[0].Fd()), false); err != nil {
			return e, err
		}
	}
	for n := 1; n <= 2; n++ {
		path := fifoPath(dir, execID, n)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return e, fmt.Errorf("make output: %w", err)
		}
		if e.child[n], err = openFifo(path, unix.O_RDWR); err != nil {
			return e, err
		}
		if e.out[n-1], err = openFifo(path, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
			return e, err
		}
	}
	return e, nil
}

// openFifo opens one, in a directory that nobody else writes to. Without
// O_NOFOLLOW: criu gives a descriptor its flags again, by way of a link in /proc.
func openFifo(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// reopenStreams opens again where a process prints to, which has the other sides.
func reopenStreams(dir, execID string, io runtime.IO) (*ends, error) {
	e := &ends{}
	if io.Passed || io.TTY {
		return e, nil // the keeper has the terminal
	}
	for n := 1; n <= 2; n++ {
		f, err := openFifo(fifoPath(dir, execID, n), unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			e.close()
			return nil, err
		}
		e.out[n-1] = f
	}
	return e, nil
}

// closeChild closes the process's sides here; passed ones are the request's.
func (e *ends) closeChild(io runtime.IO) {
	if io.Passed {
		return
	}
	closeAll(e.child[:])
	e.child = launch.Streams{}
}

func (e *ends) close() {
	closeAll(append(e.child[:], e.stdin, e.out[0], e.out[1]))
}

func removeFifos(dir, execID string) {
	for n := range 3 {
		_ = unix.Unlink(fifoPath(dir, execID, n))
	}
}
