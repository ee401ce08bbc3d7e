//go:build root

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// What version 2 of control groups does its own way. Most machines that build
// have it, and `make test-vm` everywhere.
func TestControlGroups2(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Skip("this host has control groups of version 1: make test-vm has the others")
	}
	d := daemon(t)
	group := func(id string) string {
		return filepath.Join("/sys/fs/cgroup", d.CgroupParent, d.Run("docker", "inspect", "-f", "{{.Id}}", id))
	}
	sleeper := func(name string, args ...string) string {
		d.Run("docker", append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sleep", "1000")...)
		return group(name)
	}
	file := func(dir, name string) string { return d.Run("cat", filepath.Join(dir, name)) }

	t.Run("info", func(t *testing.T) {
		got := d.Run("docker", "info", "-f", "{{.CgroupVersion}} {{.CgroupDriver}} {{.MemoryLimit}} {{.SwapLimit}} {{.CPUCfsQuota}} {{.CPUSet}} {{.PidsLimit}}")
		want(t, "info", got, "2 cgroupfs true true true true true")
	})
	t.Run("limits", func(t *testing.T) {
		dir := sleeper("lim", "-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5", "-c", "512",
			"--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "50")
		for name, value := range map[string]string{
			"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "33554432", "cpu.max": "50000 100000",
			"cpu.weight": "59", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "50",
		} {
			want(t, name, file(dir, name), value)
		}
		want(t, "inside", d.Run("docker", "exec", "lim", "sh", "-c", "cat /sys/fs/cgroup/memory.max /proc/self/cgroup"), "67108864\n0::/")
		if r := d.Try("", "docker", "exec", "lim", "mkdir", "/sys/fs/cgroup/x"); r.Code == 0 {
			t.Error("the container writes its control group")
		}
		for _, step := range []struct{ args, file, value string }{
			{"-m 128m --memory-swap 256m", "memory.max", "134217728"},
			{"-m 48m --memory-swap 48m", "memory.swap.max", "0"},
			{"--memory-swap -1", "memory.swap.max", "max"},
			{"--cpus 2", "cpu.max", "200000 100000"},
			{"-c 1024", "cpu.weight", "100"},
			{"--pids-limit -1", "pids.max", "max"},
		} {
			d.Run("docker", append(append([]string{"update"}, strings.Fields(step.args)...), "lim")...)
			want(t, "after update "+step.args, file(dir, step.file), step.value)
		}
		d.Run("docker", "rm", "-f", "lim")
		if _, err := os.Stat(dir); err == nil {
			t.Error("the control group is left")
		}
	})
	t.Run("input and output", func(t *testing.T) {
		const disk = "/dev/vda"
		if _, err := os.Stat(disk); err != nil {
			t.Skip("no " + disk)
		}
		dir := sleeper("io", "--device-write-bps", disk+":1mb", "--device-read-iops", disk+":100")
		if got := file(dir, "io.max"); !strings.Contains(got, "wbps=1048576") || !strings.Contains(got, "riops=100") {
			t.Errorf("io.max: %q", got)
		}
		d.Run("docker", "rm", "-f", "io")
	})
	t.Run("pause", func(t *testing.T) {
		dir := sleeper("pau")
		d.Run("docker", "pause", "pau")
		if got := file(dir, "cgroup.events"); !strings.Contains(got, "frozen 1") {
			t.Error(got)
		}
		d.Run("docker", "unpause", "pau")
		if got := file(dir, "cgroup.events"); !strings.Contains(got, "frozen 0") {
			t.Error(got)
		}
		d.Run("docker", "pause", "pau")
		d.Run("docker", "rm", "-f", "pau") // a frozen one can be killed
	})
	t.Run("statistics", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "sta", "-m", "64m", "busybox", "sh", "-c", "sleep 1000 & while :; do :; done")
		harness.Eventually(t, 20*time.Second, func() string {
			got := d.Run("docker", "stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}} {{.CPUPerc}}", "sta")
			f := strings.Fields(got)
			if len(f) != 5 || f[0] != "2" || f[1] == "0B" || f[3] != "64MiB" || f[4] == "0.00%" {
				return got
			}
			return ""
		})
		d.Run("docker", "rm", "-f", "sta")
	})
	t.Run("devices", func(t *testing.T) {
		// Without a driver, an open that is allowed fails otherwise.
		const try = "mknod /k c 10 200; : < /k"
		for args, allowed := range map[string]bool{
			"": false, "--device-cgroup-rule|c 10:200 r": true, "--device-cgroup-rule|c 10:* w": false, "--privileged": true,
		} {
			a := []string{"run", "--rm"}
			if args != "" {
				a = append(a, strings.Split(args, "|")...)
			}
			r := d.Try("", "docker", append(a, "busybox", "sh", "-c", try)...)
			if strings.Contains(r.Stderr, "not permitted") == allowed {
				t.Errorf("%q: %q", args, r.Stderr)
			}
		}
	})
	t.Run("a container that splits its group", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--privileged", "--name", "nest", "busybox", "sh", "-c",
			"cd /sys/fs/cgroup && mkdir -p init/deep && echo 0 > init/cgroup.procs && echo +memory +pids > cgroup.subtree_control && touch /ready; exec sleep 1000")
		harness.Eventually(t, 10*time.Second, func() string { return d.Try("", "docker", "exec", "nest", "ls", "/ready").Stderr })
		want(t, "group of an exec", d.Run("docker", "exec", "nest", "cat", "/proc/self/cgroup"), "0::/init")
		if top := d.Run("docker", "top", "nest"); !strings.Contains(top, "sleep 1000") {
			t.Error(top)
		}
		want(t, "count", d.Run("docker", "stats", "--no-stream", "--format", "{{.PIDs}}", "nest"), "1")
		dir := group("nest")
		d.Run("docker", "restart", "-t", "0", "nest")
		d.Run("docker", "rm", "-f", "nest")
		if _, err := os.Stat(dir); err == nil {
			t.Error("the control group is left")
		}
	})
	t.Run("parent", func(t *testing.T) {
		d.Run("docker", "run", "-d", "--name", "par", "--cgroup-parent", d.CgroupParent+"/deep/er", "-m", "32m", "busybox", "sleep", "1000")
		id := d.Run("docker", "inspect", "-f", "{{.Id}}", "par")
		want(t, "limit", file(filepath.Join("/sys/fs/cgroup", d.CgroupParent, "deep/er", id), "memory.max"), "33554432")
		d.Run("docker", "rm", "-f", "par")
	})
	t.Run("the host's namespace", func(t *testing.T) {
		got := d.Run("docker", "run", "--rm", "--cgroupns", "host", "busybox", "cat", "/proc/self/cgroup")
		if !strings.HasPrefix(got, "0::"+d.CgroupParent+"/") {
			t.Error(got)
		}
	})
}
