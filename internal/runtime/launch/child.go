//go:build linux

package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// Child is a process that waits to be told what to become.
type Child struct {
	PID   int
	PidFD int // non-blocking; the caller's to close
	// Mounts is the mount namespace of one that was parked, once Go has succeeded.
	Mounts *os.File
	RDT    []string // directories to be removed with the container: see [LeaveRDT]

	conn  *net.UnixConn
	req   *request
	hooks *specs.Hooks
	state specs.State // what hooks and a seccomp listener are told
}

// Go tells the child what to become and waits until it is, or until it waits at
// its gate. With a terminal, its master end is returned. A failure of the command
// itself is a *runtime.StartError. The child of a failed Go ends by itself, but
// for one whose poststart hook failed: it runs, and is the caller's to end.
func (c *Child) Go(ctx context.Context) (console *os.File, err error) {
	defer func() { _ = c.conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	defer func() {
		if err != nil && console != nil {
			_ = console.Close()
			console = nil
		}
		if err != nil && c.Mounts != nil {
			_ = c.Mounts.Close()
			c.Mounts = nil
		}
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	msg, err := encode(c.req)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(msg); err != nil && !errors.Is(err, unix.EPIPE) {
		return nil, fmt.Errorf("instruct child: %w", err)
	}
	var created bool
	console, created, err = c.hear(ctx)
	if err != nil {
		return console, err
	}
	if !stop() {
		return console, context.Canceled
	}
	if c.hooks != nil && !created {
		c.state.Status = specs.StateRunning
		err = RunHooks(ctx, "poststart", c.hooks.Poststart, &c.state)
	}
	return console, err
}

// hear answers the child until it has become the command, or waits at its gate.
func (c *Child) hear(ctx context.Context) (console *os.File, created bool, err error) {
	r := &fdReader{conn: c.conn}
	defer r.close()
	var reaper *os.File
	defer func() {
		if reaper != nil {
			_ = reaper.Close()
		}
	}()
	ready := false
	for {
		var a answer
		err := decode(r, &a)
		ready = ready || a.Ready
		switch {
		case errors.Is(err, io.EOF) && !ready:
			return console, false, fmt.Errorf("the launcher of %s was killed", c.req.ID)
		case errors.Is(err, io.EOF):
			waitReaper(ctx, reaper)
			return console, false, nil
		case err != nil:
			return console, false, fmt.Errorf("hear from child: %w", err)
		case a.Created:
			return console, true, nil
		case a.Hooks:
			c.state.Status = specs.StateCreating
			err = runtimeHooks(ctx, c.hooks, &c.state)
		case a.Listener && r.fd >= 0:
			err = c.passListener(ctx, r.fd)
		case a.Mounts && r.fd >= 0 && c.Mounts == nil:
			c.Mounts, r.fd = os.NewFile(uintptr(r.fd), "mounts"), -1
		case a.Reaper && r.fd >= 0 && reaper == nil:
			if err := unix.SetNonblock(r.fd, true); err != nil {
				return console, false, err
			}
			reaper, r.fd = os.NewFile(uintptr(r.fd), "reaper"), -1
		case a.Console && r.fd >= 0 && console == nil:
			if err := unix.SetNonblock(r.fd, true); err != nil {
				return nil, false, err
			}
			console, r.fd = os.NewFile(uintptr(r.fd), "terminal"), -1
		case a.Text != "":
			return console, false, &runtime.StartError{Code: a.Code, Text: a.Text, Invalid: a.Invalid}
		}
		if err == nil && (a.Hooks || a.Listener) {
			_, err = c.conn.Write([]byte{1}) // go on
		}
		if err != nil {
			return console, false, err
		}
	}
}

// reaperTime is how long a reaper may take to handle signals: in a container
// that shares processes with others, those could keep its pipe open.
const reaperTime = 10 * time.Second

// waitReaper returns when process 1 handles signals, or has ended.
func waitReaper(ctx context.Context, f *os.File) {
	if f == nil || f.SetReadDeadline(time.Now().Add(reaperTime)) != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _ = f.Read(make([]byte, 1))
}

// Abort lets the child end without having become anything.
func (c *Child) Abort() { _ = c.conn.Close() }

// fdReader reads a socket and keeps the last descriptor that came along.
type fdReader struct {
	conn *net.UnixConn
	fd   int
	init bool
}

func (r *fdReader) Read(p []byte) (int, error) {
	if !r.init {
		r.fd, r.init = -1, true
	}
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		msgs, perr := unix.ParseSocketControlMessage(oob[:oobn])
		if perr != nil {
			return n, perr
		}
		for _, m := range msgs {
			fds, perr := unix.ParseUnixRights(&m)
			if perr != nil {
				return n, perr
			}
			for _, fd := range fds {
				r.close()
				r.fd = fd
			}
		}
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		return n, errors.New("too many descriptors")
	}
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return n, err
}

func (r *fdReader) close() {
	if r.init && r.fd >= 0 {
		_ = unix.Close(r.fd)
		r.fd = -1
	}
}
