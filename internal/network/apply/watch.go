package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch tells when tables disappear: somebody who reloads the host's firewall
// with "flush ruleset" takes ours along (as in CVE-2025-54388).
type Watch struct{ f *os.File }

// OpenWatch starts to listen in the calling thread's namespace.
func OpenWatch() (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	addr := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}
	if err := unix.Bind(fd, addr); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen for changes of nftables: %w", err)
	}
	return &Watch{os.NewFile(uintptr(fd), "netfilter")}, nil
}

// Run calls gone after a table of the name was deleted, by us too, and whenever
// the kernel left messages out, until Close.
func (w *Watch) Run(table string, gone func()) {
	buf := make([]byte, 32<<10)
	for {
		n, err := w.f.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			gone()
		case err != nil:
			return
		case deletes(buf[:n], table):
			gone()
		}
	}
}

const deleteTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE

// deletes reports whether one of the messages is the deletion of the table.
func deletes(b []byte, table string) bool {
	const head = unix.SizeofNlMsghdr + 4 // and struct nfgenmsg
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false
		}
		if binary.NativeEndian.Uint16(b[4:]) == deleteTable && size > head+unix.SizeofRtAttr {
			attr := b[head:size]
			if n := int(binary.NativeEndian.Uint16(attr)); n >= unix.SizeofRtAttr && n <= len(attr) &&
				binary.NativeEndian.Uint16(attr[2:]) == unix.NFTA_TABLE_NAME &&
				unix.ByteSliceToString(attr[unix.SizeofRtAttr:n]) == table {
				return true
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false
}

// Close ends Run.
func (w *Watch) Close() error { return w.f.Close() }
