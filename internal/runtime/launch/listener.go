//go:build linux

package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	goruntime "runtime"
	"sync"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A seccomp filter may leave system calls to be decided by somebody else, who
// listens at a socket. The filter's descriptor comes into being on the thread
// that is confined by it, which from then on may have to ask for every call. So
// that thread makes none until the descriptor is handed over: it leaves the
// number in memory, for another thread of the launcher.

// passListener sends the filter's descriptor and the container's state to the
// socket that the profile names.
func (c *Child) passListener(ctx context.Context, fd int) error {
	msg, err := json.Marshal(&specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: c.PID, Metadata: c.req.Seccomp.Metadata, State: c.state,
	})
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.req.Seccomp.Listener)
	if err != nil {
		return fmt.Errorf("seccomp listener: %w", err)
	}
	defer func() { _ = conn.Close() }()
	n, _, err := conn.(*net.UnixConn).WriteMsgUnix(msg, unix.UnixRights(fd), nil)
	if err == nil && n < len(msg) {
		_, err = conn.Write(msg[n:])
	}
	if err != nil {
		return fmt.Errorf("seccomp listener %s: %w", c.req.Seccomp.Listener, err)
	}
	return nil
}

// confine loads the filter and, if it has a listener, waits until that has it.
func (s *setup) confine() error {
	prog := s.req.Seccomp
	if !prog.Listens() {
		_, err := prog.Load()
		return err
	}
	var fd, done atomic.Int64
	fd.Store(-1)
	var running sync.WaitGroup
	running.Add(1)
	// Refused, left to the listener or granted: this call only passes the time.
	pause := unix.Timespec{Nsec: 100000}
	go func() {
		goruntime.LockOSThread() // one that was there before the filter, and needs no timer of the runtime's
		running.Done()
		for fd.Load() < 0 {
			_ = unix.Nanosleep(&pause, nil)
		}
		err := s.handOver(int(fd.Load()))
		if err != nil {
			os.Exit(1) // the parent knows why
		}
		done.Store(1)
	}()
	running.Wait()
	listener, err := prog.Load()
	if err != nil {
		return err
	}
	fd.Store(int64(listener))
	for done.Load() == 0 {
		_ = unix.Nanosleep(&pause, nil)
	}
	return unix.Close(listener)
}

func (s *setup) handOver(fd int) error {
	msg, err := encode(&answer{Listener: true})
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(fdControl, msg, unix.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	var told [1]byte
	if n, err := rawFD(fdControl).Read(told[:]); n != 1 || err != nil {
		return fmt.Errorf("hand over the listener: %w", err)
	}
	return nil
}
