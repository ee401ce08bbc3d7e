package logs

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonFormat decodes docker's json-file lines. It keeps a scratch buffer, and
// whether each stream is in mid-line: one reader, one jsonFormat.
type jsonFormat struct {
	scratch []byte
	open    [2]bool
}

// decode is as localFormat's; lines that are no log entries are skipped.
func (d *jsonFormat) decode(b []byte, off int64, f func(*record) bool) int {
	pos := 0
	var r record // one for all: f takes its address
	var ok bool
	for {
		n := bytes.IndexByte(b[pos:], '\n')
		if n < 0 {
			return pos
		}
		if r, ok = d.parse(b[pos : pos+n]); ok && len(r.data) > 0 {
			r.off = off + int64(pos)
			r.cont = d.open[r.stream-1]
			if !f(&r) {
				return pos
			}
			d.open[r.stream-1] = r.data[len(r.data)-1] != '\n'
		}
		pos += n + 1
	}
}

// parse reads one object. The form that docker and we write is taken apart by
// hand, anything else by encoding/json.
func (d *jsonFormat) parse(line []byte) (record, bool) {
	if r, ok := d.fast(line); ok {
		return r, true
	}
	var v struct {
		Log    string          `json:"log"`
		Stream string          `json:"stream"`
		Attrs  json.RawMessage `json:"attrs"`
		Time   time.Time       `json:"time"`
	}
	if json.Unmarshal(line, &v) != nil {
		return record{}, false
	}
	r := record{stream: streamOf([]byte(v.Stream)), at: v.Time.UnixNano(), data: []byte(v.Log), attrs: v.Attrs}
	return r, r.stream != 0
}

func streamOf(name []byte) byte {
	switch string(name) {
	case "stdout", "":
		return Stdout
	case "stderr":
		return Stderr
	}
	return 0
}

func (d *jsonFormat) fast(b []byte) (r record, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(`{"log":"`))
	if !ok {
		return r, false
	}
	if r.data, b, ok = d.unquote(b); !ok {
		return r, false
	}
	if b, ok = bytes.CutPrefix(b, []byte(`,"stream":"std`)); !ok || len(b) < 5 {
		return r, false
	}
	switch string(b[:4]) {
	case `out"`:
		r.stream = Stdout
	case `err"`:
		r.stream = Stderr
	default:
		return r, false
	}
	b = b[4:]
	if rest, has := bytes.CutPrefix(b, []byte(`,"attrs":`)); has {
		end := bytes.LastIndex(rest, []byte(`,"time":"`))
		if end < 0 {
			return r, false
		}
		r.attrs, b = rest[:end], rest[end:]
	}
	if b, ok = bytes.CutPrefix(b, []byte(`,"time":"`)); !ok {
		return r, false
	}
	if b, ok = bytes.CutSuffix(b, []byte(`"}`)); !ok {
		return r, false
	}
	r.at, ok = parseTime(b)
	return r, ok
}

// unquote reads a string up to its closing quote. Without escapes but for the
// newline at the end, which is the common case, one copy is made.
func (d *jsonFormat) unquote(b []byte) (s, rest []byte, ok bool) {
	out := d.scratch[:0]
	defer func() { d.scratch = out[:0] }()
	for {
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			return nil, nil, false
		}
		if j := bytes.IndexByte(b[:i], '\\'); j >= 0 {
			i = j
		}
		out = append(out, b[:i]...)
		if b[i] == '"' {
			return out, b[i+1:], true
		}
		if i+1 >= len(b) {
			return nil, nil, false
		}
		c := b[i+1]
		b = b[i+2:]
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			var ru rune
			if ru, b, ok = unicodeEscape(b); !ok {
				return nil, nil, false
			}
			out = utf8.AppendRune(out, ru)
		default:
			return nil, nil, false
		}
	}
}

// unicodeEscape reads what follows \u, and the second half of a surrogate pair.
func unicodeEscape(b []byte) (rune, []byte, bool) {
	r, ok := hex4(b)
	if !ok {
		return 0, nil, false
	}
	b = b[4:]
	if utf16.IsSurrogate(r) {
		if len(b) >= 6 && b[0] == '\\' && b[1] == 'u' {
			if low, ok := hex4(b[2:]); ok {
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					return pair, b[6:], true
				}
			}
		}
		r = utf8.RuneError
	}
	return r, b, true
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(n), err == nil
}

// parseTime reads RFC 3339 in UTC, "2006-01-02T15:04:05.999999999Z", by hand.
func parseTime(b []byte) (int64, bool) {
	if len(b) < 20 || b[len(b)-1] != 'Z' || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		t, err := time.Parse(time.RFC3339Nano, string(b))
		return t.UnixNano(), err == nil
	}
	num := func(from, to int) (n int) {
		for _, c := range b[from:to] {
			if c < '0' || c > '9' {
				return -1 << 40
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	year, month, day := num(0, 4), num(5, 7), num(8, 10)
	hour, minute, sec := num(11, 13), num(14, 16), num(17, 19)
	if year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || sec < 0 || sec > 60 {
		return 0, false
	}
	nanos := 0
	if frac := b[19 : len(b)-1]; len(frac) > 0 {
		if frac[0] != '.' || len(frac) > 10 || len(frac) < 2 {
			return 0, false
		}
		if nanos = num(20, len(b)-1); nanos < 0 {
			return 0, false
		}
		for range 10 - len(frac) {
			nanos *= 10
		}
	}
	return unixSeconds(year, month, day)*1e9 + int64(hour*3600+minute*60+sec)*1e9 + int64(nanos), true
}

// unixSeconds counts the seconds from 1970 to a day of the Gregorian calendar.
func unixSeconds(year, month, day int) int64 {
	if month <= 2 { // a year that starts in March ends in the leap day
		year--
		month += 12
	}
	days := 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - 719468
	return int64(days) * 86400
}
