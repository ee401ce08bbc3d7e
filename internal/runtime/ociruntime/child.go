//go:build linux

package ociruntime

import (
	"errors"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// A child is a process that this one has made.
type child struct {
	pid     int
	pidfd   int
	console *os.File
}

// close lets go of a child that lives on without us.
func (c *child) close() error {
	if c.console != nil {
		_ = c.console.Close()
	}
	return unix.Close(c.pidfd)
}

// kill ends a child that has failed, and reaps it.
func (c *child) kill() {
	_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
	_, _ = c.wait()
	_ = c.close()
}

// wait waits for the end and returns the exit code.
func (c *child) wait() (int, error) {
	ended(c.pidfd, -1)
	st, err := proc.Wait(c.pidfd)
	if err != nil {
		return 0, err
	}
	return proc.Code(st), nil
}

// plain takes the daemon's words off a failure: engines add their own.
func plain(err error) error {
	var se *runtime.StartError
	if !errors.As(err, &se) {
		return err
	}
	text := se.Text
	for _, p := range []string{"failed to create task for container: ", "OCI runtime exec failed: exec failed: "} {
		text = strings.TrimPrefix(text, p)
	}
	return errors.New(text)
}

// sendFile sends one descriptor, with a name, to who listens at a socket.
func sendFile(path, name string, fd int) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, _, err = conn.WriteMsgUnix([]byte(name), unix.UnixRights(fd), nil)
	return err
}
