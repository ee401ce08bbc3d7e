package network

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// translated are the targets that the firewall can serve: nothing in user space
// hands SCTP on. It is an error if none are left of some.
func translated(all []target, s PortSpec) ([]target, error) {
	out := slices.DeleteFunc(slices.Clone(all), func(t target) bool { return !t.routed && !t.translated() })
	if len(out) == 0 && len(all) > 0 {
		return nil, errs.Newf(errs.Unsupported,
			"publish port %s on %s: sctp is not forwarded in user space, so an address that the firewall cannot translate to the container's cannot publish it",
			s.Container, all[0].host)
	}
	return out, nil
}

// reserveSCTP keeps others from the port. A host whose kernel has no SCTP has
// nobody who could take it, and translates its packets all the same.
func (m *Manager) reserveSCTP(a netip.AddrPort) (io.Closer, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()})
	if a.Addr().Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		m.o.Log.InfoContext(context.Background(), "the kernel has no sctp: a published port is not reserved by a socket", "port", a.String())
		return io.NopCloser(nil), nil
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "sctp")
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
