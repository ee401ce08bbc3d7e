//go:build root

package attack

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// The container overwrites the program that enters it (as in 2019): while it is
// its own first process, by a command that is /proc/self/exe, by a loader that
// is, and while execs come in. That a program which runs cannot be written to
// proves nothing, as it ends: the attack must have it open, and find it sealed.
func TestCVE_2019_5736_SelfExe(t *testing.T) {
	d := daemon(t)
	image(t, d, "evil", []entry{
		{name: "bin/loader", link: "/proc/self/exe"},
		{name: "bin/hashbang", body: "#!/proc/self/exe\n"},
	})
	before := programs(t, d)
	sealed := func(t *testing.T, report string) {
		t.Helper()
		if !strings.Contains(report, "OPENED /memfd:skiff-shim") {
			t.Errorf("the attack never had the program open:\n%s", report)
		}
		if strings.Contains(report, "sealed false") || strings.Contains(report, "WROTE") {
			t.Errorf("the attack found a program that can be written to:\n%s", report)
		}
	}
	// AppArmor alone would keep it from looking at the launcher.
	for _, more := range [][]string{nil, {"--cap-add", "SYS_PTRACE", "--security-opt", "apparmor=unconfined"}} {
		t.Run(fmt.Sprint("init ", more), func(t *testing.T) {
			args := append(append([]string{"run", "--rm", "--init"}, more...), program(t, "reaper")...)
			sealed(t, d.Run("docker", append(args, "busybox", "/attack")...))
		})
		t.Run(fmt.Sprint("exec ", more), func(t *testing.T) {
			report := spyOnExecs(t, d, more, func(string) {})
			if more != nil {
				sealed(t, report)
			} else if strings.Contains(report, "OPENED") {
				t.Errorf("the launcher's program is open to all:\n%s", report)
			}
		})
	}
	t.Run("a command that is the program", func(t *testing.T) {
		sealed(t, spyOnExecs(t, d, nil, func(id string) {
			for _, cmd := range []string{"/proc/self/exe", "loader", "hashbang"} {
				for _, args := range [][]string{{"run", "--rm", "evil", cmd}, {"run", "--rm", "--pid", "container:" + id, "evil", cmd}} {
					if r := d.Try("", "docker", args...); r.Code == 0 {
						t.Errorf("%v succeeds: %q", args, r.Stdout)
					}
				}
			}
		}))
	})
	if after := programs(t, d); after != before {
		t.Errorf("the engine's programs were %s and are %s", before, after)
	}
	want(t, "it still runs containers", d.Run("docker", "run", "--rm", "busybox", "echo", "fine"), "fine")
}

// programs tells the program of the shim, and of its keeper, apart from a
// changed one.
func programs(t *testing.T, d *harness.Daemon) string {
	t.Helper()
	var out []string
	ents, _ := os.ReadDir("/proc")
	for _, e := range ents {
		cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if !strings.Contains(string(cmd), d.ExecRoot) || !strings.Contains(string(cmd), "shim") {
			continue
		}
		exe, err := os.ReadFile("/proc/" + e.Name() + "/exe")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%d bytes, sum %x", len(exe), sha256.Sum256(exe)))
	}
	if out = slices.Compact(out); len(out) != 1 {
		t.Fatalf("the programs of shim and keeper: %q", out)
	}
	return out[0]
}

// A process that waits for an exec to come in looks through it at the host: by
// its descriptors, its working directory, its root, or by tracing it.
func TestCVE_2016_9962_ExecSpied(t *testing.T) {
	d := daemon(t)
	report := spyOnExecs(t, d, nil, func(string) {})
	for line := range strings.Lines(report) {
		if strings.HasPrefix(line, "SAW") || strings.HasPrefix(line, "WROTE") || strings.HasPrefix(line, "TRACED") ||
			strings.HasPrefix(line, "program") || strings.HasPrefix(line, "OPENED") || strings.HasPrefix(line, "descriptor") {
			t.Errorf("the spy: %s", line)
		}
	}
	// It would see them if the kernel let it: this right is the one to trace what is
	// not dumpable.
	report = spyOnExecs(t, d, []string{"--cap-add", "SYS_PTRACE"}, func(string) {})
	for _, s := range []string{"SAW the host", "program /memfd:skiff-shim", "descriptor "} {
		if !strings.Contains(report, s) {
			t.Errorf("the spy is blind: no %q in\n%s", s, report)
		}
	}
}

