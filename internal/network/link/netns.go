// Package link makes network namespaces and the interfaces between them and the
// host, with as few system calls and as little waiting as the kernel allows:
// namespaces are descriptors only, a veth pair is born in its place by one
// message, and nothing is deleted on a container's path: an interface dies with
// its namespace.
package link

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// Spaces enters network namespaces and comes back.
type Spaces struct{ host *os.File }

// OpenSpaces takes the calling thread's namespace as the one to come back to.
func OpenSpaces() (*Spaces, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	return &Spaces{f}, nil
}

// Close closes the host's descriptor.
func (s *Spaces) Close() error { return s.host.Close() }

// thread runs f on a thread of its own choice of namespace. The goroutine is a
// new one, so that a thread which cannot come back dies with it instead of doing
// the caller's work in a container's namespace.
func (s *Spaces) thread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := f()
		if back := unix.Setns(int(s.host.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
			return // still locked: the thread ends here
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// In runs f on a thread inside the namespace.
func (s *Spaces) In(ns *os.File, f func() error) error {
	return s.thread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// Space is a fresh namespace: its descriptor and a socket inside it.
type Space struct {
	File   *os.File
	Socket *Socket
}

// Close drops the namespace; without other users it dies.
func (s *Space) Close() {
	s.Socket.Close()
	_ = s.File.Close()
}

// Make makes a namespace with lo up, without IPv6 on interfaces to come: those of
// networks that have it switch it on. With users it belongs to a user namespace
// of its own, whose root is its master.
func (s *Spaces) Make(users *userns.Map) (*Space, error) {
	var sp Space
	err := s.thread(func() (err error) {
		if err := enterNew(users); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if sp.File, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if sp.Socket, err = OpenSocket(); err != nil {
			_ = sp.File.Close()
			return err
		}
		for _, d := range defaults {
			if err := WriteSysctl(d.path, d.value); err != nil && !errors.Is(err, os.ErrNotExist) {
				sp.Close()
				return err
			}
		}
		if err := sp.Socket.do(nil, setUp(1)); err != nil {
			sp.Close()
			return fmt.Errorf("bring lo up: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sp, nil
}

// enterNew takes this thread into a new network namespace.
func enterNew(users *userns.Map) error {
	if users == nil {
		return unix.Unshare(unix.CLONE_NEWNET)
	}
	fd, err := userns.NewNet(*users)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

// defaults are set in every new namespace before any interface but lo exists.
var defaults = [...]struct{ path, value string }{
	// On a network of IPv4: no link-local address. And no router advertisement to
	// obey: it would be a neighbour's.
	{"net/ipv6/conf/default/disable_ipv6", "1"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	// As docker: low ports and ping need no capability inside.
	{"net/ipv4/ip_unprivileged_port_start", "0"},
	{"net/ipv4/ping_group_range", "0 2147483647"},
}

// WriteSysctl writes a kernel parameter, by its path below /proc/sys, in the
// calling thread's namespace.
func WriteSysctl(path, value string) error {
	fd, err := unix.Open("/proc/sys/"+path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/sys/" + path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: "/proc/sys/" + path, Err: err}
	}
	return nil
}

// Same reports whether both descriptors are of one namespace.
func Same(a, b *os.File) (bool, error) {
	fa, err := a.Stat()
	if err != nil {
		return false, err
	}
	fb, err := b.Stat()
	return err == nil && os.SameFile(fa, fb), err
}

// IsHost reports whether the namespace is the host's.
func (s *Spaces) IsHost(ns *os.File) (bool, error) { return Same(s.host, ns) }
