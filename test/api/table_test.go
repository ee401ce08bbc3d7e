//go:build root

package api

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// unread are parameters that mean nothing here; the others are read, each where
// its name stands in internal/apiserver.
var unread = map[string]string{
	"GET /images/json digests":               "digests are always told",
	"GET /images/json identity":              "refused by name: identities are not supported",
	"GET /networks/{id} verbose":             "as docker: tells more in a swarm only",
	"POST /containers/{id}/start detachKeys": "as docker: it is attach that reads them",
}

// TestTable writes the API's part of docs/compat.md (UPDATE=1), or compares it.
func TestTable(t *testing.T) {
	sp := loadSpec(t)
	since := versions(t)
	source := apiSource(t)
	fields := requestFields(sp)
	fields["POST /containers/create"] = createdFields()
	var doc strings.Builder
	doc.WriteString("# Docker Engine API\n\nMade by `test/api` (`UPDATE=1` rewrites it). Every route of docker's own description of version 1.56 is\n" +
		"called on the real daemon, its answer compared with the description, and every field of every\nrequest is set: it has its effect, or is refused by name. Versions 1.24 to 1.56 are answered.\n\n" +
		"| route | since | outcome | parameters |\n|---|---|---|---|\n")
	for _, route := range routes(sp) {
		fmt.Fprintf(&doc, "| `%s` | %s | %s | %s |\n", route, since[route], outcome(route), parameters(t, sp, source, since, route))
	}
	for _, route := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(&doc, "\n## %s\n\n| field | since | |\n|---|---|---|\n", route)
		for _, f := range slices.Sorted(maps.Keys(fields[route])) {
			how := slices.Compact(fields[route][f])
			fmt.Fprintf(&doc, "| `%s` | %s | %s |\n", f, since[route+" body "+f], strings.Join(how, "; "))
		}
	}
	harness.Section(t, filepath.Join("..", "..", "docs", "compat.md"), "api", doc.String())
}

func routes(sp *spec) []string {
	var out []string
	for path, ops := range sp.Paths {
		for method := range ops {
			out = append(out, strings.ToUpper(method)+" "+path)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		ma, pa, _ := strings.Cut(a, " ")
		mb, pb, _ := strings.Cut(b, " ")
		return strings.Compare(pa+" "+ma, pb+" "+mb)
	})
	return out
}

// outcome is what the calls in the table of visits show.
func outcome(route string) string {
	visits := slices.DeleteFunc(allVisits(), func(v visit) bool { return v.route != route })
	if slices.ContainsFunc(visits, func(v visit) bool { return v.want < 400 }) {
		return "works"
	}
	for _, v := range visits {
		return fmt.Sprintf("%d “%s”", v.want, strings.TrimSuffix(v.message, `"p" not found`)+strings.Repeat("… not found", strings.Count(v.message, `"p" not found`)))
	}
	return "**not called**"
}

// parameters lists those of the query and the headers.
func parameters(t *testing.T, sp *spec, source string, since map[string]string, route string) string {
	t.Helper()
	if refusedRoute(route) {
		return ""
	}
	method, path, _ := strings.Cut(route, " ")
	var out []string
	for _, p := range sp.Paths[path][strings.ToLower(method)].Parameters {
		if p.In != "query" && p.In != "header" {
			continue
		}
		text := "`" + p.Name + "`"
		if v := since[route+" "+p.Name]; v != since[route] {
			text += " (" + v + ")"
		}
		why, known := unread[route+" "+p.Name]
		read := strings.Contains(source, `"`+p.Name+`"`)
		switch {
		case known:
			text += ": " + why
		case !read && p.In == "query":
			t.Errorf("%s: nothing reads %s", route, p.Name)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// apiSource is the text of the package that reads parameters.
func apiSource(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "internal", "apiserver", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal("no source", err)
	}
	var b strings.Builder
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(data)
	}
	return b.String()
}

// oldest is the first version that has a description of this form.
const oldest = 25

// versions tells since which version there is a route, a parameter ("route
// name") and a field of a body ("route body field").
func versions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	note := func(key string, minor int) {
		if _, ok := out[key]; !ok {
			out[key] = fmt.Sprintf("1.%d", minor)
			if minor == oldest {
				out[key] = "≤1.25"
			}
		}
	}
	dir := filepath.Join(moduleDir(t), "docs")
	for minor := oldest; ; minor++ {
		file := filepath.Join(dir, fmt.Sprintf("v1.%d.yaml", minor))
		if _, err := os.Stat(file); err != nil {
			return out
		}
		sp := readSpec(t, file)
		for _, route := range routes(sp) {
			note(route, minor)
			method, path, _ := strings.Cut(route, " ")
			for _, p := range sp.Paths[path][strings.ToLower(method)].Parameters {
				note(route+" "+p.Name, minor)
			}
			for _, f := range sp.bodyFields(route) {
				note(route+" body "+f, minor)
			}
		}
	}
}