// spyOnExecs lets a process of a container spy on all that enters it, while execs do,
// and whatever else enters it, and returns what it was able to see.
func spyOnExecs(t *testing.T, d *harness.Daemon, more []string, enter func(id string)) string {
	t.Helper()
	args := append([]string{"run", "-d"}, program(t, "spy")...)
	id := d.Run("docker", append(append(args, more...), "busybox", "/attack")...)
	defer d.Run("docker", "rm", "-f", id)
	harness.Eventually(t, waitLong, func() string {
		if d.Run("docker", "logs", id) == "" {
			return "the spy has not begun"
		}
		return ""
	})
	for range 12 {
		d.Run("docker", "exec", id, "true")
	}
	enter(id)
	report := d.Run("docker", "logs", id)
	if !strings.Contains(report, "met ") {
		t.Errorf("the spy met nobody:\n%s", report)
	}
	t.Log(report)
	return report
}

// The host's descriptors and directories stay outside: from a working directory
// that names one, in the image and at run and exec, and in what a process has.
func TestCVE_2024_21626_LeakedDescriptors(t *testing.T) {
	d := daemon(t)
	// The options of an overlay may tell, in old kernels, by which descriptors it was made.
	const list = "ls /proc/self/fd; cut -d ' ' -f 4,5 /proc/self/mountinfo | grep -c /proc/self/fd; pwd; ls -d ../../../../../../../../var/lib/dpkg"
	const clean = "0\n1\n2\n3\n0\n/" // 3 is the listing's own
	if _, err := os.Stat("/var/lib/dpkg/status"); err != nil {
		t.Fatalf("what the attack looks for is not on the host: %v", err)
	}
	run := d.Run("docker", "run", "-d", "busybox", "sh", "-c", list+"; exec sleep 1000")
	harness.Eventually(t, waitLong, func() string {
		if strings.Contains(d.Try("", "docker", "logs", run).Stderr, "dpkg") {
			return ""
		}
		return "the container has not looked yet"
	})
	want(t, "run", strings.TrimSpace(d.Try("", "docker", "logs", run).Stdout), clean)
	want(t, "exec", d.Try("", "docker", "exec", run, "sh", "-c", list).Out(), clean)
	want(t, "exec with a terminal", strings.ReplaceAll(d.Try("", "docker", "exec", "-t", run, "sh", "-c", "ls -1 /proc/self/fd").Out(), "\r", ""), "0\n1\n2\n3")
	for fd := 3; fd < 10; fd++ {
		dir := fmt.Sprintf("/proc/self/fd/%d", fd)
		for _, args := range [][]string{
			{"run", "--rm", "-w", dir, "busybox", "ls", "../../../../../var/lib/dpkg"},
			{"exec", "-w", dir, run, "ls", "../../../../../var/lib/dpkg"},
			{"exec", "-w", dir + "/../../../..", run, "ls", "var/lib/dpkg"},
		} {
			if r := d.Try("", "docker", args...); r.Code == 0 || strings.Contains(r.Stdout, "status") {
				t.Errorf("%v: %d %q", args, r.Code, r.Stdout)
			}
		}
	}
	image(t, d, "evil", []entry{{name: "cwd", link: "/proc/self/fd/8"}}, "WORKDIR /cwd")
	if r := d.Try("", "docker", "run", "--rm", "evil", "ls", "../../../../../var/lib/dpkg"); r.Code == 0 {
		t.Errorf("the image's working directory: %q", r.Stdout)
	}
	if r := d.Try("FROM busybox\nWORKDIR /proc/self/fd/8\nRUN ls ../../../../../var/lib/dpkg\n", "docker", "build", "-"); r.Code == 0 {
		t.Errorf("a build's working directory: %q", r.Stderr)
	}
}

// The files by which the kernel calls programs of the host's.
func TestHelpersOfTheKernel(t *testing.T) {
	d := daemon(t)
	paths := []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/sys/kernel/uevent_helper", "/proc/sysrq-trigger", "/proc/sys/fs/binfmt_misc/register"}
	before := readAll(paths)
	// What is written is what is there: a failing test does no harm, and neither
	// does the attack where it must work.
	script := "for m in /proc /proc/sys /proc/sysrq-trigger /sys; do mount -o remount,bind,rw $m && echo remounted $m; done;"
	for _, p := range paths {
		script += "if test -e " + p + "; then v=$(cat " + p + " || echo h); echo \"$v\" > " + p + " && echo wrote " + p + "; fi;"
	}
	script = "{ " + script + " true; } 2>/dev/null"
	want(t, "run", d.Try("", "docker", "run", "--rm", "busybox", "sh", "-c", script).Out(), "")
	id := d.Run("docker", "run", "-d", "busybox", "sleep", "1000")
	want(t, "exec", d.Try("", "docker", "exec", id, "sh", "-c", script).Out(), "")
	for _, args := range [][]string{{"--privileged"}, {"--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"}} {
		out := d.Run("docker", append(append([]string{"run", "--rm"}, args...), "busybox", "sh", "-c", script)...)
		if !strings.Contains(out, "remounted /proc/sys") && args[0] != "--privileged" || !strings.Contains(out, "wrote /proc/sys/kernel/core_pattern") {
			t.Errorf("the attack does not work with %v: %q", args, out)
		}
	}
	if after := readAll(paths); after != before {
		t.Errorf("they were\n%s\nand are\n%s", before, after)
	}
}

