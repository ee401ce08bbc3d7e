// Package sockets asks the kernel about connections what package net does not.
package sockets

import (
	"crypto/tls"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// HungUp reports whether both directions of c are closed: its peer is gone, and
// did not merely stop sending. Never blocks. What is no socket is never hung up.
func HungUp(c net.Conn) bool {
	raw, ok := rawConn(c)
	if !ok {
		return false
	}
	gone := false
	err := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // descriptors fit
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return gone || err != nil
}

// Unread returns how much of what was sent the peer has not taken yet, in the
// kernel's accounting: 0 is all taken. Only unix sockets tell.
func Unread(c net.Conn) (n int, ok bool) {
	raw, ok := rawConn(c)
	if !ok || c.LocalAddr().Network() != "unix" {
		return 0, false
	}
	var err error
	if raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }) != nil || err != nil {
		return 0, false
	}
	return n, true
}

// Peer returns who is at the other end of a unix socket.
func Peer(c net.Conn) (*unix.Ucred, bool) {
	raw, ok := rawConn(c)
	if !ok || c.LocalAddr().Network() != "unix" {
		return nil, false
	}
	var cred *unix.Ucred
	var err error
	if raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}) != nil || err != nil {
		return nil, false
	}
	return cred, true
}

func rawConn(c net.Conn) (syscall.RawConn, bool) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, false
	}
	raw, err := sc.SyscallConn()
	return raw, err == nil
}
