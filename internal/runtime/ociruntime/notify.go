//go:build linux

package ociruntime

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A service in a container can tell systemd that it is ready. It gets a socket
// of the runtime's, which stands between: the container says READY, and the
// runtime adds which process is the service's main one.

const (
	notifyDir    = "notify"
	notifySocket = "notify.sock"
	notifyInside = "/run/notify"
)

// notifyMount adds the socket to a container that is made for a service.
func (a *app) notifyMount(c *container) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	dir := filepath.Join(c.dir, notifyDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{
		Destination: notifyInside, Source: dir, Type: "bind", Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	c.Spec.Process.Env = append(c.Spec.Process.Env, "NOTIFY_SOCKET="+notifyInside+"/"+notifySocket)
	return nil
}

// notifier relays what a container's service tells; nil relays nothing.
type notifier struct {
	from *net.UnixConn
	to   string
}

// listenNotify opens the socket, to be called before the command runs.
func (a *app) listenNotify(c *container) (*notifier, error) {
	to := os.Getenv("NOTIFY_SOCKET")
	dir := filepath.Join(c.dir, notifyDir)
	if _, err := os.Stat(dir); err != nil || to == "" {
		return nil, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	// By the directory's descriptor: the path may be too long for a socket.
	path := "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + notifySocket
	from, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o777); err != nil { // whoever the service runs as
		_ = from.Close()
		return nil, err
	}
	return &notifier{from, to}, nil
}

func (n *notifier) close() {
	if n != nil {
		_ = n.from.Close()
	}
}

// relay waits until the service is ready, or gone, and tells.
func (n *notifier) relay(ctx context.Context, c *container) error {
	if n == nil {
		return nil
	}
	pidfd, alive, err := c.open()
	if err != nil || !alive {
		return err
	}
	defer func() { _ = unix.Close(pidfd) }()
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		if err := n.from.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		m, err := n.from.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if ended(pidfd, 0) {
				return nil
			}
		case err != nil:
			return err
		default:
			for line := range bytes.Lines(buf[:m]) {
				if bytes.HasPrefix(line, []byte("READY=")) {
					return n.tell(bytes.TrimSpace(line), c.PID)
				}
			}
		}
	}
	return ctx.Err()
}

// tell sends what the container said and waits until it was read: systemd must
// see it while this process is still there.
func (n *notifier) tell(ready []byte, pid int) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.to, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(append(ready, "\nMAINPID="+strconv.Itoa(pid)+"\n"...)); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = w.Close()
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = unix.Sendmsg(int(fd), []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil, 0)
	})
	_ = w.Close()
	if err = errors.Join(err, serr); err != nil {
		return err
	}
	_ = r.SetReadDeadline(time.Now().Add(5 * time.Second)) // who knows no barriers just closes nothing
	_, _ = r.Read(make([]byte, 1))
	return nil
}