func readAll(paths []string) string {
	var out strings.Builder
	for _, p := range paths {
		b, err := os.ReadFile(p)
		fmt.Fprintln(&out, p, string(b), err)
	}
	return out.String()
}

// The system calls that such attacks are made of are not to be had by default:
// not by root, not by another, not in an exec.
func TestDefaultProfileForbids(t *testing.T) {
	d := daemon(t)
	p := program(t, "syscalls")
	for _, user := range []string{"root", "www"} {
		want(t, user, d.Run("docker", append(append([]string{"run", "--rm", "--user", user}, p...), "busybox", "/attack")...), "")
	}
	id := d.Run("docker", append(append([]string{"run", "-d"}, p...), "busybox", "sleep", "1000")...)
	want(t, "exec", d.Run("docker", "exec", id, "/attack"), "")
	if open := d.Run("docker", append(append([]string{"run", "--rm", "--privileged"}, p...), "busybox", "/attack")...); !strings.Contains(open, "unshare mount: 0") {
		t.Errorf("a privileged container is not: %q", open)
	}
}

// With the host's namespace of control groups, they are read-only too.
func TestCVE_2023_25809_CgroupsAreReadOnly(t *testing.T) {
	d := daemon(t)
	const script = "grep -E ' - cgroup2? ' /proc/self/mountinfo | grep -v ' ro,'; for g in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $g/x 2>/dev/null && echo made $g/x && rmdir $g/x; done; true"
	for _, ns := range []string{"private", "host"} {
		want(t, ns, d.Run("docker", "run", "--rm", "--cgroupns", ns, "busybox", "sh", "-c", script), "")
		if out := d.Run("docker", "run", "--rm", "--cgroupns", ns, "--privileged", "busybox", "sh", "-c", script); !strings.Contains(out, " rw,") || !strings.Contains(out, "made /sys/fs/cgroup") {
			t.Errorf("%s: the attack does not work with --privileged: %q", ns, out)
		}
	}
}

// Kernel parameters that are the host's, by name, by a value that says more, or
// by a name that leads elsewhere.
func TestCVE_2022_0811_Sysctls(t *testing.T) {
	d := daemon(t)
	paths := []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/shm_rmid_forced", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/hostname"}
	before := readAll(paths)
	for _, kv := range []string{
		"kernel.core_pattern=|/evil",
		"kernel.shm_rmid_forced=1+kernel.core_pattern=|/evil #",
		"kernel.shm_rmid_forced=1\nkernel.core_pattern=|/evil",
		"kernel.shm_rmid_forced+kernel.core_pattern=|/evil",
		"net.ipv4.ip_forward=1+kernel.core_pattern=|/evil",
		"net/../kernel/core_pattern=|/evil",
		"net.ipv4/../../kernel/core_pattern=|/evil",
		"net.ipv4.conf.all..../../kernel.core_pattern=|/evil",
		"fs.mqueue/../../kernel/core_pattern=|/evil",
		"kernel.shmmax/../core_pattern=|/evil",
		"kernel/shm_rmid_forced/../core_pattern=|/evil",
		"vm.overcommit_memory=1",
		"kernel.hostname=evil",
	} {
		if r := d.Try("", "docker", "run", "--rm", "--sysctl", kv, "busybox", "cat", "/proc/sys/kernel/core_pattern"); r.Code == 0 {
			t.Errorf("%q is taken: %q", kv, r.Stdout)
		}
	}
	if after := readAll(paths); after != before {
		t.Errorf("they were\n%s\nand are\n%s", before, after)
	}
	want(t, "one of the container's own", d.Run("docker", "run", "--rm", "--sysctl", "kernel.shm_rmid_forced=1", "busybox", "cat", "/proc/sys/kernel/shm_rmid_forced"), "1")
	want(t, "the host's", readAll(paths), before)
}

