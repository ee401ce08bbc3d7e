package containers

import (
	"encoding/binary"
	"io"
)

const frameHead = 8 // of the multiplexed form: stream, 0, 0, 0, big-endian length

// reframed gives a session the form that the client reads: as with docker that
// is what the start of an exec asks for, whatever the exec was created with.
func reframed(s *session, tty bool) Session {
	switch {
	case s.TTY() == tty:
		return s
	case tty:
		return &unframed{session: s}
	}
	return &framed{session: s}
}

// framed makes frames of a terminal's output.
type framed struct {
	*session
	rest []byte // of the frame that did not fit
	buf  [frameHead + 32<<10]byte
}

func (f *framed) TTY() bool { return false }

func (f *framed) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		n, err := f.session.Read(f.buf[frameHead:])
		if n == 0 {
			return 0, err
		}
		f.buf[0] = 1                                     // standard output: a terminal has no other
		binary.BigEndian.PutUint32(f.buf[4:], uint32(n)) //nolint:gosec // at most the buffer's size
		f.rest = f.buf[:frameHead+n]
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// unframed drops the frames, and what is not standard output with them.
type unframed struct {
	*session
	left uint32 // of the frame's content
}

func (u *unframed) TTY() bool { return true }

func (u *unframed) Read(p []byte) (int, error) {
	for u.left == 0 {
		var head [frameHead]byte
		if _, err := io.ReadFull(u.session, head[:]); err != nil {
			return 0, err
		}
		n := binary.BigEndian.Uint32(head[4:])
		if head[0] == 1 {
			u.left = n
			continue
		}
		if _, err := io.CopyN(io.Discard, u.session, int64(n)); err != nil {
			return 0, err
		}
	}
	n, err := u.session.Read(p[:min(len(p), int(u.left))])
	u.left -= uint32(n) //nolint:gosec // at most left
	return n, err
}
