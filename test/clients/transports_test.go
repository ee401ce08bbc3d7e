//go:build root

package clients

import (
	"os"
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

// TestPodmanCopies has podman copy images out of and into the daemon with the
// docker-daemon transport, which knows docker's own socket only and does not
// look at DOCKER_HOST. (podman's remote client speaks another API, libpod's, and
// to podman's service only.)
func TestPodmanCopies(t *testing.T) {
	needs(t, "podman")
	tmpfsOver(t, "/run")
	d := harness.Start(t)
	if err := os.Symlink(d.Sock, "/run/docker.sock"); err != nil {
		t.Fatal(err)
	}
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["echo", "copied"]`, "-c", "ENV PATH=/bin", "-", "img:1")
	policy := filepath.Join(d.Dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	// It asks for a file where DOCKER_CONFIG points; docker takes none for an empty one.
	config := filepath.Join(d.Dir, "docker-config")
	if err := os.MkdirAll(config, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	podman := func(args ...string) string {
		t.Helper()
		root := filepath.Join(d.Dir, "podman")
		return d.Run("podman", append([]string{
			"--root", root, "--runroot", root + "-run", "--tmpdir", root + "-tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
		}, args...)...)
	}
	podman("pull", "--signature-policy", policy, "docker-daemon:img:1")
	id := podman("images", "--no-trunc", "--format", "{{.ID}}")
	want(t, "the id of what was pulled", id, d.Run("docker", "inspect", "--format", "{{.Id}}", "img:1"))
	podman("push", "--signature-policy", policy, strings.TrimPrefix(id, "sha256:"), "docker-daemon:img:back")
	want(t, "the image that came back", d.Run("docker", "run", "--rm", "img:back"), "copied")
	podman("rmi", "-a", "-f")
}
