package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// spec is docker's own description of the API, as the module carries it.
type spec struct {
	Paths       map[string]map[string]operation
	Definitions map[string]*schema
	Responses   map[string]response200
}

type operation struct {
	Responses map[string]response200
}

type response200 struct {
	Schema *schema
}

type schema struct {
	Ref                  string `yaml:"$ref"`
	Type                 any
	Required             []string
	Properties           map[string]*schema
	Items                *schema
	AllOf                []*schema `yaml:"allOf"`
	AdditionalProperties any       `yaml:"additionalProperties"`
}

func loadSpec(t *testing.T) *spec {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Skipf("no module cache: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "swagger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var s spec
	if err := yaml.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// check returns how v breaks the schema.
func (s *spec) check(at string, sc *schema, v any) (bad []string) {
	if sc == nil || v == nil { // docker answers null where something is empty
		return nil
	}
	if sc.Ref != "" {
		return s.check(at, s.Definitions[strings.TrimPrefix(sc.Ref, "#/definitions/")], v)
	}
	for _, part := range sc.AllOf {
		bad = append(bad, s.check(at, part, v)...)
	}
	switch v := v.(type) {
	case map[string]any:
		if !sc.is("object") {
			return append(bad, fmt.Sprintf("%s is an object, not %v", at, sc.Type))
		}
		for _, name := range sc.Required {
			if _, ok := v[name]; !ok {
				bad = append(bad, at+"."+name+" is missing")
			}
		}
		for name, p := range sc.Properties {
			bad = append(bad, s.check(at+"."+name, p, v[name])...)
		}
	case []any:
		if !sc.is("array") {
			return append(bad, fmt.Sprintf("%s is an array, not %v", at, sc.Type))
		}
		for _, e := range v {
			bad = append(bad, s.check(at+"[]", sc.Items, e)...)
		}
	case string:
		if !sc.is("string") {
			bad = append(bad, fmt.Sprintf("%s is a string, not %v", at, sc.Type))
		}
	case bool:
		if !sc.is("boolean") {
			bad = append(bad, fmt.Sprintf("%s is a boolean, not %v", at, sc.Type))
		}
	case float64:
		if !sc.is("integer") && !sc.is("number") {
			bad = append(bad, fmt.Sprintf("%s is a number, not %v", at, sc.Type))
		}
	}
	return bad
}

func (sc *schema) is(want string) bool { return sc.Type == nil || sc.Type == want }

// TestEveryPathOfDocker: implemented, or refused on purpose.
func TestEveryPathOfDocker(t *testing.T) {
	sp := loadSpec(t)
	have := map[string]bool{}
	for _, r := range allRoutes() {
		have[r.method+" "+r.path] = true
	}
	for path, ops := range sp.Paths {
		for method := range ops {
			if key := strings.ToUpper(method) + " " + path; !have[key] {
				t.Errorf("no route %s", key)
			}
		}
	}
	undocumented := map[string]bool{
		"GET /networks/": true, "POST /build/cancel": true, "POST /grpc": true,
		"GET /containers/{id}/checkpoints": true, "POST /containers/{id}/checkpoints": true,
		"DELETE /containers/{id}/checkpoints/{checkpoint}": true,
	}
	for key := range have {
		method, path, _ := strings.Cut(key, " ")
		if _, ok := sp.Paths[path][strings.ToLower(method)]; !ok && !undocumented[key] {
			t.Errorf("route %s is not docker's", key)
		}
	}
}

// TestAnswersFollowTheSpec compares answers of a fake engine with the schema.
func TestAnswersFollowTheSpec(t *testing.T) {
	sp := loadSpec(t)
	f := newFake()
	s := New(Options{Backends: f.backends()})
	call(t, s, "POST", "/containers/create?name=web", `{"Image":"busybox","Cmd":["sleep"]}`)
	call(t, s, "POST", "/containers/web/start", "")
	call(t, s, "POST", "/volumes/create", `{"Name":"data"}`)
	exec := call(t, s, "POST", "/containers/web/exec", `{"Cmd":["echo"]}`).json["Id"]
	for _, tc := range []struct{ method, path, real, body string }{
		{"GET", "/containers/json", "/containers/json?all=1", ""},
		{"POST", "/containers/create", "/containers/create", `{"Image":"busybox"}`},
		{"GET", "/containers/{id}/json", "/containers/web/json", ""},
		{"GET", "/containers/{id}/top", "/containers/web/top", ""},
		{"GET", "/containers/{id}/changes", "/containers/web/changes", ""},
		{"GET", "/containers/{id}/stats", "/containers/web/stats?stream=0", ""},
		{"POST", "/containers/{id}/update", "/containers/web/update", "{}"},
		{"POST", "/containers/prune", "/containers/prune", ""},
		{"GET", "/images/json", "/images/json", ""},
		{"GET", "/images/{name}/json", "/images/busybox/json", ""},
		{"GET", "/images/{name}/history", "/images/busybox/history", ""},
		{"GET", "/images/search", "/images/search?term=x", ""},
		{"DELETE", "/images/{name}", "/images/busybox", ""},
		{"POST", "/images/prune", "/images/prune", ""},
		{"POST", "/auth", "/auth", `{"password":"right"}`},
		{"GET", "/info", "/info", ""},
		{"GET", "/version", "/version", ""},
		{"POST", "/commit", "/commit?container=web", ""},
		{"GET", "/system/df", "/system/df", ""},
		{"POST", "/containers/{id}/exec", "/containers/web/exec", `{"Cmd":["true"]}`},
		{"GET", "/exec/{id}/json", fmt.Sprintf("/exec/%v/json", exec), ""},
		{"GET", "/volumes", "/volumes", ""},
		{"POST", "/volumes/create", "/volumes/create", "{}"},
		{"GET", "/volumes/{name}", "/volumes/data", ""},
		{"POST", "/volumes/prune", "/volumes/prune", ""},
		{"GET", "/networks", "/networks", ""},
		{"GET", "/networks/{id}", "/networks/bridge", ""},
		{"POST", "/networks/create", "/networks/create", `{"Name":"n"}`},
		{"POST", "/networks/prune", "/networks/prune", ""},
		{"GET", "/plugins", "/plugins", ""},
		{"GET", "/distribution/{name}/json", "/distribution/busybox/json", ""},
		{"POST", "/build/prune", "/build/prune", ""},
	} {
		t.Run(tc.method+tc.path, func(t *testing.T) {
			got := call(t, s, tc.method, tc.real, tc.body)
			op := sp.Paths[tc.path][strings.ToLower(tc.method)]
			want, ok := op.Responses[fmt.Sprint(got.code)]
			if !ok || got.code >= 400 {
				t.Fatalf("status %d is not expected: %s", got.code, got.body)
			}
			var v any
			if err := json.Unmarshal([]byte(got.body), &v); err != nil {
				t.Fatal(err)
			}
			for _, bad := range sp.check("answer", want.Schema, v) {
				t.Error(bad)
			}
		})
	}
}

type answered struct {
	code   int
	body   string
	header http.Header
	json   map[string]any
}

// call asks without a network; a body is sent as JSON.
func call(t testing.TB, s *Server, method, path, body string, headers ...string) answered {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				t.Errorf("%s %s panics: %v", method, path, p)
			}
		}()
		s.ServeHTTP(w, r)
	}()
	a := answered{w.Code, w.Body.String(), w.Header(), nil}
	_ = json.Unmarshal(w.Body.Bytes(), &a.json)
	return a
}
