//go:build root

package harness

import (
	"os"
	"strings"
	"testing"
)

// Section compares a part of a document, between two comments that name it,
// with what a test found; UPDATE=1 rewrites it.
func Section(t testing.TB, path, name, text string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
	before, rest, ok := strings.Cut(string(data), begin)
	have, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no part %q", path, name)
	}
	if have == text {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Errorf("the part %q of %s is not what this run found: UPDATE=1 rewrites it\n%s", name, path, changed(have, text))
		return
	}
	if err := os.WriteFile(path, []byte(before+begin+text+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// changed lists the lines that only one of two texts has.
func changed(before, after string) string {
	var b strings.Builder
	tell := func(mark, of, without string) {
		has := map[string]bool{}
		for line := range strings.Lines(without) {
			has[line] = true
		}
		for line := range strings.Lines(of) {
			if !has[line] {
				b.WriteString(mark + line)
			}
		}
	}
	tell("-", before, after)
	tell("+", after, before)
	return b.String()
}
