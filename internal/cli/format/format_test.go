package format

import (
	"bytes"
	"testing"
	"time"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                  "plain",
		"ünïcode…":               "ünïcode…",
		"a\tb\nc\rd":             "a b c d",
		"x\x1b[2Jy":              "xy",
		"x\x1b[1;31mred\x1b[0my": "xredy",
		"x\x1b]0;title\ay":       "xy",
		"x\x1b]0;title\x1b\\y":   "xy",
		"x\x1bcy":                "xy",
		"x\x1b":                  "x",
		"x\x1b[":                 "x",
		"x\u009b2Jy":             "x2Jy",
		"bell\a\x7f":             "bell",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("x\x1b]0;t\x1b\\y")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Clean(s) {
			if r < 0x20 || r >= 0x7f && r <= 0x9f {
				t.Errorf("%q left %U", s, r)
			}
		}
	})
}

func TestEllipsis(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"äöüß", 3, "äö…"}, {"abc", 1, "a"}, {"abc", 0, ""}} {
		if got := Ellipsis(c.in, c.n); got != c.want {
			t.Errorf("%q %d: got %q", c.in, c.n, got)
		}
	}
}

func TestInspect(t *testing.T) {
	type state struct {
		Running bool
		Start   time.Duration
	}
	type object struct {
		ID    string `json:"Id"`
		State *state
		Names []string
	}
	o := []Inspected{{
		Value: object{"abc", &state{true, time.Second}, []string{"a", "b"}},
		Raw:   []byte(`{"Id":"abc","State":{"Running":true,"Start":1000000000},"Names":["a","b"],"New":{"Field":12345678901234567}}` + "\n"),
	}}
	for _, c := range []struct{ source, want string }{
		{"{{.ID}}", "abc\n"},
		{"{{.Id}}", "abc\n"},
		{"{{.State.Start}}", "1s\n"},
		{"{{.New.Field}}", "12345678901234567\n"},
		{`{{join .Names ","}}`, "a,b\n"},
		{`{{range .Names}}{{.}}\n{{end}}`, "a\nb\n\n"},
		{"{{json .State}}", `{"Running":true,"Start":1000000000}` + "\n"},
		{"json", `[{"Id":"abc","State":{"Running":true,"Start":1000000000},"Names":["a","b"],"New":{"Field":12345678901234567}}]` + "\n"},
	} {
		var b bytes.Buffer
		if err := Inspect(&b, c.source, o); err != nil {
			t.Errorf("%s: %v", c.source, err)
		}
		if b.String() != c.want {
			t.Errorf("%s: got %q, want %q", c.source, b.String(), c.want)
		}
	}
	var b bytes.Buffer
	if err := Inspect(&b, "{{.Nothing}}", o); err == nil {
		t.Error("no error for a field that is not there")
	}
	if err := Inspect(&b, "", nil); err != nil || b.String() != "[]\n" {
		t.Errorf("%v %q", err, b.String())
	}
}
