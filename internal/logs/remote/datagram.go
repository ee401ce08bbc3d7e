package remote

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// Datagrams is a socket of which each write is a message.
type Datagrams struct{ conn net.Conn }

// DialDatagrams makes a "udp" or "unixgram" socket for an address.
func DialDatagrams(ctx context.Context, network, address string) (*Datagrams, error) {
	c, err := Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &Datagrams{c}, nil
}

// Write sends one. Over UDP, "refused" is news of an earlier one: this one is
// sent all the same, and whether it arrives nobody knows.
func (d *Datagrams) Write(ctx context.Context, p []byte) error {
	stop := context.AfterFunc(ctx, func() { _ = d.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := d.conn.Write(p)
	if _, udp := d.conn.(*net.UDPConn); udp && errors.Is(err, syscall.ECONNREFUSED) {
		if _, err = d.conn.Write(p); errors.Is(err, syscall.ECONNREFUSED) {
			err = nil
		}
	}
	return err
}

// Conn is the socket itself.
func (d *Datagrams) Conn() net.Conn { return d.conn }

// Close closes it.
func (d *Datagrams) Close() error { return d.conn.Close() }
