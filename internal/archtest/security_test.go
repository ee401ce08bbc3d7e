package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// securityTests are the tests and fuzz targets of the tree, by the files that
// declare them, and the page that calls them as witnesses.
func securityTests(t *testing.T) (declared map[string][]string, page string) {
	t.Helper()
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared = map[string][]string{}
	decl := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, dir := range []string{"internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(p string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(p, "_test.go") {
				return err
			}
			src, err := os.ReadFile(p)
			rel, _ := filepath.Rel(root, p)
			for _, m := range decl.FindAllSubmatch(src, -1) {
				declared[string(m[1])] = append(declared[string(m[1])], filepath.ToSlash(rel))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return declared, string(text)
}

// TestSecurityPageNamesTests: each test that docs/security.md calls as a witness
// is in the tree.
func TestSecurityPageNamesTests(t *testing.T) {
	declared, page := securityTests(t)
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)\\w+)").FindAllStringSubmatch(page, -1) {
		if declared[m[1]] == nil {
			t.Errorf("docs/security.md names %s, which is not there", m[1])
		}
	}
}

// TestEveryAdvisoryHasItsTest: the table by advisories lists, for each, tests
// that bear its number, in the files that it says, and lists all there are; no
// advisory is spoken of elsewhere on the page without being in the table.
func TestEveryAdvisoryHasItsTest(t *testing.T) {
	declared, page := securityTests(t)
	listed := map[string]bool{} // "file: test"
	advisories := map[string]bool{}
	witness := regexp.MustCompile("`([^`]+_test\\.go)`: `(Test\\w+)`")
	for _, row := range regexp.MustCompile(`(?m)^\| CVE-(\d+-\d+) \|.*$`).FindAllStringSubmatch(page, -1) {
		advisories[row[1]] = true
		tests := witness.FindAllStringSubmatch(row[0], -1)
		if len(tests) == 0 {
			t.Errorf("CVE-%s has no test", row[1])
		}
		for _, w := range tests {
			listed[w[1]+": "+w[2]] = true
			if !strings.HasPrefix(w[2], "TestCVE_"+strings.ReplaceAll(row[1], "-", "_")+"_") {
				t.Errorf("%s does not bear the number of CVE-%s", w[2], row[1])
			}
		}
	}
	for name, files := range declared {
		for _, f := range files {
			if strings.HasPrefix(name, "TestCVE_") && !listed[f+": "+name] {
				t.Errorf("%s of %s is not in the table of docs/security.md", name, f)
			}
			delete(listed, f+": "+name)
		}
	}
	for l := range listed {
		t.Errorf("docs/security.md lists %s, which is not there", l)
	}
	for _, m := range regexp.MustCompile(`\b(20[12]\d-\d{4,5})\b`).FindAllString(page, -1) {
		if !advisories[m] {
			t.Errorf("CVE-%s has no row", m)
		}
	}
}
