//go:build root

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// Checkpoints, where criu works on this kernel; otherwise, that it says why not.
func TestCheckpoint(t *testing.T) {
	d := daemon(t, "--experimental")
	d.Run("skiff", "run", "-d", "--name", "counter", "-h", "kept", "--restart", "always", "-v", "vol:/v", "-e", "A=b", "busybox", "sh", "-c",
		"echo kept > /v/now; i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done")
	want(t, "experimental", d.Run("skiff", "version", "-f", "{{.Server.Experimental}}"), "true")
	if r := d.Try("", "skiff", "checkpoint", "create", "counter", "../up"); r.Code == 0 || !strings.Contains(r.Stderr, "invalid checkpoint ID") {
		t.Errorf("a path as a name: %s", r.Stderr)
	}
	if r := d.Try("", "skiff", "start", "--checkpoint", "nosuch", "counter"); r.Code == 0 || !strings.Contains(r.Stderr, "checkpoint nosuch does not exist for container counter") && !strings.Contains(r.Stderr, "criu") {
		t.Errorf("a checkpoint that is not there: %s", r.Stderr)
	}
	program, err := exec.LookPath("criu")
	if err != nil {
		r := d.Try("", "skiff", "checkpoint", "create", "counter", "cp1")
		if r.Code == 0 || !strings.Contains(r.Stderr, "the program criu, which is not installed") {
			t.Errorf("without criu: %d %s", r.Code, r.Stderr)
		}
		t.Skip("criu is not installed")
	}
	if out, err := exec.Command(program, "check").CombinedOutput(); err != nil {
		r := d.Try("", "skiff", "checkpoint", "create", "counter", "cp1")
		if r.Code == 0 || !strings.Contains(r.Stderr, "criu dump failed: ") {
			t.Errorf("with a criu that does not work: %d %s", r.Code, r.Stderr)
		}
		want(t, "running on", d.Run("skiff", "inspect", "-f", "{{.State.Status}}", "counter"), "running")
		want(t, "none", d.Run("skiff", "checkpoint", "ls", "counter"), "CHECKPOINT NAME")
		t.Skipf("criu does not work on this kernel: %s", out)
	}
	checkpoints(t, d)
}

func checkpoints(t *testing.T, d *harness.Daemon) {
	last := func() int {
		n, _ := strconv.Atoi(d.Run("skiff", "logs", "-n", "1", "counter"))
		return n
	}
	goesOn := func(from int) {
		t.Helper()
		harness.Eventually(t, 10*time.Second, func() string {
			if n := last(); n <= from {
				return "it stands still at " + strconv.Itoa(n)
			}
			return ""
		})
	}
	goesOn(5)
	want(t, "one that goes on", d.Run("skiff", "checkpoint", "create", "--leave-running", "counter", "early"), "early")
	early := last()
	goesOn(early)
	dir := t.TempDir()
	d.Run("skiff", "checkpoint", "create", "--checkpoint-dir", dir, "counter", "cp1")
	want(t, "ended", d.Run("skiff", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "counter"), "exited 137 0")
	want(t, "list", d.Run("skiff", "checkpoint", "ls", "counter"), "CHECKPOINT NAME\nearly")
	want(t, "list of the directory", d.Run("skiff", "checkpoint", "ls", "--checkpoint-dir", dir, "counter"), "CHECKPOINT NAME\ncp1")
	if r := d.Try("", "skiff", "checkpoint", "create", "counter", "cp2"); r.Code == 0 || !strings.Contains(r.Stderr, "is not running") {
		t.Errorf("of one that has ended: %s", r.Stderr)
	}
	at := last()
	d.Run("skiff", "start", "--checkpoint-dir", dir, "--checkpoint", "cp1", "counter")
	goesOn(at)
	if lines := strings.Fields(d.Run("skiff", "logs", "counter")); lines[at] != strconv.Itoa(at+1) {
		t.Errorf("after %d comes %s", at, lines[at])
	}
	want(t, "exec", d.Run("skiff", "exec", "counter", "sh", "-c", "hostname; grep -c ' /v ' /proc/mounts; ls /sys/class/net | tr '\\n' ' '"), "kept\n1\neth0 lo")
	want(t, "pids", d.Run("skiff", "exec", "counter", "sh", "-c", "grep -c -E '^0::/$|pids:/$' /proc/self/cgroup | sed 's/[12]/in its own/'"), "in its own")
	now, err := os.ReadFile(filepath.Join(d.DataRoot, "volumes/vol/_data/now"))
	if err != nil || string(now) != "kept\n" {
		t.Errorf("volume: %q, %v", now, err)
	}
	d.Run("skiff", "stop", "-t", "1", "counter")
	d.Run("skiff", "start", "--checkpoint", "early", "counter")
	goesOn(0)
	if r := d.Try("", "skiff", "checkpoint", "create", "--leave-running", "counter", "early"); r.Code == 0 || !strings.Contains(r.Stderr, "already exists") {
		t.Errorf("a name twice: %s", r.Stderr)
	}
	d.Run("skiff", "checkpoint", "rm", "counter", "early")
	if r := d.Try("", "skiff", "checkpoint", "rm", "counter", "early"); r.Code == 0 || !strings.Contains(r.Stderr, "does not exist") {
		t.Errorf("removed twice: %s", r.Stderr)
	}
	// The daemon is killed; what was restored is still watched.
	d.Kill()
	d.Launch()
	goesOn(last())
	d.Run("skiff", "rm", "-f", "counter")
	d.Run("skiff", "volume", "rm", "vol")
}

func TestCheckpointsNeedExperimental(t *testing.T) {
	d := daemon(t)
	d.Run("skiff", "run", "-d", "--name", "box", "busybox", "sleep", "1000")
	if r := d.Try("", "skiff", "checkpoint", "create", "box", "cp1"); r.Code == 0 || !strings.Contains(r.Stderr, "experimental feature is disabled by default") {
		t.Errorf("create: %s", r.Stderr)
	}
	d.Run("skiff", "kill", "box")
	if r := d.Try("", "skiff", "start", "--checkpoint", "cp1", "box"); r.Code == 0 || !strings.Contains(r.Stderr, "only supported in experimental mode") {
		t.Errorf("start: %s", r.Stderr)
	}
}
