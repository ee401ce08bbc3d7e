package fluentd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

// The little of MessagePack that the forward protocol needs.

// encoder makes the messages of a container.
type encoder struct {
	tag       string
	fixed     []byte // the pairs that each record has
	pairs     int
	subSecond bool
}

func newEncoder(info *remote.Info, subSecond bool) (*encoder, error) {
	tag, err := info.Tag(remote.DefaultTag)
	if err != nil {
		return nil, err
	}
	attrs, err := info.Attributes(nil)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{"container_id": info.ContainerID, "container_name": info.ContainerName}
	for k, v := range attrs {
		if !slices.Contains([]string{"source", "log", "partial_message", "partial_id", "partial_ordinal", "partial_last"}, k) {
			fields[k] = v
		}
	}
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	e := &encoder{tag: tag, pairs: len(keys), subSecond: subSecond}
	for _, k := range keys {
		e.fixed = appendString(appendString(e.fixed, k), fields[k])
	}
	return e, nil
}

// message appends one line in message mode: [tag, time, record].
func (e *encoder) message(b []byte, m *remote.Message) []byte {
	b = appendString(appendHead(b, 0x90, 0xdc, 3), e.tag)
	return e.record(e.time(b, m), m)
}

// chunk appends lines in forward mode: [tag, [[time, record]…], {"chunk": id}].
func (e *encoder) chunk(b []byte, batch []remote.Message, id string) []byte {
	b = appendString(appendHead(b, 0x90, 0xdc, 3), e.tag)
	b = appendHead(b, 0x90, 0xdc, len(batch))
	for i := range batch {
		b = e.record(e.time(appendHead(b, 0x90, 0xdc, 2), &batch[i]), &batch[i])
	}
	b = appendHead(b, 0x80, 0xde, 1)
	return appendString(appendString(b, "chunk"), id)
}

// time appends seconds, or fluentd's own EventTime.
func (e *encoder) time(b []byte, m *remote.Message) []byte {
	if !e.subSecond {
		return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(m.At.Unix())) //nolint:gosec // the same bits
	}
	b = append(b, 0xd7, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(m.At.Unix()))          //nolint:gosec // the format has no more
	return binary.BigEndian.AppendUint32(b, uint32(m.At.Nanosecond())) //nolint:gosec // below 1e9
}

func (e *encoder) record(b []byte, m *remote.Message) []byte {
	source, pairs := "stdout", e.pairs+2
	if m.Stream == logs.Stderr {
		source = "stderr"
	}
	if m.Partial != nil {
		pairs += 4
	}
	b = append(appendHead(b, 0x80, 0xde, pairs), e.fixed...)
	b = appendString(appendString(b, "source"), source)
	b = appendString(appendString(b, "log"), m.Line)
	if p := m.Partial; p != nil {
		b = appendString(appendString(b, "partial_message"), "true")
		b = appendString(appendString(b, "partial_id"), p.ID)
		b = appendString(appendString(b, "partial_ordinal"), strconv.Itoa(p.Ordinal))
		b = appendString(appendString(b, "partial_last"), strconv.FormatBool(p.Last))
	}
	return b
}

// appendHead starts an array or map of n: fix is its short form, wide the one
// with a length of two bytes, after which comes the one with four.
func appendHead(b []byte, fix, wide byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, fix|byte(n)) //nolint:gosec // < 16
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, wide), uint16(n)) //nolint:gosec // fits
	}
	return binary.BigEndian.AppendUint32(append(b, wide+1), uint32(n)) //nolint:gosec // batches are small
}

func appendString[T string | []byte](b []byte, s T) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n)) //nolint:gosec // < 32
	case n <= math.MaxUint8:
		b = append(b, 0xd9, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n)) //nolint:gosec // fits
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n)) //nolint:gosec // lines are short
	}
	return append(b, s...)
}

const (
	maxAnswer = 4096 // bytes of an acknowledgement
	maxDepth  = 8
)

var errAnswer = errors.New("not an acknowledgement")

