// Package format prints lists of things: as a table, as JSON, or through a Go
// template, with docker's field names and functions.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode/utf8"
)

// Names of formats that are not templates.
const (
	TableKey = "table"
	JSONKey  = "json"
)

// Column is one field of a row: a name for templates and JSON, a header for
// tables, and how to get it.
type Column[T any] struct {
	Name, Header string
	Value        func(T) any
}

// Table says how to print a list of T.
type Table[T any] struct {
	Columns []Column[T]
	// Default is the template of the plain table, Quiet that of -q.
	Default, Quiet string
	// Labels, if set, answers {{.Label "key"}}.
	Labels func(T) map[string]string
}

// Col is a column with a text.
func Col[T any](name, header string, value func(T) string) Column[T] {
	return Column[T]{name, header, func(v T) any { return value(v) }}
}

// row is what a template gets. It is a map so that a column is no method and no
// struct field; {{.Label "key"}} still has to be a method.
type row map[string]any

const labelsKey = "\x00labels"

// Label returns one label's value, or in a header its title.
func (r row) Label(name string) string {
	if f, ok := r[labelsKey].(func(string) string); ok {
		return f(name)
	}
	return ""
}

// MarshalJSON writes the columns.
func (r row) MarshalJSON() ([]byte, error) {
	m := make(map[string]any, len(r))
	for k, v := range r {
		if k != labelsKey {
			m[k] = v
		}
	}
	return json.Marshal(m)
}

// Write prints items in a format: "" or "table", "json", "table TEMPLATE" or a
// template.
func (t *Table[T]) Write(w io.Writer, format string, quiet bool, items []T) error {
	p, err := t.Prepare(format, quiet)
	if err != nil {
		return err
	}
	return p.Write(w, items)
}

// Prepared is a format that has been understood.
type Prepared[T any] struct {
	table  *Table[T]
	json   bool
	tabbed bool
	source string
	tmpl   *template.Template
}

// Prepare parses the format.
func (t *Table[T]) Prepare(format string, quiet bool) (*Prepared[T], error) {
	p := &Prepared[T]{table: t}
	format = strings.TrimSpace(format)
	switch {
	case (format == "" || format == TableKey) && quiet:
		p.source = t.Quiet
	case format == "" || format == TableKey:
		p.tabbed, p.source = true, t.Default
	case format == JSONKey:
		p.json = true
		return p, nil
	case strings.HasPrefix(format, TableKey+" ") || strings.HasPrefix(format, TableKey+"{"):
		p.tabbed, p.source = true, strings.TrimSpace(format[len(TableKey):])
	default:
		p.source = format
	}
	p.source = unescape(p.source)
	tmpl, err := parse(p.source, functions())
	if err != nil {
		return nil, err
	}
	p.tmpl = tmpl
	return p, nil
}

// Uses reports whether the format asks for a column.
func (p *Prepared[T]) Uses(column string) bool {
	return p.json || strings.Contains(p.source, "."+column) || strings.Contains(p.source, "json .}")
}

// Write prints the items.
func (p *Prepared[T]) Write(w io.Writer, items []T) error {
	if p.json {
		for _, it := range items {
			s, err := toJSON(p.table.row(it, false))
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, s+"\n"); err != nil {
				return err
			}
		}
		return nil
	}
	var body bytes.Buffer
	for _, it := range items {
		if err := execute(p.tmpl, &body, p.table.row(it, p.tabbed)); err != nil {
			return err
		}
		body.WriteByte('\n')
	}
	if !p.tabbed {
		_, err := w.Write(body.Bytes())
		return err
	}
	head, err := p.header()
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if _, err := tw.Write(append(head, body.Bytes()...)); err != nil {
		return err
	}
	return tw.Flush()
}

func (p *Prepared[T]) header() ([]byte, error) {
	tmpl, err := parse(p.source, headerFunctions())
	if err != nil {
		return nil, err
	}
	r := row{labelsKey: func(name string) string {
		name = name[strings.LastIndexByte(name, '.')+1:]
		return strings.NewReplacer("-", " ", "_", " ").Replace(name)
	}}
	for _, c := range p.table.Columns {
		r[c.Name] = c.Header
	}
	var b bytes.Buffer
	if err := execute(tmpl, &b, r); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func (t *Table[T]) row(it T, clean bool) row {
	r := make(row, len(t.Columns)+1)
	for _, c := range t.Columns {
		v := c.Value(it)
		if s, ok := v.(string); ok && clean {
			v = Clean(s)
		}
		r[c.Name] = v
	}
	r[labelsKey] = func(name string) string {
		if t.Labels == nil {
			return ""
		}
		s := t.Labels(it)[name]
		if clean {
			s = Clean(s)
		}
		return s
	}
	return r
}

// Clean takes control sequences out of a text, so that what somebody named a
// thing cannot move the reader's cursor or break a table. White space becomes
// a space.
func Clean(s string) string {
	control := func(r rune) bool { return r < 0x20 || r >= 0x7f && r <= 0x9f }
	if !strings.ContainsFunc(s, control) {
		return s
	}
	var b strings.Builder
	in := []rune(s)
	for i := 0; i < len(in); i++ {
		switch r := in[i]; {
		case r == '\t' || r == '\n' || r == '\r':
			b.WriteByte(' ')
		case r == 0x1b:
			i += escapeLen(in[i+1:])
		case !control(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// escapeLen is how many characters after an ESC belong to its sequence: up to
// the letter that ends a CSI, or the BEL or ST that ends a string.
func escapeLen(s []rune) int {
	if len(s) == 0 {
		return 0
	}
	switch s[0] {
	case '[':
		for i := 1; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
		}
		return len(s)
	case ']', 'P', 'X', '^', '_':
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] == 0x07:
				return i + 1
			case s[i] == '\\' && s[i-1] == 0x1b:
				return i + 1
			}
		}
		return len(s)
	}
	return 1
}

// Ellipsis shortens a text to at most n characters, the last one being "…".
func Ellipsis(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	if n <= 1 {
		return string(r[:max(n, 0)])
	}
	return string(r[:n-1]) + "…"
}

// ShortID is an id without its algorithm, 12 characters long.
func ShortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// Tabbed prints rows of tab separated cells under a header.
func Tabbed(w io.Writer, header string, rows []string) error {
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	for _, r := range append([]string{header}, rows...) {
		if _, err := fmt.Fprintln(tw, r); err != nil {
			return err
		}
	}
	return tw.Flush()
}
