package opts

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// EnvFile reads lines of KEY=value; a KEY alone takes its value from lookup
// and is left out if there is none. Lines that start with # are comments.
func EnvFile(name string, lookup func(string) (string, bool)) ([]string, error) {
	return readFile(name, "variable", lookup)
}

// LabelFile reads lines of key=value, or key alone.
func LabelFile(name string) ([]string, error) { return readFile(name, "label", nil) }

func readFile(name, noun string, lookup func(string) (string, bool)) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out, err := readLines(f, noun, lookup)
	if err != nil {
		return nil, fmt.Errorf("invalid %s file (%s): %w", map[string]string{"variable": "env", "label": "label"}[noun], name, err)
	}
	return out, nil
}

func readLines(r io.Reader, noun string, lookup func(string) (string, bool)) ([]string, error) {
	var out []string
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		b := s.Bytes()
		if !utf8.Valid(b) {
			return nil, fmt.Errorf("line %d: invalid utf8 bytes", n)
		}
		if n == 1 {
			b = bytes.TrimPrefix(b, []byte{0xef, 0xbb, 0xbf})
		}
		line := strings.TrimLeftFunc(string(b), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		k, _, has := strings.Cut(line, "=")
		if k == "" {
			return nil, fmt.Errorf("line %d: no %s name on line '%s'", n, noun, line)
		}
		if strings.ContainsFunc(k, unicode.IsSpace) {
			return nil, fmt.Errorf("line %d: %s '%s' contains whitespaces", n, noun, k)
		}
		switch {
		case has || lookup == nil:
			out = append(out, line)
		default:
			if v, ok := lookup(k); ok {
				out = append(out, k+"="+v)
			}
		}
	}
	return out, s.Err()
}
