package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch tells which of the host's interfaces ceased to exist.
type Watch struct{ f *os.File }

// OpenWatch starts to listen in the calling thread's namespace.
func OpenWatch() (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	addr := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)}
	if err := unix.Bind(fd, addr); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen for changes of interfaces: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	return &Watch{os.NewFile(uintptr(fd), "rtnetlink")}, nil
}

// Run calls gone with the name of each interface that went, until Close. When
// the kernel had to leave some out it calls lost instead.
func (w *Watch) Run(gone func(name string), lost func()) {
	buf := make([]byte, 32<<10)
	for {
		n, err := w.f.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case err != nil:
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				break
			}
			const head = unix.SizeofNlMsghdr + unix.SizeofIfInfomsg
			// A port that leaves its bridge sends a DELLINK too, of family AF_BRIDGE.
			if binary.NativeEndian.Uint16(b[4:]) == unix.RTM_DELLINK && size > head && b[unix.SizeofNlMsghdr] == unix.AF_UNSPEC {
				if name := unix.ByteSliceToString(attribute(b[head:size], unix.IFLA_IFNAME)); name != "" {
					gone(name)
				}
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// Close ends Run.
func (w *Watch) Close() error { return w.f.Close() }
