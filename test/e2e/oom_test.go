//go:build root

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// A child that is killed for want of memory is told of at once, though the
// container runs on; by the next daemon, if none was there.
func TestOOMOfAChild(t *testing.T) {
	d := daemon(t)
	since := fmt.Sprint(time.Now().Add(-time.Second).Unix())
	told := func(want string) {
		t.Helper()
		harness.Eventually(t, 10*time.Second, func() string {
			got := d.Run("docker", "events", "--since", since, "--until", fmt.Sprint(time.Now().Add(time.Second).Unix()),
				"--filter", "event=oom", "--format", "{{.Action}} {{.Actor.Attributes.name}}")
			if got != want {
				return fmt.Sprintf("events %q, want %q", got, want)
			}
			return ""
		})
	}
	killed := func(name, want string) {
		t.Helper()
		if got := d.Run("docker", "inspect", "-f", "{{.State.OOMKilled}} {{.State.Status}}", name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	const use = "dd if=/dev/zero of=/dev/null bs=64M count=1"
	d.Run("docker", "run", "-d", "--name", "one", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "while ! rm /go 2>/dev/null; do sleep 0.05; done; "+use+"; sleep 1000")
	killed("one", "false running")
	d.Run("docker", "exec", "one", "touch", "/go")
	told("oom one")
	killed("one", "true running")
	d.Try("", "docker", "exec", "one", "sh", "-c", use)
	told("oom one\noom one")

	d.Run("docker", "run", "-d", "--rm", "--name", "two", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "sleep 2; "+use+"; sleep 1000")
	d.Kill()
	time.Sleep(4 * time.Second)
	d.Launch()
	harness.Eventually(t, 10*time.Second, func() string {
		if s := d.Run("docker", "inspect", "-f", "{{.State.OOMKilled}}", "two"); s != "true" {
			return "OOMKilled: " + s
		}
		return ""
	})
	told("oom two") // an event is not kept for the next daemon; of the first it is known
	killed("one", "true running")
	d.Run("docker", "kill", "one")
	d.Run("docker", "wait", "one")
	killed("one", "true exited")
	told("oom two")
	d.Run("docker", "start", "one")
	killed("one", "false running")
	told("oom two")
	d.Run("docker", "rm", "-f", "one", "two")
}
