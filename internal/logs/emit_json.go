package logs

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// jsonLine is docker's form of a line of a log in JSON. A line that was written
// in parts is told in parts, of which the last ends in a newline.
type jsonLine struct {
	Line      string `json:",omitempty"`
	Source    string
	Timestamp time.Time
	Attrs     []jsonAttr `json:",omitempty"`
}

type jsonAttr struct{ Key, Value string }

const recordSeparator = '\x1e'

// object writes a line of a record, or a part of one, as JSON.
func (e *emitter) object(r *record, text []byte) error {
	l := jsonLine{Line: string(text), Source: "stdout", Timestamp: r.time().UTC()}
	if r.stream == Stderr {
		l.Source = "stderr"
	}
	if e.o.Details {
		attrs := e.all
		if m := own(r); m != nil {
			attrs = m
		}
		for _, k := range slices.Sorted(maps.Keys(attrs)) {
			l.Attrs = append(l.Attrs, jsonAttr{k, attrs[k]})
		}
	}
	b, err := json.Marshal(&l)
	if err != nil {
		return err
	}
	if e.o.RS {
		e.buf = append(e.buf, recordSeparator)
	}
	e.buf = append(append(e.buf, b...), '\n')
	return nil
}

// own are the attributes of a json-file's record; nil without.
func own(r *record) map[string]string {
	if r.attrs == nil {
		return nil
	}
	var m map[string]string
	if json.Unmarshal(r.attrs, &m) != nil {
		return nil
	}
	return m
}
