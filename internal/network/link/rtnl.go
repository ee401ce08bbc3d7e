package link

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// message is one rtnetlink message under construction.
type message struct{ b []byte }

// newMessage starts a message with its fixed part.
func newMessage(typ, flags uint16, fixed []byte) *message {
	b := make([]byte, unix.SizeofNlMsghdr, 256)
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return &message{append(b, fixed...)}
}

func (m *message) pad() {
	for len(m.b)%unix.NLMSG_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *message) attr(typ uint16, data []byte) {
	m.pad()
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(unix.SizeofRtAttr+len(data)))
	m.b = binary.NativeEndian.AppendUint16(m.b, typ)
	m.b = append(m.b, data...)
}

func (m *message) u32(typ uint16, v uint32) {
	m.attr(typ, binary.NativeEndian.AppendUint32(nil, v))
}

func (m *message) str(typ uint16, s string) { m.attr(typ, append([]byte(s), 0)) }

// nest opens an attribute that holds others; fixed comes before them.
func (m *message) nest(typ uint16, fixed []byte, inner func()) {
	m.pad()
	start := len(m.b)
	m.attr(typ, fixed)
	inner()
	binary.NativeEndian.PutUint16(m.b[start:], uint16(len(m.b)-start))
}

// Socket is an rtnetlink socket: it acts on the network namespace of the thread
// that opened it, for as long as it is open, and keeps that namespace alive.
type Socket struct {
	mu  sync.Mutex // one exchange at a time
	fd  int
	seq uint32
	buf []byte
}

// OpenSocket opens a socket in the calling thread's network namespace.
func OpenSocket() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind rtnetlink socket: %w", err)
	}
	// Errors then come with the kernel's own words, and without our message.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Socket{fd: fd, buf: make([]byte, 16<<10)}, nil
}

// Close closes the socket.
func (s *Socket) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// do sends all messages at once and waits for every answer; it returns the
// first error in their order. What the kernel sends beside acknowledgements goes
// to each, which may be nil.
func (s *Socket) do(each func(body []byte), msgs ...*message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.seq + 1
	var out []byte
	for _, m := range msgs {
		s.seq++
		m.pad()
		binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
		binary.NativeEndian.PutUint32(m.b[8:], s.seq)
		out = append(out, m.b...)
	}
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to rtnetlink: %w", err)
	}
	results := make([]error, len(msgs))
	for left := len(msgs); left > 0; {
		n, err := s.receive()
		if err != nil {
			return err
		}
		left -= parse(s.buf[:n], first, results, each)
	}
	for _, err := range results {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Socket) receive() (int, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("receive from rtnetlink: %w", err)
		}
		return n, nil
	}
}

// parse notes the results in b by sequence number and returns how many came.
func parse(b []byte, first uint32, results []error, each func([]byte)) (acks int) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return acks
		}
		typ, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		i := binary.NativeEndian.Uint32(b[8:]) - first
		body := b[unix.SizeofNlMsghdr:size]
		switch {
		case i >= uint32(len(results)): // a late answer to somebody before
		case typ == unix.NLMSG_ERROR && len(body) >= 4:
			results[i] = ackError(body, flags)
			acks++
		case typ == unix.NLMSG_DONE:
			acks++
		case each != nil:
			each(body)
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return acks
}

// ackError reads an acknowledgement: nil, or the error with the kernel's words.
func ackError(body []byte, flags uint16) error {
	code := -int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(code)
	const header = 4 + unix.SizeofNlMsghdr
	if flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > header {
		rest := body[header:]
		if flags&unix.NLM_F_CAPPED == 0 {
			rest = rest[min(len(rest), max(0, int(binary.NativeEndian.Uint32(body[4:]))-unix.SizeofNlMsghdr)):]
		}
		if text := unix.ByteSliceToString(attribute(rest, unix.NLMSGERR_ATTR_MSG)); text != "" {
			return fmt.Errorf("%w: %s", errno, text)
		}
	}
	return errno
}

// attribute finds an attribute's data; nil if there is none.
func attribute(b []byte, typ uint16) []byte {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED == typ {
			return b[unix.SizeofRtAttr:size]
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}
