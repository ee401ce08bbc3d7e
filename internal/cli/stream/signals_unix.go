//go:build !windows

package stream

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwardName is a signal's name, or "" for one that is about us: children,
// pipes, the window, and the Go runtime's own.
func forwardName(s os.Signal) string {
	n, ok := s.(syscall.Signal)
	if !ok {
		return ""
	}
	switch n {
	case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH:
		return ""
	}
	if name := unix.SignalName(n); name != "" {
		return name
	}
	return strconv.Itoa(int(n))
}

func usualSignals() []os.Signal {
	return []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}
}

func endSignals() []os.Signal { return []os.Signal{unix.SIGTERM, unix.SIGHUP} }

// sizeChanges reports changes of the window's size.
func sizeChanges() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGWINCH)
	return c, func() { signal.Stop(c) }
}
