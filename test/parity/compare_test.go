//go:build root

package parity

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// difference is one thing that a client sees differently.
type difference struct {
	script, step  string
	aspect        string // code, stdout, stderr, or body and a path in it
	docker, skiff string
}

func (d difference) String() string {
	return fmt.Sprintf("%s | %s | %s\n\tdocker: %s\n\tskiff:  %s", d.script, d.step, d.aspect, d.docker, d.skiff)
}

const absent = "(absent)"

// compare lists what differs between two results of a step.
func compare(docker, skiff *engine, s step, x, y result) []difference {
	var out []difference
	add := func(aspect, a, b string) {
		if a != b {
			out = append(out, difference{step: s.text, aspect: aspect, docker: a, skiff: b})
		}
	}
	if s.same {
		return nil
	}
	code := "code"
	if s.api {
		code = "status"
	}
	add(code, fmt.Sprint(x.code), fmt.Sprint(y.code))
	if s.code {
		return out
	}
	va, isA := document(x.stdout)
	vb, isB := document(y.stdout)
	if isA && isB {
		walk("body", docker.normal("", va), skiff.normal("", vb), add)
	} else {
		texts("stdout", docker.text(x.stdout), skiff.text(y.stdout), s.sort, add)
	}
	texts("stderr", docker.text(x.stderr), skiff.text(y.stderr), s.sort, add)
	return out
}

// texts compares two outputs and tells the lines that are not in both.
func texts(aspect, a, b string, sorted bool, add func(aspect, a, b string)) {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	if sorted {
		slices.Sort(la)
		slices.Sort(lb)
	}
	if slices.Equal(la, lb) {
		return
	}
	for len(la) > 0 && len(lb) > 0 && la[0] == lb[0] {
		la, lb = la[1:], lb[1:]
	}
	for len(la) > 0 && len(lb) > 0 && la[len(la)-1] == lb[len(lb)-1] {
		la, lb = la[:len(la)-1], lb[:len(lb)-1]
	}
	add(aspect, strings.Join(la, " ⏎ "), strings.Join(lb, " ⏎ ")+strings.Repeat(" ", btoi(len(lb) == 0 && len(la) == 1 && la[0] == "")))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// walk compares two JSON values: the keys, the types, and what is in them.
func walk(path string, a, b any, add func(path, a, b string)) {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		keys := maps.Clone(x)
		maps.Copy(keys, y)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			va, inA := x[k]
			vb, inB := y[k]
			switch {
			case !inA:
				add(path+"."+k, absent, render(vb))
			case !inB:
				add(path+"."+k, render(va), absent)
			default:
				walk(path+"."+k, va, vb, add)
			}
		}
		return
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			break
		}
		for i := range x {
			walk(path+"[]", x[i], y[i], add)
		}
		return
	}
	if !reflect.DeepEqual(a, b) {
		add(path, render(a), render(b))
	}
}

func render(v any) string {
	data, _ := json.Marshal(v)
	s := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(data))
	if len(s) > 400 {
		s = s[:400] + "…"
	}
	return s
}
