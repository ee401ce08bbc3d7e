package apiserver

import (
	"os/exec"
	"path/filepath"
	"testing"
)

func TestDockerPy(t *testing.T) {
	if err := exec.Command("python3", "-c", "import docker").Run(); err != nil {
		t.Skip("no docker-py here")
	}
	_, socket := listen(t, newFake())
	out, err := exec.CommandContext(t.Context(), "python3", filepath.Join("testdata", "docker_py.py"), "unix://"+socket).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
