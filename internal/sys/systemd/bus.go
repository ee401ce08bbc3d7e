package systemd

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// patience is how long systemd may take for an answer, or for a job.
const patience = 30 * time.Second

// A bus is one connection, for one request: connecting costs less than what a
// lasting one needs to outlive systemd's own restarts.
type bus struct {
	conn   net.Conn
	r      *bufio.Reader
	serial uint32
	broker bool
	seen   []*message // signals that came before an answer
}

// Error is what systemd, or the bus, answers.
type Error struct {
	Name string // org.freedesktop.systemd1.NoSuchUnit, …
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("systemd: %s (%s)", e.Text, e.Name) }

// Is tells whether an error is one of this name, below org.freedesktop.systemd1.
func Is(err error, name string) bool {
	var e *Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.systemd1."+name
}

// dial connects to systemd itself or, where that does not listen, by way of the
// bus.
func (m *Manager) dial(ctx context.Context) (_ *bus, err error) {
	var d net.Dialer
	b := &bus{}
	if b.conn, err = d.DialContext(ctx, "unix", m.private); err != nil {
		first := err
		if b.conn, err = d.DialContext(ctx, "unix", m.broker); err != nil {
			return nil, fmt.Errorf("systemd is not there: %w", errors.Join(first, err))
		}
		b.broker = true
	}
	deadline, ok := ctx.Deadline()
	if limit := time.Now().Add(patience); !ok || limit.Before(deadline) {
		deadline = limit
	}
	_ = b.conn.SetDeadline(deadline)
	b.r = bufio.NewReader(b.conn)
	if err = b.hello(); err != nil {
		_ = b.conn.Close()
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	return b, nil
}

func (b *bus) close() { _ = b.conn.Close() }

// hello says who we are, and through a broker asks for systemd's signals.
func (b *bus) hello() error {
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if _, err := b.conn.Write([]byte("\x00AUTH EXTERNAL " + uid + "\r\n")); err != nil {
		return err
	}
	line, err := b.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("refused: %q", line)
	}
	if _, err := b.conn.Write([]byte("BEGIN\r\n")); err != nil {
		return err
	}
	if !b.broker {
		return nil
	}
	const name = "org.freedesktop.DBus"
	for _, m := range []*message{
		{path: "/org/freedesktop/DBus", iface: name, member: "Hello", destination: name},
		{
			path: "/org/freedesktop/DBus", iface: name, member: "AddMatch", destination: name, signature: "s",
			body: body(func(e *encoder) {
				e.string("type='signal',interface='" + managerName + "',member='JobRemoved',path='" + managerPath + "'")
			}),
		},
		{path: managerPath, iface: managerName, member: "Subscribe", destination: destination},
	} {
		if _, err := b.call(m); err != nil {
			return err
		}
	}
	return nil
}

func body(f func(*encoder)) []byte {
	var e encoder
	f(&e)
	return e.Bytes()
}

// call sends a method call and waits for its answer.
func (b *bus) call(m *message) (*message, error) {
	b.serial++
	m.kind, m.serial = methodCall, b.serial
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	if _, err := b.conn.Write(data); err != nil {
		return nil, err
	}
	for {
		got, err := b.receive()
		switch {
		case err != nil:
			return nil, err
		case got.kind == signal:
			b.seen = append(b.seen, got)
		case got.replySerial != m.serial:
		case got.kind == methodReturn:
			return got, nil
		case got.kind == errorReply:
			e := &Error{Name: got.errorName}
			if strings.HasPrefix(got.signature, "s") {
				d := &decoder{data: got.body, order: got.order}
				e.Text = d.string()
			}
			return nil, e
		}
	}
}

func (b *bus) receive() (*message, error) {
	fixed, err := b.r.Peek(fixedHeader)
	if err != nil {
		return nil, err
	}
	n, err := size(fixed)
	if err != nil {
		return nil, err
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(b.r, data); err != nil {
		return nil, err
	}
	return decode(data)
}

// next is the next signal.
func (b *bus) next() (*message, error) {
	if len(b.seen) > 0 {
		m := b.seen[0]
		b.seen = b.seen[1:]
		return m, nil
	}
	for {
		m, err := b.receive()
		if err != nil || m.kind == signal {
			return m, err
		}
	}
}
