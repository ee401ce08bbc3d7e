//go:build root

package launch

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func TestScheduler(t *testing.T) {
	// Field 41 of stat is the policy, 19 the nice value.
	b := newBox(t, "cut -d ' ' -f 19,41 /proc/self/stat")
	b.l.Spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	b.prints("7 3\n")
	b = newBox(t, "read -r line < /proc/self/stat; echo $line | cut -d ' ' -f 19,41")
	b.l.Spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle}
	b.prints("0 5\n")
	b = newBox(t, "true")
	b.l.Spec.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_DANCE"}
	b.fails("is not known")
	b = newBox(t, "true")
	b.l.Spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedISO}
	b.fails("scheduler SCHED_ISO")
}

func TestIOPriority(t *testing.T) {
	for want, p := range map[string]*specs.LinuxIOPriority{
		"none: prio 0\n":        nil,
		"idle\n":                {Class: specs.IOPRIO_CLASS_IDLE},
		"best-effort: prio 6\n": {Class: specs.IOPRIO_CLASS_BE, Priority: 6},
		"realtime: prio 1\n":    {Class: specs.IOPRIO_CLASS_RT, Priority: 1},
	} {
		b := newBox(t, "busybox ionice")
		b.l.Spec.Process.IOPriority = p
		b.prints(want)
	}
	// An exec has its own, and no more than that.
	b := newBox(t, "sleep 1000")
	b.l.Spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	e := *b.l.Spec.Process
	e.Args = []string{"busybox", "ionice"}
	e.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 2}
	if out, err := b.exec(&e, nil); err != nil || out != "best-effort: prio 2\n" {
		t.Errorf("an exec printed %q: %v", out, err)
	}
	b = newBox(t, "true")
	b.l.Spec.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_X"}
	b.fails("is not known")
}

func TestPersonality(t *testing.T) {
	b := newBox(t, "cat /proc/self/personality")
	b.l.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	b.prints("00000008\n")
	b = newBox(t, "cat /proc/self/personality")
	b.l.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
	b.prints("00000000\n")
	b = newBox(t, "true")
	b.l.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: "SVR4"}
	b.fails("is not known")
}

