//go:build root

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

func TestDaemonCrash(t *testing.T) {
	d := daemon(t)
	d.Run("docker", "network", "create", "mynet")
	d.Run("docker", "run", "-d", "--name", "counter", "--log-driver", "json-file", "busybox", "sh", "-c",
		"i=0; while [ ! -e /enough ]; do i=$((i+1)); echo line $i; usleep 1000; done; echo all $i; exec sleep 1000")
	d.Run("docker", "run", "-d", "--name", "web", "-h", "webhost", "--network", "mynet", "-p", "127.0.0.1:18090:80", "busybox", "sh", "-c", httpd)
	d.Run("docker", "run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "1.5")
	d.Run("docker", "run", "-d", "--rm", "--name", "auto", "busybox", "sleep", "1000")
	d.Run("docker", "run", "-d", "--name", "coded", "busybox", "sh", "-c", "sleep 1; exit 5")
	d.Run("docker", "run", "-d", "--name", "again", "--restart", "always", "busybox", "sh", "-c", "sleep 1; exit 1")
	d.Run("docker", "create", "--name", "made", "busybox", "echo", "made")
	fetch(t, "http://127.0.0.1:18090/")
	before := d.Run("docker", "inspect", "-f", "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}", "counter", "web", "auto")

	d.Kill()
	want(t, "published port without a daemon", fetch(t, "http://127.0.0.1:18090/"), "webhost\n")
	time.Sleep(2 * time.Second) // brief, coded and again end while nobody watches
	d.Launch()

	want(t, "same containers", d.Run("docker", "inspect", "-f", "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}", "counter", "web", "auto"), before)
	want(t, "exit code learnt late", d.Run("docker", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "coded"), "exited 5")
	harness.Eventually(t, 5*time.Second, func() string {
		if r := d.Try("", "docker", "inspect", "brief"); r.Code == 0 {
			return "a --rm container that ended meanwhile is still there"
		}
		return ""
	})
	harness.Eventually(t, 10*time.Second, func() string {
		if n := d.Run("docker", "inspect", "-f", "{{.RestartCount}}", "again"); n == "0" {
			return "restart=always did not come back"
		}
		return ""
	})
	want(t, "page", fetch(t, "http://127.0.0.1:18090/"), "webhost\n")
	want(t, "name service", d.Run("docker", "run", "--rm", "--network", "mynet", "busybox", "timeout", "3", "wget", "-qO-", "http://web/"), "webhost")
	want(t, "exec", d.Run("docker", "exec", "web", "echo", "alive"), "alive")
	want(t, "created one starts", d.Run("docker", "start", "-a", "made"), "made")
	d.Run("docker", "exec", "counter", "touch", "/enough")
	count := ""
	harness.Eventually(t, 30*time.Second, func() string {
		last := d.Run("docker", "logs", "-n", "1", "counter")
		var done bool
		if count, done = strings.CutPrefix(last, "all "); !done {
			return "the counter is at " + last
		}
		return ""
	})
	lines := strings.Split(d.Run("docker", "logs", "counter"), "\n")
	if n := len(lines) - 1; fmt.Sprint(n) != count {
		t.Errorf("%d lines, not %s", n, count)
	}
	for i, l := range lines[:len(lines)-1] {
		if l != fmt.Sprintf("line %d", i+1) {
			t.Fatalf("line %d is %q", i+1, l)
		}
	}
	d.Run("docker", "stop", "-t", "1", "counter")
	want(t, "stopped", d.Run("docker", "inspect", "-f", "{{.State.Status}}", "counter"), "exited")
	d.Run("docker", "rm", "-f", "counter", "web", "auto", "coded", "again", "made")
	d.Run("docker", "network", "rm", "mynet")
}

func TestTerminateLeavesContainers(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "run", "-d", "busybox", "sleep", "1000")
	pid := d.Run("docker", "inspect", "-f", "{{.State.Pid}}", id)
	d.Terminate()
	d.Run("kill", "-0", pid)
	d.Launch()
	want(t, "pid", d.Run("docker", "inspect", "-f", "{{.State.Pid}}", id), pid)
	d.Run("docker", "rm", "-f", id)
}

// TestShimCrash ends a container whose shim was killed: the code is known from
// Linux 6.15 on, and said to be unknown before.
func TestShimCrash(t *testing.T) {
	d := daemon(t)
	d.Run("docker", "run", "-d", "--name", "box", "busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; exit 5")
	d.KillShim()
	harness.Eventually(t, 30*time.Second, func() string {
		r := d.Try("", "docker", "exec", "box", "touch", "/go")
		if r.Code != 0 && d.Run("docker", "inspect", "-f", "{{.State.Running}}", "box") == "true" {
			return r.Stderr
		}
		return ""
	})
	harness.Eventually(t, 30*time.Second, func() string {
		return strings.TrimPrefix(d.Run("docker", "inspect", "-f", "{{.State.Status}}", "box"), "exited")
	})
	state := d.Run("docker", "inspect", "-f", "{{.State.ExitCode}} {{.State.Error}}", "box")
	told := state == "5"
	if !told && !strings.HasPrefix(state, "255 the exit status is unknown") {
		t.Errorf("it ends as %q", state)
	}
	t.Logf("the kernel tells: %v", told)
	d.Run("docker", "start", "box")
	d.Run("docker", "rm", "-f", "box")
}

func TestSecondDaemonIsRefused(t *testing.T) {
	d := daemon(t)
	r := d.Try("", harness.Bin(t, "skiffd"), "--data-root", d.DataRoot, "--exec-root", d.ExecRoot, "--config-file", "/dev/null")
	if r.Code == 0 || !strings.Contains(r.Stderr, "already running") {
		t.Errorf("%d %s", r.Code, r.Stderr)
	}
	want(t, "the first still answers", d.Run("docker", "ps", "-q"), "")
}

// The daemon is killed at many moments of many verbs; afterwards everything it
// acknowledged is there, and nothing else.
func TestKilledInTheMiddle(t *testing.T) {
	d := daemon(t)
	for i := range 8 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for j := range 4 {
				name := fmt.Sprintf("k%d-%d", i, j)
				d.Try("", "docker", "run", "-d", "--name", name, "-v", "/data", "-p", "80", "busybox", "sleep", "1000")
				d.Try("", "docker", "rm", "-fv", name)
			}
		}()
		time.Sleep(time.Duration(60+i*45) * time.Millisecond)
		d.Kill()
		<-done
		d.Launch()
		for _, id := range strings.Fields(d.Run("docker", "ps", "-aq")) {
			d.Run("docker", "rm", "-fv", id)
		}
	}
	want(t, "volumes", d.Run("docker", "volume", "ls", "-q"), "")
	want(t, "still works", d.Run("docker", "run", "--rm", "busybox", "echo", "hi"), "hi")
}

func TestManyAtOnce(t *testing.T) {
	d := daemon(t)
	const n = 24
	errs := make(chan string, n)
	for i := range n {
		go func() {
			r := d.Try("", "docker", "run", "--rm", "busybox", "echo", fmt.Sprint(i))
			if r.Code != 0 || r.Out() != fmt.Sprint(i) {
				errs <- fmt.Sprintf("%d: %d %q %s", i, r.Code, r.Stdout, r.Stderr)
				return
			}
			errs <- ""
		}()
	}
	for range n {
		if e := <-errs; e != "" {
			t.Error(e)
		}
	}
}
