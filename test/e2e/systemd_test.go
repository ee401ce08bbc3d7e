//go:build root

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// Each was missed about every second time without what keeps the scope.
const oomTries = 5

// Containers as scopes of systemd's: `SYSTEMD=1 make test-vm` has one.
func TestSystemdCgroups(t *testing.T) {
	if comm, err := os.ReadFile("/proc/1/comm"); err != nil || strings.TrimSpace(string(comm)) != "systemd" {
		t.Skip("systemd is not the first process here: SYSTEMD=1 make test-vm has it")
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Skip("this host has control groups of version 1")
	}
	slice := fmt.Sprintf("skifftest%d.slice", os.Getpid())
	d := harness.Start(t, "--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", slice)
	d.CgroupParent = "/" + slice
	d.Busybox()
	group := func(name string) string {
		return "/sys/fs/cgroup/" + slice + "/skiff-" + d.Run("docker", "inspect", "-f", "{{.Id}}", name) + ".scope/container"
	}
	file := func(dir, name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(data))
	}
	systemctl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("systemctl", args...).CombinedOutput()
		if err != nil {
			t.Errorf("systemctl %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	gone := func(dir string) {
		t.Helper()
		dir = filepath.Dir(dir)
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	want(t, "info", d.Run("docker", "info", "-f", "{{.CgroupDriver}} {{.CgroupVersion}}"), "systemd 2")

	t.Run("limits survive a reload", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "lim", "-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5",
			"-c", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "50", "--device-write-bps", "/dev/vda:1mb",
			"--cap-drop", "MKNOD", "busybox", "sleep", "1000")
		dir := group("lim")
		limits := map[string]string{
			"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "33554432", "cpu.max": "50000 100000",
			"cpu.weight": "59", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "50",
		}
		compare := func(when string) {
			t.Helper()
			for name, value := range limits {
				want(t, name+" "+when, file(dir, name), value)
			}
			if got := file(dir, "io.max"); !strings.Contains(got, "wbps=1048576") {
				t.Errorf("io.max %s: %q", when, got)
			}
		}
		compare("at start")
		systemctl("daemon-reload")
		compare("after a reload")
		unit := filepath.Base(filepath.Dir(dir))
		want(t, "properties", systemctl("show", "-P", "MemoryMax", "-P", "TasksMax", "-P", "Delegate", unit), "yes\n67108864\n51") // and what keeps the scope
		d.Run("docker", "update", "-m", "128m", "--memory-swap", "-1", "--cpus", "2", "-c", "1024", "--pids-limit", "30", "lim")
		for name, value := range map[string]string{
			"memory.max": "134217728", "memory.swap.max": "max", "cpu.max": "200000 100000", "cpu.weight": "100", "pids.max": "30",
		} {
			limits[name] = value
		}
		compare("after an update")
		systemctl("daemon-reload")
		compare("after an update and a reload")
		want(t, "group inside", d.Run("docker", "exec", "lim", "cat", "/proc/self/cgroup"), "0::/")
		if top := d.Run("docker", "top", "lim"); strings.Count(top, "\n") != 1 {
			t.Errorf("more than the command runs: %s", top)
		}
		d.Run("docker", "rm", "-f", "lim")
		gone(dir)
	})
	t.Run("devices survive a reload", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "dev", "busybox", "sleep", "1000")
		systemctl("daemon-reload")
		if r := d.Try("", "docker", "exec", "dev", "sh", "-c", "mknod /k c 10 200; : < /k"); !strings.Contains(r.Stderr, "not permitted") {
			t.Errorf("a device is open to it: %q", r.Stderr)
		}
		d.Run("docker", "restart", "-t", "0", "dev")
		d.Run("docker", "rm", "-f", "dev")
	})
	t.Run("pause", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "pau", "busybox", "sleep", "1000")
		dir := group("pau")
		d.Run("docker", "pause", "pau")
		systemctl("daemon-reload")
		if got := file(dir, "cgroup.events"); !strings.Contains(got, "frozen 1") {
			t.Error(got)
		}
		d.Run("docker", "unpause", "pau")
		want(t, "statistics", d.Run("docker", "stats", "--no-stream", "--format", "{{.PIDs}}", "pau"), "1")
		d.Run("docker", "pause", "pau")
		d.Run("docker", "rm", "-f", "pau")
		gone(dir)
	})
	t.Run("few processes", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "few", "--pids-limit", "1", "busybox", "sleep", "1000")
		dir := group("few")
		systemctl("daemon-reload")
		want(t, "pids.max", file(dir, "pids.max"), "1")
		d.Run("docker", "rm", "-f", "few")
	})
	t.Run("slices", func(t *testing.T) {
		parent := strings.TrimSuffix(slice, ".slice") + "-deep.slice"
		d.Run("docker", "run", "-d", "--name", "par", "--cgroup-parent", parent, "busybox", "sleep", "1000")
		dir := strings.Replace(group("par"), slice, slice+"/"+parent, 1)
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
		d.Run("docker", "rm", "-f", "par")
		gone(dir)
		systemctl("stop", parent)
		r := d.Try("", "docker", "run", "--rm", "--cgroup-parent", "/x", "busybox", "true")
		if !strings.Contains(r.Stderr, `cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("killed for want of memory", func(t *testing.T) {
		for i := range oomTries {
			name := fmt.Sprint("oom", i)
			d.Try("", "docker", "run", "--name", name, "-m", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero")
			dir := group(name)
			want(t, "state", d.Run("docker", "inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", name), "137 true")
			d.Run("docker", "rm", name)
			gone(dir)
		}
		d.Try("", "docker", "run", "--name", "not", "-m", "16m", "busybox", "sh", "-c", "kill -9 $$")
		want(t, "another kill", d.Run("docker", "inspect", "-f", "{{.State.OOMKilled}}", "not"), "false")
		d.Run("docker", "rm", "not")
	})
	t.Run("killed for want of memory without a shim", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "alone", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c",
			"while [ ! -e /go ]; do sleep 0.1; done; exec tail /dev/zero")
		dir := group("alone")
		events := filepath.Join(dir, "memory.events")
		d.Run("docker", "exec", "alone", "sh", "-c", "(sleep 3; touch /go) &")
		d.KillShim()
		d.Kill()
		harness.Eventually(t, 60*time.Second, func() string {
			if data, err := os.ReadFile(events); err != nil || !strings.Contains(string(data), "oom_kill 1") {
				return fmt.Sprintf("%s %v", data, err)
			}
			return ""
		})
		d.Launch()
		want(t, "state", d.Run("docker", "inspect", "-f", "{{.State.Status}} {{.State.OOMKilled}}", "alone"), "exited true")
		d.Run("docker", "rm", "alone")
		gone(dir)
	})
	t.Run("failed starts", func(t *testing.T) {
		r := d.Try("", "docker", "run", "--rm", "busybox", "/nosuch")
		want(t, "code", fmt.Sprint(r.Code), "127")
	})
	t.Run("a dead shim and a dead daemon", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "liv", "-m", "32m", "busybox", "sleep", "1000")
		dir := group("liv")
		d.KillShim()
		d.Kill()
		d.Launch()
		harness.Eventually(t, 30*time.Second, func() string {
			r := d.Try("", "docker", "exec", "liv", "cat", "/proc/self/cgroup")
			if r.Code != 0 || r.Out() != "0::/" {
				return r.Stdout + r.Stderr
			}
			return ""
		})
		d.Run("docker", "update", "-m", "48m", "--memory-swap", "-1", "liv")
		systemctl("daemon-reload")
		want(t, "memory.max", file(dir, "memory.max"), "50331648")
		d.Run("docker", "rm", "-f", "liv")
		gone(dir)
	})
	t.Run("how long", func(t *testing.T) {
		start := time.Now()
		for range 5 {
			d.Run("docker", "run", "--rm", "busybox", "true")
		}
		t.Logf("a run takes %v", time.Since(start)/5)
	})
	if left := systemctl("list-units", "--all", "--no-legend", "skiff-*.scope"); left != "" {
		t.Errorf("units are left: %s", left)
	}
	systemctl("stop", slice)
}
