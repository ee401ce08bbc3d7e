package remote

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/ids"
)

// maxLine is where docker cuts a line into pieces.
const maxLine = 16 << 10

// lines puts the pieces that a log holds together to lines, as docker does: a
// line ends with its newline, is cut every 16 KiB, and has the time at which
// its first byte was read.
type lines struct{ streams [2]open }

// open is the unfinished line of a stream.
type open struct {
	held []byte
	at   time.Time
	// When the line was cut before: how often, and what its pieces are marked with.
	cut  int
	id   string
	from time.Time
}

// add takes bytes of a stream; what becomes complete goes to emit, whose
// message is valid until add returns.
func (a *lines) add(stream byte, at time.Time, p []byte, emit func(Message)) {
	s := &a.streams[stream-1]
	for len(p) > 0 {
		room := maxLine - len(s.held)
		end := bytes.IndexByte(p[:min(len(p), room)], '\n')
		if len(s.held) == 0 {
			s.at = at
		}
		if end < 0 && len(p) < room {
			s.held = append(s.held, p...)
			return
		}
		n, skip := end, end+1
		if end < 0 {
			n, skip = room, room
		}
		line := p[:n]
		if len(s.held) > 0 {
			s.held = append(s.held, line...)
			line = s.held
		}
		emit(s.message(stream, line, end >= 0))
		if s.held = s.held[:0]; end >= 0 {
			s.held = nil // most streams hold nothing most of the time
		}
		p = p[skip:]
	}
}

func (s *open) message(stream byte, line []byte, ends bool) Message {
	m := Message{Stream: stream, At: s.at, Line: line}
	if ends && s.cut == 0 {
		return m
	}
	if s.cut == 0 {
		s.id, s.from = ids.New(), s.at
	}
	s.cut++
	m.At, m.Partial = s.from, &Partial{ID: s.id, Ordinal: s.cut, Last: ends}
	if ends {
		s.cut, s.id = 0, ""
	}
	return m
}

// end emits what the container left unfinished.
func (a *lines) end(emit func(Message)) {
	for i := range a.streams {
		if s := &a.streams[i]; len(s.held) > 0 {
			emit(s.message(byte(i+1), s.held, false))
		}
		a.streams[i] = open{}
	}
}

// state is what lines needs to go on after a crash; nil if nothing is open.
func (a *lines) state() []byte {
	if a.streams[0].idle() && a.streams[1].idle() {
		return nil
	}
	var b []byte
	for i := range a.streams {
		s := &a.streams[i]
		b = binary.AppendVarint(b, s.at.UnixNano())
		b = binary.AppendVarint(b, s.from.UnixNano())
		b = binary.AppendUvarint(b, uint64(s.cut)) //nolint:gosec // not negative
		for _, f := range [][]byte{[]byte(s.id), s.held} {
			b = append(binary.AppendUvarint(b, uint64(len(f))), f...)
		}
	}
	return b
}

func (s *open) idle() bool { return len(s.held) == 0 && s.cut == 0 }

// restore takes a state over; one that is not whole is none.
func (a *lines) restore(b []byte) {
	*a = lines{}
	var out lines
	bad := false
	num := func(n int64, size int) int64 {
		if size <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[size:]
		return n
	}
	field := func() []byte {
		u, size := binary.Uvarint(b)
		n := num(int64(min(u, math.MaxInt64)), size) //nolint:gosec // bounded
		if bad || n > int64(len(b)) {
			bad = true
			return nil
		}
		f := b[:n:n]
		b = b[n:]
		return bytes.Clone(f)
	}
	for i := range out.streams {
		s := &out.streams[i]
		s.at = time.Unix(0, num(binary.Varint(b)))
		s.from = time.Unix(0, num(binary.Varint(b)))
		u, size := binary.Uvarint(b)
		s.cut = int(num(int64(min(u, math.MaxInt32)), size)) //nolint:gosec // bounded
		s.id, s.held = string(field()), field()
		bad = bad || len(s.held) >= maxLine
	}
	if !bad {
		*a = out
	}
}
