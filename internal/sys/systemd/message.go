package systemd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Kinds of messages.
const (
	methodCall   = 1
	methodReturn = 2
	errorReply   = 3
	signal       = 4
)

// Fields of a header.
const (
	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

const (
	fixedHeader = 16
	maxMessage  = 1 << 20 // the protocol allows 128 MiB; nothing asked for here comes near
)

// A message as it is of use here: bodies are decoded only as far as wanted.
type message struct {
	kind        byte
	serial      uint32
	replySerial uint32
	path        string
	iface       string
	member      string
	errorName   string
	destination string
	signature   string
	body        []byte
	order       binary.ByteOrder
}

// A Property is one setting of a unit. Its value is a string, a bool, a uint64,
// a []uint32, a []byte or a []DeviceLimit.
type Property struct {
	Name  string
	Value any
}

// DeviceLimit is a value for one device, named by its path.
type DeviceLimit struct {
	Path  string
	Value uint64
}

// An encoder writes little-endian values, each aligned to its size.
type encoder struct {
	bytes.Buffer
	err error
}

func (e *encoder) align(n int) {
	for e.Len()%n != 0 {
		e.WriteByte(0)
	}
}

func (e *encoder) u32(v uint32) {
	e.align(4)
	_ = binary.Write(e, binary.LittleEndian, v)
}

func (e *encoder) u64(v uint64) {
	e.align(8)
	_ = binary.Write(e, binary.LittleEndian, v)
}

func (e *encoder) bool(v bool) {
	if v {
		e.u32(1)
	} else {
		e.u32(0)
	}
}

func (e *encoder) string(s string) {
	e.u32(uint32(len(s)))
	e.WriteString(s)
	e.WriteByte(0)
}

func (e *encoder) signature(s string) {
	e.WriteByte(byte(len(s)))
	e.WriteString(s)
	e.WriteByte(0)
}

// array writes what f writes, after its length in bytes, which does not count
// what aligns the first element.
func (e *encoder) array(alignment int, f func()) {
	e.u32(0)
	at := e.Len() - 4
	e.align(alignment)
	start := e.Len()
	f()
	binary.LittleEndian.PutUint32(e.Bytes()[at:], uint32(e.Len()-start))
}

func (e *encoder) variant(v any) {
	switch v := v.(type) {
	case string:
		e.signature("s")
		e.string(v)
	case bool:
		e.signature("b")
		e.bool(v)
	case uint64:
		e.signature("t")
		e.u64(v)
	case []uint32:
		e.signature("au")
		e.array(4, func() {
			for _, n := range v {
				e.u32(n)
			}
		})
	case []byte:
		e.signature("ay")
		e.array(1, func() { e.Write(v) })
	case []DeviceLimit:
		e.signature("a(st)")
		e.array(8, func() {
			for _, d := range v {
				e.align(8)
				e.string(d.Path)
				e.u64(d.Value)
			}
		})
	default:
		e.err = fmt.Errorf("a property cannot be a %T", v)
	}
}

// properties is a(sv).
func (e *encoder) properties(list []Property) {
	e.array(8, func() {
		for _, p := range list {
			e.align(8)
			e.string(p.Name)
			e.variant(p.Value)
		}
	})
}

// encode makes a message of its header and its body.
func (m *message) encode() ([]byte, error) {
	var e encoder
	e.Write([]byte{'l', m.kind, 0, 1})
	e.u32(uint32(len(m.body)))
	e.u32(m.serial)
	field := func(code byte, kind, value string) {
		if value == "" {
			return
		}
		e.align(8)
		e.WriteByte(code)
		e.signature(kind)
		if kind == "g" {
			e.signature(value)
		} else {
			e.string(value)
		}
	}
	e.array(8, func() {
		field(fieldPath, "o", m.path)
		field(fieldInterface, "s", m.iface)
		field(fieldMember, "s", m.member)
		field(fieldErrorName, "s", m.errorName)
		if m.replySerial != 0 {
			e.align(8)
			e.WriteByte(fieldReplySerial)
			e.signature("u")
			e.u32(m.replySerial)
		}
		field(fieldDestination, "s", m.destination)
		field(fieldSignature, "g", m.signature)
	})
	e.align(8)
	e.Write(m.body)
	if e.Len() > maxMessage {
		return nil, errors.New("message is too long")
	}
	return e.Bytes(), e.err
}

var errMalformed = errors.New("malformed message")

// size tells how long the message is that begins with these 16 bytes.
func size(fixed []byte) (total int, err error) {
	if len(fixed) < fixedHeader {
		return 0, errMalformed
	}
	order, err := orderOf(fixed[0])
	if err != nil {
		return 0, err
	}
	body, fields := uint64(order.Uint32(fixed[4:])), uint64(order.Uint32(fixed[12:]))
	n := (fixedHeader+fields+7)&^7 + body
	if n > maxMessage {
		return 0, fmt.Errorf("%w: %d bytes", errMalformed, n)
	}
	return int(n), nil
}

func orderOf(mark byte) (binary.ByteOrder, error) {
	switch mark {
	case 'l':
		return binary.LittleEndian, nil
	case 'B':
		return binary.BigEndian, nil
	}
	return nil, errMalformed
}

// decode reads a whole message.
func decode(data []byte) (*message, error) {
	total, err := size(data)
	if err != nil {
		return nil, err
	}
	if len(data) != total || data[3] != 1 {
		return nil, errMalformed
	}
	order, _ := orderOf(data[0])
	m := &message{kind: data[1], serial: order.Uint32(data[8:]), order: order}
	end := fixedHeader + int(order.Uint32(data[12:]))
	m.body = data[(end+7)&^7:]
	d := &decoder{data: data[:end], at: fixedHeader, order: order}
	for d.at < end && d.err == nil {
		d.align(8)
		code, kind := d.byte(), d.signature()
		var text string
		var number uint32
		switch kind {
		case "s", "o":
			text = d.string()
		case "g":
			text = d.signature()
		case "u":
			number = d.u32()
		default:
			return nil, errMalformed
		}
		m.setField(code, text, number)
	}
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}

func (m *message) setField(code byte, text string, number uint32) {
	switch code {
	case fieldPath:
		m.path = text
	case fieldInterface:
		m.iface = text
	case fieldMember:
		m.member = text
	case fieldErrorName:
		m.errorName = text
	case fieldReplySerial:
		m.replySerial = number
	case fieldDestination:
		m.destination = text
	case fieldSignature:
		m.signature = text
	}
}

// args reads the body of the message: want is its signature, of "s", "o", "u".
func (m *message) args(want string) ([]string, error) {
	if m.signature != want {
		return nil, fmt.Errorf("%w: %s has the arguments %q, not %q", errMalformed, m.member, m.signature, want)
	}
	d := &decoder{data: m.body, order: m.order}
	var out []string
	for _, c := range want {
		if c == 'u' {
			d.u32()
			out = append(out, "")
			continue
		}
		out = append(out, d.string())
	}
	return out, d.err
}

// A decoder reads until the first error.
type decoder struct {
	data  []byte
	at    int
	order binary.ByteOrder
	err   error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.data)-d.at {
		d.err = errMalformed
		return nil
	}
	d.at += n
	return d.data[d.at-n : d.at]
}

func (d *decoder) align(n int) { d.take((n - d.at%n) % n) }

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	d.align(4)
	if b := d.take(4); b != nil {
		return d.order.Uint32(b)
	}
	return 0
}

func (d *decoder) string() string { return d.text(d.u32()) }

func (d *decoder) signature() string { return d.text(uint32(d.byte())) }

func (d *decoder) text(n uint32) string {
	if n > maxMessage {
		d.err = errMalformed
		return ""
	}
	b := d.take(int(n) + 1)
	if b == nil || b[n] != 0 {
		d.err = errMalformed
		return ""
	}
	return string(b[:n])
}
