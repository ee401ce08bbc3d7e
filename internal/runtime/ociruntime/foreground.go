//go:build linux

package ociruntime

import (
	"errors"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// A watcher passes signals on to a child, relays its terminal and waits for it.
type watcher struct {
	child   *child
	signals chan os.Signal
}

func watchSignals(c *child) *watcher {
	w := &watcher{c, make(chan os.Signal, 256)}
	signal.Notify(w.signals)
	return w
}

// foreground is for who waits in front of a process: it returns its exit code.
func (w *watcher) foreground() (int, error) {
	drained := make(chan struct{})
	if w.child.console == nil {
		close(drained)
	} else {
		restore, err := rawTerminal(os.Stdin)
		if err != nil {
			return 0, err
		}
		defer restore()
		w.resize()
		go func() { _, _ = io.Copy(w.child.console, os.Stdin) }()
		go func() {
			_, _ = io.Copy(os.Stdout, w.child.console) // ends with the last who holds the terminal
			close(drained)
		}()
	}
	for {
		if code, over := w.reap(); over {
			<-drained
			signal.Stop(w.signals)
			return code, nil
		}
		w.pass(<-w.signals)
	}
}

func (w *watcher) pass(sig os.Signal) {
	switch sig {
	case unix.SIGURG, unix.SIGPIPE: // the Go runtime's own
	case unix.SIGCHLD: // the loop looks
	case unix.SIGWINCH:
		w.resize()
	default:
		if s, ok := sig.(unix.Signal); ok {
			_ = unix.PidfdSendSignal(w.child.pidfd, s, nil, 0)
		}
	}
}

// reap takes leave of the child, once it has ended, and of orphans that came to
// us as their subreaper.
func (w *watcher) reap() (code int, over bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || pid <= 0:
			return code, over
		case pid == w.child.pid:
			code, over = proc.Code(ws), true
		}
	}
}

func (w *watcher) resize() {
	if w.child.console == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(w.child.console.Fd()), unix.TIOCSWINSZ, size)
	}
}

// rawTerminal lets every key through to the container. What is no terminal
// stays as it is.
func rawTerminal(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}, nil
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil
}
