package logs

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// The local format: frames in blocks of 64 KiB. A frame never crosses a block's
// end, so that each block starts with a frame: a reader can start at any block,
// from the end for --tail or by bisection for --since, without an index.
//
//	0  4  length of the payload, little-endian
//	4  1  stream; the high bit says that the payload goes on with a line
//	5  1  magic
//	6  2  check sum of the other 14 bytes and the payload
//	8  8  time of the read, ns since 1970
//
// The last bytes of a block, if too few for a header and a byte, are left zero.
const (
	frameHeader = 16
	blockSize   = 64 << 10
	maxPayload  = blockSize - frameHeader
	frameMagic  = 0xA7
	frameCont   = 0x80
)

// record is what a log is made of, whatever its format: bytes of one stream,
// printed at one time.
type record struct {
	stream byte
	cont   bool // data goes on with the stream's previous record, in mid-line
	at     int64
	data   []byte
	attrs  []byte // json-file: the raw "attrs" object
	off    int64  // where the record starts in its file
}

func (r *record) time() time.Time { return time.Unix(0, r.at) }

func putHeader(h []byte, stream byte, cont bool, at int64, payload []byte) {
	binary.LittleEndian.PutUint32(h, uint32(len(payload))) //nolint:gosec // ≤ maxPayload
	h[4], h[5] = stream, frameMagic
	if cont {
		h[4] |= frameCont
	}
	binary.LittleEndian.PutUint64(h[8:], uint64(at)) //nolint:gosec // the same bits
	binary.LittleEndian.PutUint16(h[6:], frameSum(h, payload))
}

func frameSum(h, payload []byte) uint16 {
	// The polynomial that processors compute. The package makes its table once, and
	// here rather than for every process that links this.
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, castagnoli, h[:6])
	c = crc32.Update(c, castagnoli, h[8:frameHeader])
	c = crc32.Update(c, castagnoli, payload)
	return uint16(c ^ c>>16) //nolint:gosec // folded
}

// parseHeader returns the payload's length, or false for what cannot be a
// header; the sum is not looked at.
func parseHeader(h []byte) (n int, stream byte, cont bool, at int64, ok bool) {
	size := binary.LittleEndian.Uint32(h)
	stream, cont = h[4]&^frameCont, h[4]&frameCont != 0
	ok = h[5] == frameMagic && size > 0 && size <= maxPayload && (stream == Stdout || stream == Stderr)
	return int(size), stream, cont, int64(binary.LittleEndian.Uint64(h[8:])), ok //nolint:gosec // the same bits
}

// localFormat decodes frames.
type localFormat struct{}

// decode calls f for each whole record in b, which lies at off in the file (at
// a frame's start), until f refuses one. It returns how many bytes are done
// with: what is left is the start of a frame that is still being written. What
// is no frame is skipped up to the next block.
func (localFormat) decode(b []byte, off int64, f func(*record) bool) int {
	pos := 0
	var r record
	for {
		room := blockSize - int((off+int64(pos))%blockSize)
		if room <= frameHeader { // padding
			if pos+room > len(b) {
				return pos
			}
			pos += room
			continue
		}
		if pos+frameHeader > len(b) {
			return pos
		}
		n, stream, cont, at, ok := parseHeader(b[pos:])
		whole := pos+frameHeader+n <= len(b)
		if !ok || frameHeader+n > room || whole && frameSum(b[pos:], b[pos+frameHeader:pos+frameHeader+n]) != binary.LittleEndian.Uint16(b[pos+6:]) {
			if pos+room > len(b) {
				return pos // perhaps not written yet; the writer repairs it if it never is
			}
			pos += room
			continue
		}
		if !whole {
			return pos
		}
		r = record{stream: stream, cont: cont, at: at, data: b[pos+frameHeader : pos+frameHeader+n], off: off + int64(pos)}
		if !f(&r) {
			return pos
		}
		pos += frameHeader + n
	}
}

// appendFrames cuts p into frames for a file that is size bytes long, and
// appends them with the padding that is due.
func appendFrames(out []byte, size int64, stream byte, cont bool, at int64, p []byte) []byte {
	for len(p) > 0 {
		room := blockSize - int(size%blockSize)
		if room <= frameHeader {
			out = append(out, make([]byte, room)...)
			size += int64(room)
			room = blockSize
		}
		n := min(len(p), room-frameHeader)
		var h [frameHeader]byte
		putHeader(h[:], stream, cont, at, p[:n])
		out = append(append(out, h[:]...), p[:n]...)
		size += int64(frameHeader + n)
		cont = p[n-1] != '\n'
		p = p[n:]
	}
	return out
}
