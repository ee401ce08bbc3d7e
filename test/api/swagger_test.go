//go:build root

package api

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// spec is docker's own description of the API, as the module carries it.
type spec struct {
	Paths       map[string]map[string]operation
	Definitions map[string]*schema
}

type operation struct {
	Parameters []parameter
	Responses  map[string]struct{ Schema *schema }
}

type parameter struct {
	Name, In string
	Schema   *schema
}

type schema struct {
	Ref        string `yaml:"$ref"`
	Type       any
	Required   []string
	Properties map[string]*schema
	Items      *schema
	AllOf      []*schema `yaml:"allOf"`
	Enum       []any
	Additional any `yaml:"additionalProperties"`
}

// moduleDir is where the module with the description is.
func moduleDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("SKIFF_TEST_API"); dir != "" { // as in a virtual machine
		return dir
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Skipf("no module cache: %v", err)
	}
	return strings.TrimSpace(string(dir))
}

func readSpec(t *testing.T, file string) *spec {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s spec
	if err := yaml.Unmarshal(b, &s); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return &s
}

func loadSpec(t *testing.T) *spec {
	t.Helper()
	return readSpec(t, filepath.Join(moduleDir(t), "swagger.yaml"))
}

func (s *spec) resolve(sc *schema) *schema {
	for sc != nil && sc.Ref != "" {
		sc = s.Definitions[strings.TrimPrefix(sc.Ref, "#/definitions/")]
	}
	return sc
}

// properties are those of the schema and of all it is made of.
func (s *spec) properties(sc *schema) map[string]*schema {
	out := map[string]*schema{}
	if sc = s.resolve(sc); sc == nil {
		return out
	}
	for _, part := range sc.AllOf {
		for k, v := range s.properties(part) {
			out[k] = v
		}
	}
	for k, v := range sc.Properties {
		out[k] = v
	}
	return out
}

// leaves lists the fields that hold values, by path: [] is every element of a
// list, {} every value of a map.
func (s *spec) leaves(sc *schema, at string) []string {
	var out []string
	for name, p := range s.properties(sc) {
		path, p := strings.TrimPrefix(at+"."+name, "."), s.resolve(p)
		for {
			if more, ok := s.value(p); ok {
				p, path = s.resolve(more), path+"{}"
			} else if p.Type == "array" && p.Items != nil {
				p, path = s.resolve(p.Items), path+"[]"
			} else {
				break
			}
		}
		if len(s.properties(p)) > 0 {
			out = append(out, s.leaves(p, path)...)
			continue
		}
		out = append(out, strings.TrimRight(path, "[]{}"))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// value is the schema of a map's values.
func (s *spec) value(sc *schema) (*schema, bool) {
	m, ok := sc.Additional.(map[string]any)
	if !ok {
		return nil, false
	}
	b, err := yaml.Marshal(m)
	if err != nil {
		return nil, false
	}
	var v schema
	return &v, yaml.Unmarshal(b, &v) == nil
}

// check returns how v breaks the schema. What the schema does not name is a
// breach too, but for extra.
func (s *spec) check(at string, sc *schema, v any, extra []string) (bad []string) {
	sc = s.resolve(sc)
	if sc == nil || v == nil { // docker answers null where something is empty
		return nil
	}
	wrong := func(is string) []string { return append(bad, fmt.Sprintf("%s is %s, not %v", at, is, sc.Type)) }
	switch v := v.(type) {
	case map[string]any:
		return s.checkObject(at, sc, v, extra)
	case []any:
		if !sc.is("array") {
			return wrong("an array")
		}
		for _, e := range v {
			bad = append(bad, s.check(at+"[]", sc.Items, e, extra)...)
		}
	case string:
		if !sc.is("string") {
			return wrong("a string")
		}
		if len(sc.Enum) > 0 && v != "" && !slices.Contains(sc.Enum, any(v)) {
			bad = append(bad, fmt.Sprintf("%s is %q, not one of %v", at, v, sc.Enum))
		}
	case bool:
		if !sc.is("boolean") {
			return wrong("a boolean")
		}
	case float64:
		if !sc.is("integer") && !sc.is("number") {
			return wrong("a number")
		}
		if sc.Type == "integer" && v != float64(int64(v)) && v < 1<<62 {
			return wrong("a fraction")
		}
	}
	return bad
}

func (s *spec) checkObject(at string, sc *schema, v map[string]any, extra []string) (bad []string) {
	if !sc.is("object") {
		return append(bad, fmt.Sprintf("%s is an object, not %v", at, sc.Type))
	}
	for _, part := range append(slices.Clone(sc.AllOf), sc) {
		for _, name := range s.resolve(part).Required {
			if _, ok := v[name]; !ok {
				bad = append(bad, at+"."+name+" is missing")
			}
		}
	}
	props := s.properties(sc)
	values, isMap := s.value(sc)
	for name, e := range v {
		p, known := props[name]
		switch {
		case known:
			bad = append(bad, s.check(at+"."+name, p, e, extra)...)
		case isMap:
			bad = append(bad, s.check(at+"{}", values, e, extra)...)
		case len(props) > 0 && !slices.Contains(extra, at+"."+name):
			bad = append(bad, at+"."+name+" is not in the description")
		}
	}
	return bad
}

func (sc *schema) is(want string) bool { return sc.Type == nil || sc.Type == want }
