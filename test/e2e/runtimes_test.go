//go:build root

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// What works with the built-in launcher works with runc and crun.
func TestOtherRuntimes(t *testing.T) {
	for i, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("%s is not installed", name)
			}
			if name == "crun" { // it refuses hosts that have some controllers on each version
				_ = syscall.Mount("/dev/null", "/sys/fs/cgroup/unified/cgroup.controllers", "", syscall.MS_BIND, "")
			}
			otherRuntime(t, name, path, 18190+i)
		})
	}
}

func otherRuntime(t *testing.T, name, path string, port int) {
	d := daemon(t, "--add-runtime", "other="+path, "--add-runtime", "missing=/no/such/runtime")
	run := func(args ...string) harness.Result {
		return d.Try("", "docker", append([]string{"run", "--rm", "--runtime", "other"}, args...)...)
	}
	want(t, "output", run("busybox", "echo", "hi").Stdout, "hi\n")
	for code, args := range map[int][]string{
		7: {"busybox", "sh", "-c", "exit 7"}, 127: {"busybox", "nosuch"}, 126: {"busybox", "/etc"}, 137: {"busybox", "sh", "-c", "kill -9 $$"},
	} {
		if args[0] == "busybox" && code == 137 {
			args = []string{"--init", "busybox", "sh", "-c", "kill -9 $$"}
		}
		if r := run(args...); r.Code != code {
			t.Errorf("%v ends with %d, want %d: %s", args, r.Code, code, r.Stderr)
		}
	}
	want(t, "terminal", run("-t", "busybox", "tty").Stdout, "/dev/pts/0\r\n")
	want(t, "input", d.RunIn("in\n", "docker", "run", "--rm", "-i", "--runtime", "other", "busybox", "cat"), "in")
	want(t, "user", run("-u", "1234:5678", "busybox", "id", "-u").Stdout, "1234\n")
	d.Run("docker", "volume", "create", "vol")
	want(t, "volume", run("-v", "vol:/v", "busybox", "sh", "-c", "echo kept > /v/f; cat /v/f").Stdout, "kept\n")
	want(t, "volume again", run("-v", "vol:/v:ro", "busybox", "sh", "-c", "cat /v/f; touch /v/x 2>/dev/null || echo ro").Stdout, "kept\nro\n")
	memoryVolume(d, "memory")
	d.Run("docker", "run", "-d", "--name", "holder", "-v", "memory:/m", "busybox", "sleep", "1000")
	want(t, "volume in memory", run("-v", "memory:/v", "busybox", "sh", "-c", "echo here > /v/f").Stdout, "")
	want(t, "volume in memory, shared", d.Run("docker", "exec", "holder", "cat", "/m/f"), "here")
	d.Run("docker", "rm", "-f", "holder")
	d.Run("docker", "volume", "rm", "memory")
	if r := run("-m", "24m", "busybox", "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=60; tail /dev/zero"); r.Code == 0 {
		t.Error("memory is not limited")
	}

	d.Run("docker", "run", "-d", "--name", "web", "-h", "webhost", "--runtime", "other", "--restart", "always", "--health-cmd", "true", "--health-interval", "1s",
		"-p", fmt.Sprintf("127.0.0.1:%d:80", port), "busybox", "sh", "-c", "echo started; "+httpd)
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	want(t, "page", fetch(t, url), "webhost\n")
	want(t, "inspect", d.Run("docker", "inspect", "-f", "{{.HostConfig.Runtime}}", "web"), "other")
	want(t, "logs", d.Run("docker", "logs", "web"), "started")
	want(t, "exec", d.Run("docker", "exec", "-u", "12", "-e", "A=b", "-w", "/etc", "web", "sh", "-c", "id -u; echo $A; pwd"), "12\nb\n/etc")
	want(t, "exec code", fmt.Sprint(d.Try("", "docker", "exec", "web", "sh", "-c", "exit 9").Code), "9")
	if r := d.Try("", "docker", "exec", "web", "nosuch"); r.Code != 127 {
		t.Errorf("exec of nothing ends with %d: %s", r.Code, r.Stderr)
	}
	if out := d.Run("docker", "top", "web"); !strings.Contains(out, "httpd") && !strings.Contains(out, "nc") && !strings.Contains(out, "sh") {
		t.Errorf("top: %s", out)
	}
	if out := d.Run("docker", "stats", "--no-stream", "--format", "{{.PIDs}}", "web"); out == "0" || out == "" || out == "--" {
		t.Errorf("stats: %q", out)
	}
	d.Run("docker", "pause", "web")
	want(t, "paused", d.Run("docker", "inspect", "-f", "{{.State.Status}}", "web"), "paused")
	d.Run("docker", "unpause", "web")
	d.Run("docker", "update", "-m", "64m", "--memory-swap", "-1", "web")
	d.RunIn("copied", "docker", "exec", "-i", "web", "sh", "-c", "cat > /tmp/f")
	if out := d.Run("docker", "diff", "web"); !strings.Contains(out, "/tmp") {
		t.Errorf("diff: %s", out)
	}
	harness.Eventually(t, 10*time.Second, func() string {
		if s := d.Run("docker", "inspect", "-f", "{{.State.Health.Status}}", "web"); s != "healthy" {
			return "health is " + s
		}
		return ""
	})

	// The daemon and the shim are killed; the container stays.
	pid := d.Run("docker", "inspect", "-f", "{{.State.Pid}}", "web")
	d.Kill()
	want(t, "page without a daemon", fetch(t, url), "webhost\n")
	d.Launch()
	want(t, "pid", d.Run("docker", "inspect", "-f", "{{.State.Pid}}", "web"), pid)
	d.KillShim()
	harness.Eventually(t, 10*time.Second, func() string { // until the next one has taken over
		if r := d.Try("", "docker", "exec", "web", "echo", "alive"); r.Out() != "alive" {
			return "exec after the shim was killed: " + r.Stderr
		}
		return ""
	})
	want(t, "pid", d.Run("docker", "inspect", "-f", "{{.State.Pid}}", "web"), pid)
	d.Run("docker", "kill", "-s", "KILL", "web")
	d.Run("docker", "start", "web")
	want(t, "page after a restart", fetch(t, url), "webhost\n")
	d.Run("docker", "restart", "-t", "1", "web")
	want(t, "page after another", fetch(t, url), "webhost\n")
	d.Run("docker", "stop", "-t", "1", "web")
	d.Run("docker", "rm", "web")

	if r := d.Try("", "docker", "run", "--runtime", "nosuch", "busybox"); r.Code != 125 || !strings.Contains(r.Stderr, "unknown or invalid runtime name: nosuch") {
		t.Errorf("an unknown runtime: %d %s", r.Code, r.Stderr)
	}
	if r := d.Try("", "docker", "run", "--rm", "--runtime", "missing", "busybox"); r.Code != 125 || !strings.Contains(r.Stderr, "/no/such/runtime is not installed") {
		t.Errorf("a missing runtime: %d %s", r.Code, r.Stderr)
	}
	info := d.Run("docker", "info", "-f", "{{.DefaultRuntime}} {{range $k, $v := .Runtimes}}{{$k}}={{$v.Path}} {{end}}")
	want(t, "info", info, "skiff missing=/no/such/runtime other="+path+" skiff=skiff-shim")
}
