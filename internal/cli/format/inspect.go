package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Inspected is one object: as its type, and as the daemon wrote it.
type Inspected struct {
	Value any
	Raw   []byte
}

// Inspect prints objects: as an indented JSON list, as a compact one ("json"),
// or each through a template. A template that does not fit the type
// is tried on the daemon's own document, which may know fields we do not.
func Inspect(w io.Writer, source string, objects []Inspected) error {
	switch source {
	case "":
		return inspectList(w, objects, func(dst *bytes.Buffer, src []byte) error { return json.Indent(dst, src, "", "    ") })
	case JSONKey:
		return inspectList(w, objects, json.Compact)
	}
	for _, o := range objects {
		if err := inspectOne(w, source, o); err != nil {
			return err
		}
	}
	return nil
}

func inspectOne(w io.Writer, source string, o Inspected) error {
	t, err := parse(unescape(source), functions())
	if err != nil {
		return err
	}
	var b bytes.Buffer
	typedErr := t.Execute(&b, o.Value)
	if typedErr != nil {
		b.Reset()
		d := json.NewDecoder(bytes.NewReader(o.Raw))
		d.UseNumber()
		var doc any
		if err := d.Decode(&doc); err != nil {
			return fmt.Errorf("unable to read inspect data: %w", err)
		}
		if err := t.Execute(&b, doc); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

func inspectList(w io.Writer, objects []Inspected, lay func(dst *bytes.Buffer, src []byte) error) error {
	if len(objects) == 0 {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	all := bytes.NewBufferString("[")
	for i, o := range objects {
		if i > 0 {
			all.WriteByte(',')
		}
		all.Write(o.Raw)
	}
	all.WriteByte(']')
	var out bytes.Buffer
	if err := lay(&out, all.Bytes()); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := w.Write(out.Bytes())
	return err
}