// readAck reads {"ack": id}, and takes other keys beside it.
func readAck(r *bufio.Reader) (string, error) {
	d := decoder{r: r, left: maxAnswer}
	t, err := d.byte()
	if err != nil {
		return "", err
	}
	n, ok := 0, true
	switch {
	case t&0xf0 == 0x80:
		n = int(t & 0xf)
	case t == 0xde:
		n, err = d.uint(2)
	default:
		ok = false
	}
	if err != nil || !ok {
		return "", cmpErr(err)
	}
	ack, found := "", false
	for range n {
		key, err := d.string()
		if err != nil {
			return "", err
		}
		if key != "ack" {
			if err := d.skip(0); err != nil {
				return "", err
			}
			continue
		}
		if ack, err = d.string(); err != nil {
			return "", err
		}
		found = true
	}
	if !found {
		return "", errAnswer
	}
	return ack, nil
}

func cmpErr(err error) error {
	if err != nil {
		return err
	}
	return errAnswer
}

// decoder reads MessagePack of a bounded size.
type decoder struct {
	r    *bufio.Reader
	left int
}

func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > d.left {
		return nil, fmt.Errorf("%w: larger than %d bytes", errAnswer, maxAnswer)
	}
	d.left -= n
	b := make([]byte, n)
	_, err := io.ReadFull(d.r, b)
	return b, err
}

func (d *decoder) byte() (byte, error) {
	b, err := d.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// uint reads a big-endian number of 1, 2 or 4 bytes.
func (d *decoder) uint(size int) (int, error) {
	b, err := d.take(size)
	n := 0
	for _, c := range b {
		n = n<<8 | int(c)
	}
	return n, err
}

// string reads a string or binary.
func (d *decoder) string() (string, error) {
	t, err := d.byte()
	if err != nil {
		return "", err
	}
	var n int
	switch {
	case t&0xe0 == 0xa0:
		n = int(t & 0x1f)
	case t >= 0xd9 && t <= 0xdb:
		n, err = d.uint(1 << (t - 0xd9))
	case t >= 0xc4 && t <= 0xc6:
		n, err = d.uint(1 << (t - 0xc4))
	default:
		return "", errAnswer
	}
	if err != nil {
		return "", err
	}
	b, err := d.take(n)
	return string(b), err
}

// skip passes over one value.
func (d *decoder) skip(depth int) error {
	t, err := d.byte()
	if err != nil {
		return err
	}
	if depth > maxDepth {
		return errAnswer
	}
	size, items := 0, 0
	switch {
	case t < 0x80 || t >= 0xe0 || t == 0xc0 || t == 0xc2 || t == 0xc3: // small numbers, nil, false, true
	case t < 0x90:
		items = 2 * int(t&0xf)
	case t < 0xa0:
		items = int(t & 0xf)
	case t < 0xc0:
		size = int(t & 0x1f)
	case t >= 0xc4 && t <= 0xc6:
		size, err = d.uint(1 << (t - 0xc4))
	case t >= 0xc7 && t <= 0xc9: // ext: a type beside the bytes
		size, err = d.uint(1 << (t - 0xc7))
		size++
	case t == 0xca || t == 0xcb:
		size = 4 << (t - 0xca)
	case t >= 0xcc && t <= 0xcf:
		size = 1 << (t - 0xcc)
	case t >= 0xd0 && t <= 0xd3:
		size = 1 << (t - 0xd0)
	case t >= 0xd4 && t <= 0xd8:
		size = 1 + 1<<(t-0xd4)
	case t >= 0xd9 && t <= 0xdb:
		size, err = d.uint(1 << (t - 0xd9))
	case t == 0xdc || t == 0xdd:
		items, err = d.uint(2 << (t - 0xdc))
	case t == 0xde || t == 0xdf:
		items, err = d.uint(2 << (t - 0xde))
		items *= 2
	default: // 0xc1 is never used
		return errAnswer
	}
	if err != nil {
		return err
	}
	if _, err := d.take(size); err != nil {
		return err
	}
	for range items { // bounded: each takes a byte of what is left
		if err := d.skip(depth + 1); err != nil {
			return err
		}
	}
	return nil
}
