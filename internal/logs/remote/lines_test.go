package remote

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// show is a message in short: stream, seconds, length or text, piece.
func show(m Message) string {
	text := string(m.Line)
	if len(text) > 20 {
		text = fmt.Sprintf("%c*%d", text[0], len(text))
	}
	out := fmt.Sprintf("%d@%d %s", m.Stream, m.At.Unix(), text)
	if m.Partial != nil {
		out += fmt.Sprintf(" #%d %v", m.Partial.Ordinal, m.Partial.Last)
	}
	return out
}

func TestLines(t *testing.T) {
	type in struct {
		stream byte
		text   string
	}
	x := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		in   []in
		want []string
	}{
		"lines":                   {[]in{{1, "a\n\nb\n"}}, []string{"1@0 a", "1@0 ", "1@0 b"}},
		"put together":            {[]in{{1, "a"}, {1, "b"}, {1, "c\nd"}}, []string{"1@0 abc", "1@2 d #1 false"}},
		"two streams":             {[]in{{1, "a"}, {2, "b\n"}, {1, "c\n"}}, []string{"2@1 b", "1@0 ac"}},
		"the longest whole line":  {[]in{{1, x(maxLine-1) + "\n"}}, []string{"1@0 x*16383"}},
		"cut before the newline":  {[]in{{1, x(maxLine) + "\n"}}, []string{"1@0 x*16384 #1 false", "1@0  #2 true"}},
		"a long line":             {[]in{{1, x(10000)}, {1, x(10000)}, {1, x(20000) + "\nb\n"}}, []string{"1@0 x*16384 #1 false", "1@0 x*16384 #2 false", "1@0 x*7232 #3 true", "1@2 b"}},
		"the end of a long line":  {[]in{{1, x(maxLine + 1)}}, []string{"1@0 x*16384 #1 false", "1@0 x #2 false"}},
		"nothing is left of this": {[]in{{1, x(maxLine)}}, []string{"1@0 x*16384 #1 false"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, crash := range []bool{false, true} {
				var a lines
				var got []string
				ids := map[string]bool{}
				emit := func(m Message) {
					got = append(got, show(m))
					if m.Partial != nil {
						ids[m.Partial.ID] = true
					}
				}
				for i, p := range c.in {
					a.add(p.stream, time.Unix(int64(i), 0), []byte(p.text), emit)
					if crash {
						var b lines
						b.restore(a.state())
						a = b
					}
				}
				a.end(emit)
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("with a crash: %v\n%s", crash, d)
				}
				if len(ids) > 1 {
					t.Errorf("the pieces of one line have %d ids", len(ids))
				}
				if a.state() != nil {
					t.Error("something is left after the end")
				}
			}
		})
	}
}

func FuzzLinesState(f *testing.F) {
	var a lines
	a.add(1, time.Unix(1, 2), []byte("prompt> "), func(Message) {})
	a.add(2, time.Unix(1, 3), make([]byte, maxLine+5), func(Message) {})
	f.Add(a.state())
	f.Fuzz(func(t *testing.T, b []byte) {
		var a lines
		a.restore(b)
		for _, s := range a.streams {
			if len(s.held) >= maxLine {
				t.Fatalf("%d bytes are held", len(s.held))
			}
		}
		a.add(1, time.Unix(1, 0), []byte("x\n"), func(Message) {})
		a.end(func(Message) {})
	})
}
