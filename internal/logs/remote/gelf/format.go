package gelf

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

// format makes GELF 1.1 messages.
type format struct {
	head, extra []byte // of each message
}

func newFormat(info *remote.Info) (*format, error) {
	host, err := info.Hostname()
	if err != nil {
		return nil, fmt.Errorf("gelf: cannot access hostname to set source field: %w", err)
	}
	tag, err := info.Tag(remote.DefaultTag)
	if err != nil {
		return nil, err
	}
	extra := map[string]any{
		"_container_id": info.ContainerID, "_container_name": info.Name(), "_image_id": info.ContainerImageID,
		"_image_name": info.ContainerImageName, "_command": info.Command(), "_tag": tag, "_created": info.ContainerCreated,
	}
	attrs, err := info.Attributes(func(k string) string {
		if k == "" || k[0] == '_' {
			return k
		}
		return "_" + k
	})
	if err != nil {
		return nil, err
	}
	for k, v := range attrs {
		extra[k] = v
	}
	h, err := json.Marshal(host)
	if err != nil {
		return nil, err
	}
	e, err := json.Marshal(extra)
	if err != nil {
		return nil, err
	}
	return &format{
		head:  fmt.Appendf(nil, `{"version":"1.1","host":%s,"short_message":`, h),
		extra: append([]byte{','}, e[1:]...), // with the closing brace
	}, nil
}

// append appends a message.
func (f *format) append(b []byte, m *remote.Message) []byte {
	level := 6
	if m.Stream == logs.Stderr {
		level = 3
	}
	text, _ := json.Marshal(string(m.Line)) // a string always can
	b = append(append(b, f.head...), text...)
	ms := m.At.UnixMilli()
	b = fmt.Appendf(b, `,"timestamp":%d.%03d,"level":%d`, ms/1000, ms%1000, level)
	return append(b, f.extra...)
}

// packer compresses messages.
type packer struct {
	kind  string
	level int
	buf   bytes.Buffer
	z     interface {
		io.WriteCloser
		Reset(w io.Writer)
	}
}

// pack returns p compressed; valid until the next call.
func (k *packer) pack(p []byte) ([]byte, error) {
	if k.kind == "none" {
		return p, nil
	}
	k.buf.Reset()
	var err error
	switch {
	case k.z != nil:
		k.z.Reset(&k.buf)
	case k.kind == "zlib":
		k.z, err = zlib.NewWriterLevel(&k.buf, k.level)
	default:
		k.z, err = gzip.NewWriterLevel(&k.buf, k.level)
	}
	if err != nil {
		return nil, err
	}
	if _, err = k.z.Write(p); err == nil {
		err = k.z.Close()
	}
	return k.buf.Bytes(), err
}

const (
	maxChunk   = 1420 // what fits into a packet of the internet, as Graylog's own library has it
	chunkHead  = 12
	mostChunks = 128
)

var errTooLarge = errors.New("gelf: the message is larger than 128 chunks of 1420 bytes")

// split cuts a message into datagrams: two magic bytes, the message's id (eight
// bytes), the number of this chunk and of all.
func split(p []byte) ([][]byte, error) {
	if len(p) <= maxChunk {
		return [][]byte{p}, nil
	}
	const room = maxChunk - chunkHead
	n := (len(p) + room - 1) / room
	if n > mostChunks {
		return nil, errTooLarge
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	out := make([][]byte, n)
	for i := range out {
		part := p[i*room : min(len(p), (i+1)*room)]
		c := append(make([]byte, 0, chunkHead+len(part)), 0x1e, 0x0f)
		c = append(append(c, id[:]...), byte(i), byte(n)) //nolint:gosec // ≤ 128
		out[i] = append(c, part...)
	}
	return out, nil
}
