//go:build root

package parity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestParity plays each script on both daemons. DOCKERD picks dockerd; SHOW=1
// prints what it answered.
func TestParity(t *testing.T) {
	dockerd := os.Getenv("DOCKERD")
	if dockerd == "" {
		dockerd, _ = exec.LookPath("dockerd")
	}
	if _, err := os.Stat(dockerd); err != nil {
		t.Skipf("no dockerd to compare with (%q): DOCKERD=path names one", dockerd)
	}
	if !harness.HaveDocker() {
		t.Skip("docker's command line is not here")
	}
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts (%v)", err)
	}
	table, err := parseExpected("testdata/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	docker, skiff := startDocker(t, dockerd), startSkiff(t)
	show := os.Getenv("SHOW") != ""
	played, steps, found := 0, 0, 0
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".txt")
		t.Run(name, func(t *testing.T) {
			script, err := parseScript(f)
			if err != nil {
				t.Fatal(err)
			}
			played, steps = played+1, steps+len(script)
			x, y := both(t, docker, skiff, script)
			for i, s := range script {
				if show {
					t.Logf("%s\n%d %s\n%s", s.text, x[i].code, x[i].stdout, x[i].stderr)
				}
				for _, d := range compare(docker, skiff, s, x[i], y[i]) {
					d.script = name
					found++
					if !explained(table, d) {
						t.Error(d)
					}
				}
			}
		})
	}
	t.Logf("%d scripts, %d steps, %d differences", played, steps, found)
	if played < len(files) {
		return // some were asked for
	}
	for _, x := range unused(table) {
		t.Errorf("testdata/differences.txt:%d: this did not differ", x.line)
	}
	if !t.Failed() {
		harness.Section(t, filepath.Join("..", "..", "docs", "compat.md"), "parity", documentOf(table, played, steps))
	}
}

// explained finds the first line of the table that knows the difference.
func explained(table []*expectation, d difference) bool {
	for _, x := range table {
		if x.explains(d) {
			return true
		}
	}
	return false
}
