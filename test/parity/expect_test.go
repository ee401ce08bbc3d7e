//go:build root

package parity

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// expectation is a difference that is meant, with its reason.
type expectation struct {
	line                        int
	why                         string
	script, step, aspect, skiff *regexp.Regexp
	hits                        int
	first                       difference
}

// parseExpected reads testdata/differences.txt: a paragraph for each reason,
// which begins with "= " and the reason, then a line for each difference:
//
//	script | step | aspect | what skiff says
//
// where * stands for any text; the last column may be left out.
func parseExpected(path string) ([]*expectation, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []*expectation
	why := ""
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "= "):
			why = line[2:]
		default:
			f := strings.Split(line, " | ")
			if why == "" || len(f) < 3 || len(f) > 4 {
				return nil, fmt.Errorf("%s:%d: want script | step | aspect, below a reason", path, i+1)
			}
			if len(f) == 3 {
				f = append(f, "*")
			}
			out = append(out, &expectation{line: i + 1, why: why, script: glob(f[0]), step: glob(f[1]), aspect: glob(f[2]), skiff: glob(f[3])})
		}
	}
	return out, nil
}

func glob(s string) *regexp.Regexp {
	parts := strings.Split(strings.TrimSpace(s), "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`)
}

// explains reports whether the difference is the one that is meant.
func (x *expectation) explains(d difference) bool {
	if !x.script.MatchString(d.script) || !x.step.MatchString(d.step) || !x.aspect.MatchString(d.aspect) || !x.skiff.MatchString(strings.TrimSpace(d.skiff)) {
		return false
	}
	if x.hits == 0 {
		x.first = d
	}
	x.hits++
	return true
}

// shownOfEach is how many examples of a reason the document has.
const shownOfEach = 12

// documentOf writes the part of docs/compat.md: reason after reason, with
// examples of what it explains, of each line of the table the first.
func documentOf(table []*expectation, scripts, steps int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Beside dockerd 20.10\n\nMade by `make parity` (`UPDATE=1` rewrites it): %d scripts of %d steps, docker command lines and calls\n"+
		"of the API %s, run on Debian's dockerd 20.10 and on skiffd. Exit codes, outputs, statuses, messages and\n"+
		"the keys, types and values of JSON are the same, but for what follows; the whole list is\n`test/parity/testdata/differences.txt`.\n", scripts, steps, apiVersion)
	byWhy := map[string][]*expectation{}
	var order []string
	for _, x := range table {
		if byWhy[x.why] == nil {
			order = append(order, x.why)
		}
		byWhy[x.why] = append(byWhy[x.why], x)
	}
	for _, why := range order {
		fmt.Fprintf(&b, "\n%s\n\n| step | what | dockerd | Skiff |\n|---|---|---|---|\n", why)
		for i, x := range byWhy[why] {
			if i == shownOfEach {
				fmt.Fprintf(&b, "\n…and %d more.\n", len(byWhy[why])-i)
				break
			}
			d := x.first
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(d.step, 90), cell(d.aspect, 60), cell(d.docker, 110), cell(d.skiff, 110))
		}
	}
	return b.String()
}

func cell(s string, most int) string {
	s = strings.TrimSpace(strings.TrimPrefix(s, "Error response from daemon: "))
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	if s == "" {
		return "nothing"
	}
	s = strings.NewReplacer("|", "\\|", "`", "'").Replace(s)
	return "`" + s + "`"
}

// unused are the lines of the table that nothing needed.
func unused(table []*expectation) []*expectation {
	return slices.DeleteFunc(slices.Clone(table), func(x *expectation) bool { return x.hits > 0 })
}
