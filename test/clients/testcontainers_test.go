//go:build root

package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestTestcontainers runs test/clients/testcontainers, a module of its own, on
// a daemon. It does not reach out for modules: scripts/clients.sh fetches them.
func TestTestcontainers(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "testcontainers.test")
	cmd := exec.Command("go", "test", "-c", "-o", bin, ".")
	cmd.Dir = "testcontainers"
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("testcontainers-go is not here (scripts/clients.sh fetches it): %v\n%s", err, last(string(out), 300))
	}
	d := harness.Start(t)
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["sh"]`, "-", "img:1")
	r := d.Try("", "env", "TESTCONTAINERS_RYUK_DISABLED=true", "SKIFF_TEST_IMAGE=img:1", bin, "-test.v", "-test.count=1")
	if r.Code != 0 {
		t.Errorf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	want(t, "what is left", d.Run("docker", "ps", "-aq"), "")
}
