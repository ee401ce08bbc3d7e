//go:build root

package e2e

import (
	"os"
	"strings"
	"testing"
)

const realtimeFile = "/sys/fs/cgroup/cpu/cpu.rt_runtime_us"

// A container's group may run real-time tasks for as long as it was given, and
// the daemon's parent group hands that on.
func TestRealtime(t *testing.T) {
	if _, err := os.Stat(realtimeFile); err != nil {
		t.Skip("the kernel has no real-time limits of control groups:", err)
	}
	d := daemon(t, "--cpu-rt-period", "1000000", "--cpu-rt-runtime", "20000")
	fifo := []string{"-v", "/:/host:ro", "--cap-add", "SYS_NICE", "busybox", "/bin/busybox", "chroot", "/host", "chrt", "-f", "1", "true"}
	run := func(args ...string) []string { return append([]string{"run", "--rm"}, args...) }

	if r := d.Try("", "skiff", run(fifo...)...); r.Code == 0 {
		t.Error("a container that was given no real time ran a real-time task")
	}
	d.Run("skiff", run(append([]string{"--cpu-rt-runtime", "5000"}, fifo...)...)...)
	if got := d.Run("skiff", run("--cpu-rt-period", "500000", "--cpu-rt-runtime", "5000", "busybox", "/bin/busybox", "cat",
		realtimeFile, strings.Replace(realtimeFile, "runtime", "period", 1))...); got != "5000\n500000" {
		t.Errorf("limits: %q", got)
	}
	if r := d.Try("", "skiff", run("--cpu-rt-runtime", "30000", "busybox", "/bin/busybox", "true")...); r.Code != 125 ||
		!strings.Contains(r.Stderr, "cpu.rt_runtime_us") {
		t.Errorf("more than the parent has: %d %s", r.Code, r.Stderr)
	}

	// An update takes a period below the runtime of before.
	d.Run("skiff", "run", "-d", "--name", "late", "--cpu-rt-runtime", "10000", "busybox", "/bin/busybox", "sleep", "1000")
	d.Run("skiff", "update", "--cpu-rt-period", "4000", "--cpu-rt-runtime", "40", "late")
	if got := d.Run("skiff", "exec", "late", "/bin/busybox", "cat", realtimeFile); got != "40" {
		t.Errorf("after the update: %q", got)
	}
	if got := d.Run("skiff", "inspect", "-f", "{{.HostConfig.CpuRealtimePeriod}} {{.HostConfig.CpuRealtimeRuntime}}", "late"); got != "4000 40" {
		t.Errorf("inspect: %q", got)
	}
	d.Run("skiff", "rm", "-f", "late")
}
