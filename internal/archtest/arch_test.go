// Package archtest holds the walls of the house: it reads the imports of every
// package and fails where one reaches up, sideways, or for something heavy.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/skiff-containers/skiff/"

// floors lists the rooms from the ground up. A package may import its own room
// and those of lower floors; on the same floor only what `beside` allows.
var floors = [][]string{
	{"internal/kit", "internal/oci"},
	{"internal/meta", "internal/logs", "internal/sys", "internal/content", "internal/snapshot", "internal/layer"},
	{"internal/runtime", "internal/network", "internal/build", "internal/remote"},
	{
		"internal/engine/events", "internal/engine/containers", "internal/engine/images", "internal/engine/networks",
		"internal/engine/volumes", "internal/engine/builds", "internal/engine/system", "internal/engine/gc",
	},
	{"client", "internal/apiserver", "internal/registryd", "internal/dashboard", "internal/criserver"},
	{"internal/daemon", "internal/cli", "internal/tools"},
	{"cmd", "test", "bench"},
}

// beside: same-floor imports that are allowed, "from to".
var beside = map[string]bool{
	"internal/oci internal/kit":                         true,
	"internal/snapshot internal/content":                true,
	"internal/snapshot internal/layer":                  true,
	"internal/snapshot internal/sys":                    true,
	"internal/layer internal/sys":                       true,
	"internal/layer internal/content":                   true,
	"internal/runtime internal/logs":                    true,
	"internal/engine/containers internal/engine/events": true,
	"internal/engine/builds internal/engine/events":     true,
	"internal/engine/system internal/engine/events":     true,
}

// upward: the values that pass between engine and shim are declared once, in
// internal/runtime itself (not in its sub-rooms); the cellar may speak of them.
var upward = map[string]bool{
	"internal/logs internal/runtime":  true,
	"internal/layer internal/runtime": true,
}

type pkg struct {
	ImportPath string
	Name       string
	Doc        string
	Imports    []string
}

func packages(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Doc,Imports"}, patterns...)...)
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("go list: %v\n%s", err, ee.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// room returns the floor and name of the room a package is in.
func room(path string) (floor int, name string, ok bool) {
	rel, ok := strings.CutPrefix(path, module)
	if !ok {
		return 0, "", false
	}
	for f, rooms := range floors {
		for _, r := range rooms {
			if rel == r || strings.HasPrefix(rel, r+"/") {
				return f, r, true
			}
		}
	}
	return 0, "", false
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range packages(t, "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module)
		if rel == "internal/archtest" {
			continue
		}
		floor, name, ok := room(p.ImportPath)
		if !ok {
			t.Errorf("%s is in no room: add it to floors", rel)
			continue
		}
		for _, imp := range p.Imports {
			impFloor, impName, ours := room(imp)
			if !ours || impName == name {
				continue
			}
			pair := name + " " + impName
			switch {
			case impFloor > floor && !(upward[pair] && imp == module+impName):
				t.Errorf("%s imports %s: that is up", rel, strings.TrimPrefix(imp, module))
			case impFloor == floor && !beside[pair]:
				t.Errorf("%s imports its sibling %s", rel, strings.TrimPrefix(imp, module))
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t, "./...") {
		if p.Doc == "" && !strings.HasSuffix(p.ImportPath, "/archtest") {
			t.Errorf("no package comment in %s", strings.TrimPrefix(p.ImportPath, module))
		}
	}
}

// TestLightExecutables: what the command line and the shim must never link.
func TestLightExecutables(t *testing.T) {
	heavy := []string{
		"github.com/moby/buildkit/solver", "github.com/containerd/containerd/v2/core/metadata",
		"go.etcd.io/bbolt", "github.com/distribution/distribution/v3",
	}
	bad := map[string][]string{
		"./cmd/skiff": heavy,
		"./cmd/skiff-shim": append([]string{
			"net/http", "crypto/tls", "text/template", "github.com/spf13/cobra", "google.golang.org/grpc", module + "internal/logs/remote",
		}, heavy...),
	}
	for cmd, banned := range bad {
		out, err := exec.Command("go", "list", "-C", filepath.Join("..", ".."), "-deps", cmd).CombinedOutput()
		if err != nil {
			t.Errorf("go list -deps %s: %v\n%s", cmd, err, out)
			continue
		}
		deps := strings.Fields(string(out))
		sort.Strings(deps)
		for _, b := range banned {
			for _, d := range deps {
				if d == b || strings.HasPrefix(d, b+"/") {
					t.Errorf("%s links %s", cmd, d)
					break
				}
			}
		}
	}
}

// TestNoHiddenWiring: no init functions and no imports for their side effects
// but those listed, each with its reason.
func TestNoHiddenWiring(t *testing.T) {
	out, err := exec.Command("git", "-C", filepath.Join("..", ".."), "grep", "-nE", `^func init\(\)|^\s+_ "`, "--", "*.go", ":!*_test.go").Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) && ee.ExitCode() == 1 {
			return // nothing found
		}
		t.Skipf("no git checkout here: %v", err)
	}
	allowed := []string{
		"internal/registryd/",     // distribution's storage and auth drivers register themselves
		"embed",                   // go:embed
		"crypto/",                 // go-digest looks algorithms up by registration
		"test/conformance/suite/", // names the programs of a module of its own, which only its tools read
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.Contains(line, a) }) {
			t.Errorf("hidden wiring: %s", line)
		}
	}
}

// TestArchitecturePageIsTrue: every file and folder that ARCHITECTURE.md names
// between back quotes exists.
func TestArchitecturePageIsTrue(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("`((?:internal|cmd|client|test|docs|bench)/[a-zA-Z0-9_./-]*)`").FindAllStringSubmatch(string(page), -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			t.Errorf("ARCHITECTURE.md names %s, which is not there", m[1])
		}
	}
}

// TestEveryDependencyHasAReason: docs/dependencies.md has a line for each direct
// requirement of go.mod, and for no other.
func TestEveryDependencyHasAReason(t *testing.T) {
	root := filepath.Join("..", "..")
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t([^\s]+) v[^\s]+$`).FindAllStringSubmatch(string(mod), -1) {
		direct[m[1]] = true
		if !strings.Contains(string(page), "| `"+m[1]+"` |") {
			t.Errorf("docs/dependencies.md does not say why %s is there", m[1])
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		if !direct[m[1]] {
			t.Errorf("docs/dependencies.md tells of %s, which is no direct requirement", m[1])
		}
	}
}
