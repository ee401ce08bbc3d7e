package buildctx

import (
	"path"
	"strings"
	"testing"

	"github.com/moby/patternmatcher/ignorefile"

	"github.com/skiff-containers/skiff/internal/cli/archive"
)

// FuzzIgnore asks whether a file is left out, by way of its directories and
// alone: a tree must not be left out that holds a file which is not.
func FuzzIgnore(f *testing.F) {
	f.Add("*\n!keep/*.go\n", "keep/a.go")
	f.Add("**/x\n!a/**/x\n# comment\n", "a/b/x")
	f.Add("[\n\\\n!\n", "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		name = strings.TrimPrefix(path.Clean("/"+name), "/")
		patterns, err := ignorefile.ReadAll(strings.NewReader(text))
		if err != nil || name == "" || len(text) > 1000 {
			return
		}
		ig, err := newIgnore(patterns)
		if err != nil {
			return
		}
		for dir := range parents(name) {
			if e, err := ig.entry(dir, true); err != nil || e == archive.OmitTree {
				alone, merr := ig.pm.MatchesOrParentMatches(name)
				if err == nil && merr == nil && !alone {
					t.Errorf("%q: %s is left out with all in it, %s is not", patterns, dir, name)
				}
				return
			}
		}
		_, _ = ig.entry(name, false)
	})
}

// parents yields the directories on the way to a file, outermost first.
func parents(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i, c := range name {
			if c == '/' && !yield(name[:i]) {
				return
			}
		}
	}
}
