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
		t.Errorf("the part %q of %s is not what this run found: UPDATE=1 rewrites it", name, path)
		return
	}
	if err := os.WriteFile(path, []byte(before+begin+text+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
