//go:build linux

package oci

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// consoleSocket is where a runtime sends the terminal it made.
type consoleSocket struct {
	l    *net.UnixListener
	path string
	name string // relative to the bundle, which the runtime runs in: addresses are short
	dir  int
}

func listenConsole(bundle string) (*consoleSocket, error) {
	f, err := os.CreateTemp(bundle, "console-")
	if err != nil {
		return nil, err
	}
	path := f.Name()
	_ = f.Close()
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	dir, err := unix.Open(bundle, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: bundle, Err: err}
	}
	s := &consoleSocket{path: path, name: filepath.Base(path), dir: dir}
	s.l, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, s.name)})
	if err != nil {
		_ = unix.Close(dir)
		return nil, fmt.Errorf("console socket: %w", err)
	}
	s.l.SetUnlinkOnClose(false)
	return s, nil
}

func (s *consoleSocket) close() {
	_ = s.l.Close()
	_ = os.Remove(s.path)
	_ = unix.Close(s.dir)
}

// accept takes the terminal's master from a runtime that has ended: it has sent
// it, or never will.
func (s *consoleSocket) accept(ctx context.Context, size [2]uint) (*os.File, error) {
	deadline := time.Now().Add(5 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = s.l.SetDeadline(deadline)
	c, err := s.l.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("it sent no terminal: %w", err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(deadline)
	var name [4096]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(name[:], oob)
	if err != nil {
		return nil, fmt.Errorf("it sent no terminal: %w", err)
	}
	fd, err := oneFD(oob[:n])
	if err != nil {
		return nil, err
	}
	err = unix.SetNonblock(fd, true)
	if err == nil && size[0]+size[1] > 0 {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size[0]), Col: uint16(size[1])})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("the terminal that it sent: %w", err)
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

func oneFD(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return -1, err
		}
		if len(fds) == 1 {
			unix.CloseOnExec(fds[0])
			return fds[0], nil
		}
	}
	return -1, errors.New("it sent no terminal")
}
