//go:build root

package clients

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestDockerPy runs scripts that use docker's library for Python: what scripts
// do with its objects, and its API call by call. Each Python that has it runs
// them: Debian's is years older than what is newest.
func TestDockerPy(t *testing.T) {
	seen := map[string]bool{}
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.Command(python, "-c", "import docker; print(docker.__version__)").Output()
		if err != nil || seen[string(out)] {
			continue
		}
		seen[string(out)] = true
		t.Run("version "+string(out[:len(out)-1]), func(t *testing.T) { dockerPy(t, python) })
	}
	if len(seen) == 0 {
		t.Skip("python3 with the docker module is not here (package python3-docker)")
	}
}

func dockerPy(t *testing.T, python string) {
	reg := "127.0.0.1:" + freePort(t)
	d := harness.Start(t, "--registry", reg)
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["sh"]`, "-", "img")
	for _, args := range [][]string{{"docker_py.py", "img"}, {"docker_py_api.py", "img", reg}} {
		script, err := filepath.Abs(filepath.Join("testdata", args[0]))
		if err != nil {
			t.Fatal(err)
		}
		if r := d.Try("", python, append([]string{script}, args[1:]...)...); r.Code != 0 {
			t.Errorf("%s: exit code %d after:\n%s%s", args[0], r.Code, r.Stdout, r.Stderr)
		}
	}
}
