package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// maxLine is where docker cuts a line: the pieces before the last have no
// newline at their end.
const maxLine = 16 << 10

// jsonWriter writes docker's json-file format: an object a line. An unfinished
// line is held back until it ends, is too long, or the log is closed.
type jsonWriter struct {
	mu    sync.Mutex // guards all
	f     *file
	attrs []byte // `"attrs":{…},` or nothing
	held  [2][]byte
	since [2]time.Time // when the held bytes' first came
	skip  [2]int       // records that are in the log already: see Replay
}

func newJSONWriter(path string, maxSize int64, maxFiles int, compress bool, attrs map[string]string) (*jsonWriter, error) {
	w := &jsonWriter{}
	if len(attrs) > 0 {
		data, err := json.Marshal(attrs)
		if err != nil {
			return nil, err
		}
		w.attrs = fmt.Appendf(nil, `"attrs":%s,`, data)
	}
	f, err := openFile(path, maxSize, maxFiles, compress, repairLines)
	if err != nil {
		return nil, err
	}
	w.f = f
	return w, nil
}

// repairLines finds the end of the last whole line.
func repairLines(f *os.File, size int64) (int64, error) {
	b := make([]byte, blockSize)
	for end := size; end > 0; {
		start := max(0, end-blockSize)
		n, err := f.ReadAt(b[:end-start], start)
		if err != nil && err != io.EOF {
			return 0, err
		}
		if i := bytes.LastIndexByte(b[:n], '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

func (w *jsonWriter) Write(stream byte, at time.Time, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	buf := bufs.Get().(*[]byte)
	out := (*buf)[:0]
	defer func() {
		if cap(out) <= 4*blockSize {
			*buf = out
		}
		bufs.Put(buf)
	}()
	i := stream - 1
	for len(p) > 0 {
		room := maxLine - len(w.held[i])
		n := bytes.IndexByte(p[:min(len(p), room+1)], '\n') + 1
		if n == 0 && len(p) <= room && len(p)+len(w.held[i]) < maxLine { // no end in sight
			if len(w.held[i]) == 0 {
				w.since[i] = at
			}
			w.held[i] = append(w.held[i], p...)
			break
		}
		if n == 0 {
			n = room
		}
		line, when := p[:n], at
		if len(w.held[i]) > 0 {
			w.held[i] = append(w.held[i], line...)
			line, when = w.held[i], w.since[i]
		}
		if w.skip[i] > 0 {
			w.skip[i]--
		} else {
			out = w.appendLine(out, stream, when, line)
		}
		w.held[i] = w.held[i][:0]
		p = p[n:]
		if len(out) >= blockSize {
			if err := w.flush(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	if len(w.held[i]) == 0 {
		w.held[i] = nil
	}
	return w.flush(out)
}

// flush writes whole lines; like docker, it rotates before a write that would
// pass the limit.
func (w *jsonWriter) flush(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	for w.f.full(len(b)) {
		// Fill the file as far as whole lines go, then start the next.
		room := int(max(0, w.f.maxSize-w.f.size))
		if i := bytes.LastIndexByte(b[:min(room, len(b))], '\n'); i >= 0 {
			if err := w.f.append(b[:i+1]); err != nil {
				return err
			}
			b = b[i+1:]
		}
		if err := w.f.rotate(); err != nil {
			break
		}
	}
	if len(b) == 0 {
		return nil
	}
	return w.f.append(b)
}

func (w *jsonWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []byte
	for i, held := range w.held {
		if len(held) > 0 {
			out = w.appendLine(out, byte(i+1), w.since[i], held)
			w.held[i] = nil
		}
	}
	err := w.flush(out)
	if cerr := w.f.close(); err == nil {
		err = cerr
	}
	return err
}

func (w *jsonWriter) appendLine(out []byte, stream byte, at time.Time, line []byte) []byte {
	out = append(out, `{"log":"`...)
	out = appendEscaped(out, line)
	if stream == Stderr {
		out = append(out, `","stream":"stderr",`...)
	} else {
		out = append(out, `","stream":"stdout",`...)
	}
	out = append(out, w.attrs...)
	out = append(out, `"time":"`...)
	out = at.UTC().AppendFormat(out, time.RFC3339Nano)
	return append(out, "\"}\n"...)
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends s as the inside of a JSON string, as encoding/json
// with HTML escapes writes it.
func appendEscaped(out, s []byte) []byte {
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= ' ' && b < utf8.RuneSelf && b != '"' && b != '\\' && b != '<' && b != '>' && b != '&' {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			if (r != utf8.RuneError || n > 1) && r != '\u2028' && r != '\u2029' {
				i += n
				continue
			}
			out = append(out, s[start:i]...)
			if r == utf8.RuneError {
				out = append(out, `\ufffd`...)
			} else {
				out = append(out, `\u202`...)
				out = append(out, hexDigits[r&0xF])
			}
			i += n
			start = i
			continue
		}
		out = append(out, s[start:i]...)
		switch b {
		case '"', '\\':
			out = append(out, '\\', b)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		default:
			out = append(out, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&0xF])
		}
		i++
		start = i
	}
	return append(out, s[start:]...)
}