// Files and directories that tell of the host or control it.
func TestCVE_2017_16539_MaskedFiles(t *testing.T) {
	d := daemon(t)
	// Some of them tell something on this machine, to whoever may see them.
	open := d.Run("docker", "run", "--rm", "--privileged", "busybox", "sh", "-c", "cat /proc/interrupts /proc/timer_list 2>/dev/null | wc -c; ls -A /sys/firmware | wc -l")
	if f := strings.Fields(open); len(f) != 2 || f[0] == "0" || f[1] == "0" {
		t.Errorf("nothing is there that could be masked: %q", open)
	}
	id := d.Run("docker", "run", "-d", "busybox", "sleep", "1000")
	for _, p := range strings.Fields("/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats /sys/firmware") {
		// The length of a listing or a file that is there: none.
		want(t, p, d.Try("", "docker", "exec", id, "sh", "-c", "{ ls -A "+p+"/ || head -c 100 "+p+"; } 2>/dev/null").Out(), "")
		if r := d.Try("", "docker", "exec", id, "sh", "-c", "test -e "+p+" && umount "+p); r.Code == 0 {
			t.Errorf("%s is uncovered", p)
		}
	}
	for _, p := range strings.Fields("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger") {
		if r := d.Try("", "docker", "exec", id, "sh", "-c", "! test -e "+p+" || grep -q ' "+p+" ro,' /proc/self/mountinfo"); r.Code != 0 {
			t.Errorf("%s is not read-only", p)
		}
	}
	if r := d.Try("", "docker", "exec", id, "sh", "-c", "echo 'scsi remove-single-device 0 0 0 0' > /proc/scsi/scsi"); r.Code == 0 {
		t.Error("it removes disks")
	}
}

// The counters of energy, from which secrets were computed, and those of heat.
func TestCVE_2020_8694_EnergyCounters(t *testing.T) {
	found, _ := filepath.Glob("/sys/devices/virtual/powercap")
	heat, _ := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
	if len(found)+len(heat) == 0 {
		t.Skip("this machine has no such counters; that they are masked is in the golden specifications")
	}
	d := daemon(t)
	want(t, "counters", d.Try("", "docker", "run", "--rm", "busybox", "sh", "-c",
		"find /sys/ -name energy_uj 2>/dev/null | xargs cat 2>/dev/null; ls -A /sys/devices/virtual/powercap 2>/dev/null; ls -A /sys/devices/system/cpu/cpu*/thermal_throttle 2>/dev/null | grep -v :; true").Out(), "")
}

// Each process gets a session keyring of its own: nobody else's keys are in it.
func TestKeyringsAreNotShared(t *testing.T) {
	d := daemon(t)
	// The usual profile allows none of it.
	if r := d.Try("", "docker", append(append([]string{"run", "--rm"}, program(t, "keyring")...), "busybox", "/attack")...); r.Code == 0 {
		t.Errorf("keys by default: %q", r.Stdout)
	}
	seen := map[string]string{}
	look := func(what string, args ...string) {
		t.Helper()
		f := strings.Fields(d.Run("docker", args...))
		if len(f) != 3 || !strings.HasPrefix(f[1], "_ses.") || f[2] != "false" {
			t.Errorf("%s: %q", what, f)
			return
		}
		if other, ok := seen[f[0]]; ok {
			t.Errorf("%s and %s share a keyring", what, other)
		}
		seen[f[0]] = what
	}
	args := append(program(t, "keyring"), "--security-opt", "seccomp=unconfined", "busybox")
	look("a container", append(append([]string{"run", "--rm"}, args...), "/attack")...)
	look("another", append(append([]string{"run", "--rm"}, args...), "/attack")...)
	id := d.Run("docker", append(append([]string{"run", "-d"}, args...), "sleep", "1000")...)
	look("an exec", "exec", id, "/attack")
	look("another exec", "exec", id, "/attack")
}

// Each command is the leader of a session of its own and controls no terminal
// but its own, so nothing typed by TIOCSTI reaches the caller's.
func TestTerminalsAreNotShared(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "run", "-d", "busybox", "sleep", "1000")
	const script = "exec 2>&1; (: </dev/tty) 2>/dev/null && echo has a terminal; awk '{print $1 == $6, $7}' /proc/$$/stat"
	want(t, "run", d.Run("docker", "run", "--rm", "busybox", "sh", "-c", script), "1 0")
	want(t, "exec", d.Run("docker", "exec", id, "sh", "-c", script), "1 0")
	out := strings.Fields(d.Run("docker", "exec", "-t", id, "sh", "-c", "awk '{print $1 == $6, $7 != 0}' /proc/$$/stat; readlink /proc/$$/fd/0"))
	if len(out) != 3 || out[0] != "1" || out[1] != "1" || !strings.HasPrefix(out[2], "/dev/pts/") {
		t.Errorf("exec -t: %q", out)
	}
}
