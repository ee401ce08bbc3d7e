package buildctx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/skiff-containers/skiff/internal/cli/archive"
)

const ignoreFile = ".dockerignore"

// ignore answers what .dockerignore leaves out. It expects paths in the order
// of a walk: parents first.
type ignore struct {
	pm      *patternmatcher.PatternMatcher
	parents map[string]patternmatcher.MatchInfo
	keep    []string // patterns that take files back in
}

// loadIgnore reads NAME.dockerignore beside the Dockerfile, or the context's
// own; none leaves nothing out.
func loadIgnore(dir, dockerfile string) (*ignore, error) {
	for _, name := range []string{dockerfile + ignoreFile, ignoreFile} {
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		patterns, err := ignorefile.ReadAll(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return newIgnore(patterns)
	}
	return nil, nil
}

func newIgnore(patterns []string) (*ignore, error) {
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ignoreFile, err)
	}
	ig := &ignore{pm: pm, parents: map[string]patternmatcher.MatchInfo{}}
	for _, p := range pm.Patterns() {
		if p.Exclusion() {
			ig.keep = append(ig.keep, filepath.ToSlash(p.String()))
		}
	}
	return ig, nil
}

func (ig *ignore) entry(rel string, dir bool) (archive.Entry, error) {
	if ig == nil {
		return archive.Include, nil
	}
	out, info, err := ig.pm.MatchesUsingParentResults(filepath.FromSlash(rel), ig.parents[path.Dir(rel)])
	if err != nil {
		return archive.Include, fmt.Errorf("%s: %s: %w", ignoreFile, rel, err)
	}
	if dir {
		ig.parents[rel] = info
	}
	switch {
	case !out:
		return archive.Include, nil
	case dir && !ig.mayKeep(rel):
		return archive.OmitTree, nil
	}
	return archive.Omit, nil
}

// mayKeep reports whether a pattern could take something below a directory
// back in.
func (ig *ignore) mayKeep(dir string) bool {
	for _, p := range ig.keep {
		fixed, _, wild := cutWild(p)
		if strings.HasPrefix(p+"/", dir+"/") || wild && (fixed == "" || strings.HasPrefix(dir+"/", fixed+"/") || strings.HasPrefix(fixed+"/", dir+"/")) {
			return true
		}
	}
	return false
}

// cutWild cuts a pattern before its first element with a wildcard.
func cutWild(p string) (fixed, rest string, wild bool) {
	i := strings.IndexAny(p, `*?[\`)
	if i < 0 {
		return p, "", false
	}
	j := strings.LastIndexByte(p[:i], '/')
	if j < 0 {
		return "", p, true
	}
	return p[:j], p[j+1:], true
}