// What holds for all of a container's processes holds for an exec.
func TestExecIsLikeTheOthers(t *testing.T) {
	b := newBox(t, "sleep 1000")
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	e := &runtime.Exec{
		Process:     &specs.Process{Args: []string{"sh", "-c", "cat /proc/self/personality; head -1 /proc/self/numa_maps | cut -d ' ' -f 2"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Personality: &specs.LinuxPersonality{Domain: specs.PerLinux32}, MemoryPolicy: &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"},
	}
	want := "00000008\nbind:0\n"
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil { // the kernel has no NUMA policies
		e.MemoryPolicy, want = nil, "00000008\n"
		e.Process.Args = []string{"cat", "/proc/self/personality"}
	}
	if out, err := b.execAs(e, nil); err != nil || out != want {
		t.Errorf("%q, %v, want %q", out, err, want)
	}
	e.Personality = &specs.LinuxPersonality{Domain: "SVR4"}
	if _, err := b.execAs(e, nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("a personality that is not known: %v", err)
	}
}

func TestMemoryPolicy(t *testing.T) {
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		t.Skip("the kernel has no NUMA policies")
	}
	b := newBox(t, "head -1 /proc/self/numa_maps | cut -d ' ' -f 2")
	b.l.Spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	b.prints("bind=static:0\n")
	for _, p := range []specs.LinuxMemoryPolicy{
		{Mode: "MPOL_X"},
		{Mode: specs.MpolBind, Flags: []specs.MemoryPolicyFlagType{"X"}},
		{Mode: specs.MpolBind, Nodes: "0-x"},
		{Mode: specs.MpolBind},
		{Mode: specs.MpolBind, Nodes: "1000"},
		{Mode: specs.MpolBind, Nodes: "9999999"},
	} {
		b = newBox(t, "true")
		b.l.Spec.Linux.MemoryPolicy = &p
		b.fails("memory policy")
	}
}

func TestExecAffinity(t *testing.T) {
	b := newBox(t, "sleep 1000")
	// Of no concern to the first process.
	b.l.Spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	all := processors(t, os.Getpid())
	if got := processors(t, b.child.PID); got != all {
		t.Errorf("the first process may use %q of %q", got, all)
	}
	p := *b.l.Spec.Process
	p.Args = []string{"grep", "Cpus_allowed_list", "/proc/self/status"}
	p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0-0"}
	if out, err := b.exec(&p, nil); err != nil || out != "Cpus_allowed_list:\t0\n" {
		t.Errorf("printed %q: %v", out, err)
	}
	p.ExecCPUAffinity = nil
	if out, err := b.exec(&p, nil); err != nil || out != all {
		t.Errorf("without: %q, want %q: %v", out, all, err)
	}
	for _, a := range []specs.CPUAffinity{{Initial: "x"}, {Final: "3-1"}, {Final: "1000"}, {Initial: "1000"}, {Final: "-1"}} {
		p.ExecCPUAffinity = &a
		if _, err := b.exec(&p, nil); err == nil || !strings.Contains(err.Error(), "processors") {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

// processors are those that a process may use.
func processors(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "Cpus_allowed_list:") {
			return line
		}
	}
	t.Fatalf("no processors in %s", data)
	return ""
}

func TestTimeNamespace(t *testing.T) {
	b := newBox(t, "cut -d . -f 1 /proc/uptime; cat /proc/self/timens_offsets | tr -s ' '; readlink /proc/self/ns/time; sleep 1000 > /dev/null 2>&1 < /dev/null")
	b.l.Spec.Linux.Namespaces = append(b.l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	b.l.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 86400}, "boottime": {Secs: 1000000000, Nanosecs: 5}}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	p := *b.l.Spec.Process
	p.Args = []string{"sh", "-c", "cut -d . -f 1 /proc/uptime; cat /proc/self/timens_offsets | tr -s ' '; readlink /proc/self/ns/time"}
	out, err := b.exec(&p, nil)
	if want := "monotonic 86400 0\nboottime 1000000000 5\n"; err != nil || !strings.HasPrefix(out, "10000") || !strings.Contains(out, want) {
		t.Errorf("exec printed %q: %v", out, err)
	}
	ns, rerr := os.Readlink("/proc/" + itoa(b.child.PID) + "/ns/time")
	if rerr != nil || !strings.Contains(out, ns) {
		t.Errorf("exec printed %q, the container's is %s: %v", out, ns, rerr)
	}

	// By path, and together with a user namespace.
	for _, user := range []bool{false, true} {
		j := newBox(t, "cut -d . -f 1 /proc/uptime; readlink /proc/self/ns/time")
		j.l.Spec.Linux.Namespaces = append(j.l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: "/proc/" + itoa(b.child.PID) + "/ns/time"})
		if user {
			inUserNS(j)
		}
		if out, err := j.run(); err != nil || !strings.HasPrefix(out, "10000") || !strings.Contains(out, ns) {
			t.Errorf("joined, user %v: printed %q: %v", user, out, err)
		}
	}
	u := newBox(t, "cat /proc/self/timens_offsets | tr -s ' '")
	u.l.Spec.Linux.Namespaces = append(u.l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	u.l.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 5}}
	inUserNS(u)
	u.prints("monotonic 5 0\nboottime 0 0\n")
}

func TestTimeNamespaceRefusals(t *testing.T) {
	b := newBox(t, "true")
	b.l.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 5}}
	b.fails("need a new time namespace")
	b = newBox(t, "true")
	b.l.Spec.Linux.Namespaces = append(b.l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	b.l.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {Secs: 5}}
	b.fails("has no offset")
}
