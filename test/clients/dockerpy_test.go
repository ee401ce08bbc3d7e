//go:build root

package clients

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestDockerPy runs a script that uses docker's library for Python.
func TestDockerPy(t *testing.T) {
	if err := exec.Command("python3", "-c", "import docker").Run(); err != nil {
		t.Skip("python3 with the docker module is not here (package python3-docker)")
	}
	d := harness.Start(t)
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["sh"]`, "-", "img")
	script, err := filepath.Abs(filepath.Join("testdata", "docker_py.py"))
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Try("", "python3", script, "img"); r.Code != 0 {
		t.Errorf("exit code %d after:\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
