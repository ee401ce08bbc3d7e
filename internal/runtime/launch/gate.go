//go:build linux

package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// A gate is where a child waits between create and start: a listening socket
// that the child inherits, so whoever made it may be gone by then. Whoever
// connects and says a byte, and perhaps the limit of processes that has become
// another one meanwhile, starts the command, and hears on that connection what a
// parent would: nothing, or why the command did not start. Once the
// command runs nobody listens any more.
//
// The directory of the gate must be root's alone.

// NewGate makes a gate at path, for [Options.Gate]. The caller closes it once
// the child has it, and removes the path when the container is deleted.
func NewGate(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	err = onSocket(path, func(short string) error {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: short}); err != nil {
			return err
		}
		if err := unix.Chmod(short, 0o600); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("gate %s: %w", path, err)
	}
	return f, nil
}

// Release starts the command of the child that waits at the gate and returns
// once it runs. limit, if set, is what the command's limit of processes is to be
// instead of that of the launch: what the kernel's file takes. If nobody waits there, because the command was started before
// or the child is gone, the error is of kind Conflict; a failure of the command
// itself is a *runtime.StartError.
func Release(ctx context.Context, path, limit string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	err = onSocket(path, func(short string) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: short}) })
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return errs.New(errs.Conflict, "no process waits to be started")
	case err != nil:
		return fmt.Errorf("gate %s: %w", path, err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	conn := c.(*net.UnixConn)
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write(append([]byte{1}, limit...)); err != nil {
		return errs.New(errs.Conflict, "no process waits to be started")
	}
	for ready := false; ; {
		var a answer
		err := decode(conn, &a)
		ready = ready || a.Ready
		switch {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF) && ready:
			return nil
		case err != nil: // also a reset: it was already on its way when we came
			return errs.New(errs.Conflict, "the process that waited to be started is gone")
		case a.Text != "":
			return &runtime.StartError{Code: a.Code, Text: a.Text, Invalid: a.Invalid}
		}
	}
}

// onSocket calls f with a path to the same file that is short enough for the
// address of a socket.
func onSocket(path string, f func(short string) error) error {
	if len(path) < 100 {
		return f(path)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	return f("/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path))
}

// A waiter is the child's side of a gate. The thread that becomes the command
// may be allowed little more than to read by then, so another one listens: this
// one has every right the launcher has, and ends with the exec.
type waiter struct {
	r, w int // a pipe that tells of the start
}

// listenAt begins to listen, to be called while this thread may still make others.
func (s *setup) listenAt(gate int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	s.gate = &waiter{r: p[0], w: p[1]}
	var running sync.WaitGroup
	running.Add(1)
	go func() {
		running.Done()
		for {
			conn, _, err := unix.Accept4(gate, unix.SOCK_CLOEXEC)
			if err != nil {
				if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
					continue
				}
				break
			}
			var say [32]byte
			if n, err := unix.Read(conn, say[:]); n >= 1 && err == nil {
				// From here on the one who starts is who listens to us.
				if unix.Dup3(conn, fdControl, unix.O_CLOEXEC) == nil {
					_, _ = unix.Close(conn), unix.Close(gate)
					_, _ = unix.Write(s.gate.w, say[:n])
					return
				}
			}
			_ = unix.Close(conn)
		}
		_ = unix.Close(s.gate.w) // the reader sees an end
	}()
	running.Wait()
	return nil
}

// wait tells the parent that all is prepared and waits to be started.
func (s *setup) wait() error {
	msg, err := encode(&answer{Created: true})
	if err != nil {
		return err
	}
	if _, err := rawFD(fdControl).Write(msg); err != nil {
		return err
	}
	var told [32]byte
	n, err := rawFD(s.gate.r).Read(told[:])
	if n < 1 {
		return fmt.Errorf("wait to be started: %w", err)
	}
	if n > 1 {
		s.req.PIDsMax = string(told[1:n])
	}
	return nil
}
