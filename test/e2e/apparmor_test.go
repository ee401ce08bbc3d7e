//go:build root

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestAppArmor(t *testing.T) {
	if data, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || data[0] != 'Y' {
		t.Skip("AppArmor is not enabled here: make test-vm has it")
	}
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		t.Skip("no apparmor_parser")
	}
	d := daemon(t)
	const label = "cat /proc/self/attr/current"
	run := func(args ...string) string {
		return d.Run("docker", append(append([]string{"run", "--rm"}, args...), "busybox", "sh", "-c", label)...)
	}
	want(t, "default", run(), "skiff-default (enforce)")
	want(t, "docker's name", run("--security-opt", "apparmor=docker-default"), "skiff-default (enforce)")
	want(t, "with no new privileges", run("--security-opt", "no-new-privileges", "-u", "33"), "skiff-default (enforce)")
	want(t, "with a reaper", run("--init"), "skiff-default (enforce)")
	want(t, "switched off", run("--security-opt", "apparmor=unconfined"), "unconfined")
	want(t, "privileged", run("--privileged"), "unconfined")
	if info := d.Run("docker", "info", "-f", "{{.SecurityOptions}}"); !strings.Contains(info, "name=apparmor") {
		t.Error(info)
	}

	d.Run("docker", "run", "-d", "--name", "box", "--cap-add", "SYS_ADMIN", "busybox", "sleep", "1000")
	want(t, "inspect", d.Run("docker", "inspect", "-f", "{{.AppArmorProfile}}", "box"), "skiff-default")
	want(t, "exec", d.Run("docker", "exec", "box", "sh", "-c", label), "skiff-default (enforce)")
	want(t, "privileged exec", d.Run("docker", "exec", "--privileged", "box", "sh", "-c", label), "unconfined")
	if r := d.Try("", "docker", "exec", "box", "mount", "-t", "tmpfs", "x", "/mnt"); r.Code == 0 {
		t.Error("mounts, though the profile says no")
	}
	want(t, "signals inside", d.Run("docker", "exec", "box", "sh", "-c", "sleep 100 & kill $! && ps >/dev/null && echo ok"), "ok")
	d.Run("docker", "stop", "-t", "1", "box")
	d.Run("docker", "run", "-d", "--name", "reaped", "--init", "busybox", "sleep", "1000")
	want(t, "the reaper", d.Run("docker", "exec", "reaped", "cat", "/proc/1/attr/current"), "skiff-default (enforce)")
	want(t, "a signal to the reaper", d.Run("docker", "exec", "reaped", "sh", "-c", "kill -0 1 && echo ok"), "ok")
	d.Try("", "docker", "exec", "reaped", "kill", "-TERM", "1") // which may go down with it
	want(t, "its end", d.Run("docker", "wait", "reaped"), "143")
	d.Run("docker", "rm", "reaped")
	d.Run("docker", "rm", "box")
	want(t, "mount without it", d.Run("docker", "run", "--rm", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined", "busybox",
		"sh", "-c", "mkdir -p /mnt; mount -t tmpfs x /mnt && echo ok"), "ok")
	d.Run("docker", "run", "--rm", "busybox", "sh", "-c", "! echo 1 > /proc/sys/kernel/panic") // harmless: read-only too
	shm := d.Run("docker", "run", "--rm", "--sysctl", "kernel.shmmax=123456", "busybox", "cat", "/proc/sys/kernel/shmmax")
	want(t, "a parameter of its own", shm, "123456")

	if r := d.Try("", "docker", "run", "--rm", "--security-opt", "apparmor=nosuch", "busybox", "true"); r.Code == 0 || !strings.Contains(r.Stderr, `apparmor profile "nosuch" is not loaded`) {
		t.Errorf("a profile that is not there: %d %s", r.Code, r.Stderr)
	}
	own := exec.Command("apparmor_parser", "--replace", "--skip-cache")
	own.Stdin = strings.NewReader("profile skiff-test-own flags=(attach_disconnected) { file, network, capability, deny /etc/passwd r, }\n")
	if out, err := own.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		rm := exec.Command("apparmor_parser", "--remove")
		rm.Stdin = strings.NewReader("profile skiff-test-own flags=(attach_disconnected) { }\n")
		if out, err := rm.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	want(t, "a profile of one's own", run("--security-opt", "apparmor=skiff-test-own"), "skiff-test-own (enforce)")

	built := d.RunIn("FROM busybox\nRUN cat /proc/self/attr/current > /label\n", "docker", "build", "-q", "-")
	want(t, "a build step", d.Run("docker", "run", "--rm", built, "cat", "/label"), "skiff-default (enforce)")
}
