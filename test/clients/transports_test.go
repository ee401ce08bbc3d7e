//go:build root

package clients

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestSkopeo copies images out of and into the daemon with skopeo's
// docker-daemon transport.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not here (package skopeo)")
	}
	d := harness.Start(t)
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["echo", "copied"]`, "-c", "ENV PATH=/bin", "-", "img:1")
	host := "unix://" + d.Sock
	policy := []string{"--insecure-policy"}
	skopeo := func(args ...string) string {
		t.Helper()
		return d.Run("skopeo", append(policy, args...)...)
	}
	oci := "oci:" + filepath.Join(d.Dir, "oci") + ":1"
	if got := skopeo("inspect", "--daemon-host", host, "docker-daemon:img:1"); !strings.Contains(got, `"Architecture": "amd64"`) {
		t.Errorf("inspect: %s", last(got, 500))
	}
	skopeo("copy", "--src-daemon-host", host, "docker-daemon:img:1", oci)
	skopeo("copy", "--dest-daemon-host", host, oci, "docker-daemon:img:back")
	want(t, "the image that came back", d.Run("docker", "run", "--rm", "img:back"), "copied")
	archive := "docker-archive:" + filepath.Join(d.Dir, "img.tar")
	skopeo("copy", "--src-daemon-host", host, "docker-daemon:img:1", archive+":img:archived")
	skopeo("copy", "--dest-daemon-host", host, archive, "docker-daemon:img:again")
	want(t, "through an archive", d.Run("docker", "run", "--rm", "img:again"), "copied")
}
