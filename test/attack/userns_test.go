//go:build root

package attack

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// Root of a user namespace that sees the host's file system, or that got out of
// its container altogether, must not reach the engine's files: it could put
// something in there that others run as root.
func TestCVE_2021_21284_RemappedRoot(t *testing.T) {
	const root = 1000000
	harness.Subordinate(t, "dockremap:1000000:65536\n")
	d := daemon(t, "--userns-remap=dockremap")
	d.Run("docker", "volume", "create", "kept")
	d.Run("docker", "run", "-d", "--name", "victim", "-v", "kept:/v", "busybox", "sleep", "1000")
	defer d.Run("docker", "rm", "-f", "victim")

	// The way is open as far as the engine's own directory: those above are the test's.
	if err := os.Chmod(d.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	upper := filepath.Join("containers", d.Run("docker", "inspect", "-f", "{{.Id}}", "victim"), "upper")
	script := "for p in . store containers volumes/kept/_data " + upper + "; do ls $1/$p && echo SEEN $p; touch $1/$p/planted && echo WRITTEN $p; done 2>/dev/null; echo tried; ls $2 >/dev/null && echo reached"
	check := func(who, out string) {
		t.Helper()
		if !strings.Contains(out, "tried") || !strings.Contains(out, "reached") {
			t.Errorf("%s did not come to try: %s", who, out)
		}
		if strings.Contains(out, "SEEN") || strings.Contains(out, "WRITTEN") {
			t.Errorf("%s reaches the engine's files: %s", who, out)
		}
	}
	check("a container", d.Try("", "docker", "run", "--rm", "-v", d.Dir+":/host", "busybox", "sh", "-c", script, "sh", "/host/data", "/host").Stdout)

	c := d.Cmd(t.Context(), "/bin/busybox", "sh", "-c", script, "sh", d.DataRoot, d.Dir)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: root, Gid: root}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	check("a process outside", string(out))
}
