package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// Template runs a template on one value and ends with a line feed.
func Template(w io.Writer, source string, v any) error {
	if strings.TrimSpace(source) == JSONKey {
		s, err := toJSON(v)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, s)
		return err
	}
	t, err := parse(unescape(source), functions())
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := execute(t, &b, v); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

func parse(source string, funcs template.FuncMap) (*template.Template, error) {
	t, err := template.New("").Funcs(funcs).Option("missingkey=error").Parse(source)
	if err != nil {
		return nil, fmt.Errorf("failed to parse template: %w", err)
	}
	return t, nil
}

func execute(t *template.Template, w io.Writer, v any) error {
	if err := t.Execute(w, v); err != nil {
		return fmt.Errorf("failed to execute template: %w", err)
	}
	return nil
}

// unescape turns the two-character sequences of a shell's argument into tabs
// and line feeds.
func unescape(s string) string { return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s) }

func toJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(true)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

func functions() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			if err := e.Encode(v); err != nil {
				return "", err
			}
			return strings.TrimSpace(b.String()), nil
		},
		"split":    strings.Split,
		"join":     join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
	}
}

// headerFunctions let a header pass through what its column passes through.
func headerFunctions() template.FuncMap {
	same := func(v any, _ ...any) any { return v }
	m := template.FuncMap{}
	for name := range functions() {
		m[name] = same
	}
	// The header is the first argument of each but these two take it last.
	m["pad"] = pad
	return m
}

// join accepts any slice, since inspected documents are decoded without types.
func join(list any, sep string) (string, error) {
	if s, ok := list.([]string); ok {
		return strings.Join(s, sep), nil
	}
	v := reflect.ValueOf(list)
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
	case reflect.Invalid:
		return "", nil
	default:
		return "", fmt.Errorf("cannot join %T", list)
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(parts, sep), nil
}

func title(s string) string {
	prev := ' '
	return strings.Map(func(r rune) rune {
		start := unicode.IsSpace(prev)
		prev = r
		if start {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
}

func truncate(s string, n int) string {
	if n < 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n])
}
