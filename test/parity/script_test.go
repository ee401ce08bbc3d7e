//go:build root

package parity

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A script is a file of testdata/scripts, a step a line; a backslash at its end
// goes on in the next, # is a comment. A step is
//
//	docker ps -a            a command line of sh's; docker is the client
//	api GET /images/json    a call of the API: method, path, and a JSON body
//	NAME= docker create x   a command line whose output is $NAME in later steps
//
// Before it may stand: ~code, only exit code or status are compared; ~sort, the
// lines of the output in any order; ~same, never compared (a preparation).
type step struct {
	text, line string // text is what stands in the script, line without marks
	set        string // the variable
	api        bool
	code, sort bool
	same       bool
}

func parseScript(path string) ([]step, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var steps []step
	text := strings.ReplaceAll(string(data), "\\\n", "")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s := step{text: line}
		for strings.HasPrefix(line, "~") {
			mark, rest, _ := strings.Cut(line, " ")
			switch mark {
			case "~code":
				s.code = true
			case "~sort":
				s.sort = true
			case "~same":
				s.same = true
			default:
				return nil, fmt.Errorf("%s: %q: no such mark", path, line)
			}
			line = strings.TrimSpace(rest)
		}
		if name, rest, ok := strings.Cut(line, "= "); ok && name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == "" {
			s.set, line = name, rest
		}
		s.line, s.api = strings.CutPrefix(line, "api ")
		steps = append(steps, s)
	}
	return steps, nil
}

// result is what a step did on one engine, as it came.
type result struct {
	code           int
	stdout, stderr string // stdout is the body of an API call
}

// play runs a script on an engine.
func (e *engine) play(steps []step) []result {
	vars := map[string]string{}
	out := make([]result, len(steps))
	for i, s := range steps {
		r := &out[i]
		if s.api {
			r.code, r.stdout = e.playCall(os.Expand(s.line, func(k string) string { return vars[k] }))
		} else {
			r.code, r.stdout, r.stderr = e.shell(s.line, vars)
		}
		if s.set != "" {
			vars[s.set] = strings.TrimSpace(r.stdout)
		}
	}
	return out
}

// playCall makes the call "METHOD PATH BODY"; a body @FILE is of the work
// directory, and @- is empty.
func (e *engine) playCall(line string) (int, string) {
	method, rest, _ := strings.Cut(line, " ")
	path, body, has := strings.Cut(rest, " ")
	var data []byte
	if file, ok := strings.CutPrefix(body, "@"); ok && file != "-" {
		var err error
		if data, err = os.ReadFile(filepath.Join(e.work, file)); err != nil {
			return -1, err.Error()
		}
	} else if !ok {
		data = []byte(body)
	}
	if !has {
		code, answer := e.call(method, path, nil)
		return code, string(answer)
	}
	code, answer := e.call(method, path, bytes.NewReader(data))
	return code, string(answer)
}

// both plays a script on both engines at once.
func both(t *testing.T, a, b *engine, steps []step) (x, y []result) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { x = a.play(steps) })
	wg.Go(func() { y = b.play(steps) })
	wg.Wait()
	a.reset(t)
	b.reset(t)
	return x, y
}
