package logs

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Output goes out in pieces of about outSize; a multiplexed frame is at most
// maxFrame, which clients take in one read.
const (
	outSize  = 128 << 10
	maxFrame = 32 << 10
	muxHead  = 8
)

// timestampFormat is docker's: all nine digits, so that columns line up.
const timestampFormat = "2006-01-02T15:04:05.000000000Z07:00"

// emitter writes records as the client wants them.
type emitter struct {
	w     io.Writer
	o     *ReadOptions
	attrs string // of every line, as text; json-file's lines may have others
	all   map[string]string
	buf   []byte
	// frame is where the last multiplexed frame starts in buf, which may still
	// grow; -1: none.
	frame int
	// skip says that the stream's present line began before the part that was
	// asked for: the rest of it is left out.
	skip  [2]bool
	begun [2]bool // a part of the stream's present line was written
	stamp []byte  // the last timestamp, as text
	at    int64

	since, until int64
}

func newEmitter(w io.Writer, o *ReadOptions, attrs map[string]string) *emitter {
	e := &emitter{w: w, o: o, attrs: attrText(attrs), all: attrs, frame: -1, buf: make([]byte, 0, 4<<10)}
	e.since, e.until = math.MinInt64, math.MaxInt64
	if !o.Since.IsZero() {
		e.since = nanos(o.Since)
	}
	if !o.Until.IsZero() {
		e.until = nanos(o.Until)
	}
	return e
}

// wants reports whether a record is one of those asked for.
func (e *emitter) wants(r *record) bool {
	return (r.stream == Stdout && e.o.Stdout || r.stream == Stderr && e.o.Stderr) && r.at >= e.since && r.at <= e.until
}

// cut begins in mid-log: lines that began before are not shown.
func (e *emitter) cut() {
	if !e.o.TTY {
		e.skip = [2]bool{true, true}
	}
}

// whole ends what cut began: from now on, everything is shown.
func (e *emitter) whole() { e.skip = [2]bool{} }

// emit writes a record, if it is wanted.
func (e *emitter) emit(r *record) error {
	i := r.stream - 1
	if !e.wants(r) {
		if r.at < e.since && !e.o.TTY {
			e.skip[i] = r.data[len(r.data)-1] != '\n' // what goes on with this line belongs to its time
		}
		return nil
	}
	data, cont := r.data, r.cont
	if !cont {
		e.skip[i], e.begun[i] = false, false
	}
	if e.skip[i] {
		n := bytes.IndexByte(data, '\n') + 1
		if n == 0 {
			return nil
		}
		e.skip[i], e.begun[i] = false, false
		data = data[n:]
	}
	if len(data) == 0 {
		return nil
	}
	if e.o.Timestamps || e.o.Details || e.o.Lines || e.o.JSON {
		for len(data) > 0 {
			n := bytes.IndexByte(data, '\n') + 1
			if n == 0 {
				n = len(data)
			}
			if err := e.line(r, data[:n]); err != nil {
				return err
			}
			e.begun[i] = data[n-1] != '\n'
			data = data[n:]
			if err := e.spill(); err != nil {
				return err
			}
		}
		return nil
	}
	e.begun[i] = data[len(data)-1] != '\n'
	e.add(r.stream, data, false)
	return e.spill()
}

// line writes a line of a record, or a part of one.
func (e *emitter) line(r *record, text []byte) error {
	if e.o.JSON {
		return e.object(r, text)
	}
	if !e.begun[r.stream-1] {
		e.prefix(r)
	}
	e.add(r.stream, text, e.o.Lines)
	return nil
}

func (e *emitter) spill() error {
	if len(e.buf) < outSize {
		return nil
	}
	return e.flush()
}

// prefix starts a line with its time and attributes.
func (e *emitter) prefix(r *record) {
	if e.o.Timestamps {
		if e.stamp == nil || e.at != r.at {
			e.at = r.at
			e.stamp = append(r.time().UTC().AppendFormat(e.stamp[:0], timestampFormat), ' ')
		}
		e.start(r.stream, e.stamp)
	}
	if e.o.Details {
		text := e.attrs
		if m := own(r); m != nil {
			text = attrText(m)
		}
		if e.o.Timestamps {
			e.add(r.stream, []byte(text+" "), false)
		} else {
			e.start(r.stream, []byte(text+" "))
		}
	}
}

// start is add, in a frame of its own where lines have one.
func (e *emitter) start(stream byte, p []byte) {
	if e.o.Lines {
		e.frame = -1
	}
	e.add(stream, p, false)
}

// add appends bytes of a stream, to the last frame if it is the stream's and
// has room; end closes the frame behind them.
func (e *emitter) add(stream byte, p []byte, end bool) {
	if e.o.TTY {
		e.buf = append(e.buf, p...)
		return
	}
	for len(p) > 0 {
		if e.frame < 0 || e.buf[e.frame] != stream || len(e.buf)-e.frame-muxHead >= maxFrame {
			e.frame = len(e.buf)
			e.buf = append(e.buf, stream, 0, 0, 0, 0, 0, 0, 0)
		}
		n := min(len(p), maxFrame-(len(e.buf)-e.frame-muxHead))
		e.buf = append(e.buf, p[:n]...)
		binary.BigEndian.PutUint32(e.buf[e.frame+4:], uint32(len(e.buf)-e.frame-muxHead)) //nolint:gosec // ≤ maxFrame
		p = p[n:]
	}
	if end {
		e.frame = -1
	}
}

func (e *emitter) flush() error {
	if len(e.buf) == 0 {
		return nil
	}
	_, err := e.w.Write(e.buf)
	e.buf, e.frame = e.buf[:0], -1
	return err
}

// attrText is how docker shows attributes: sorted, escaped as in a URL.
func attrText(m map[string]string) string {
	pairs := make([]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, url.QueryEscape(k)+"="+url.QueryEscape(v))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// nanos keeps a far time within what UnixNano can say.
func nanos(t time.Time) int64 {
	switch {
	case t.Year() > 2261:
		return math.MaxInt64
	case t.Year() < 1679:
		return math.MinInt64
	}
	return t.UnixNano()
}
