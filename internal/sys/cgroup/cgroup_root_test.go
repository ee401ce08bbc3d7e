//go:build root

package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func groupOf(t *testing.T) *Group {
	t.Helper()
	s, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Open("/skiff-cgtest-" + strconv.Itoa(os.Getpid()) + "/one")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
		parent, _ := s.Open(filepath.Dir(g.path))
		if err := parent.Delete(); err != nil {
			t.Error(err)
		}
		if g.Exists() || parent.Exists() {
			t.Error("groups are left")
		}
	})
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestLimitsAndStats(t *testing.T) {
	g := groupOf(t)
	limit, swap, quota, period, pids, weight := int64(64<<20), int64(128<<20), int64(50000), uint64(100000), int64(77), uint64(512)
	for _, mem := range []int64{limit, limit * 4, limit / 2} { // raised above the old sum, and lowered
		swap = mem * 2
		if err := g.Apply(&specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &mem, Swap: &swap},
			CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &weight, Cpus: "0"},
			Pids:   &specs.LinuxPids{Limit: &pids},
		}, false); err != nil {
			t.Fatal(err)
		}
		st, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if st.Memory.Limit != uint64(mem) || st.PIDs.Limit != 77 {
			t.Errorf("limits: %+v", st)
		}
	}
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	if err := g.Add(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if procs, err := g.Procs(); err != nil || !slices.Equal(procs, []int{c.Process.Pid}) {
		t.Errorf("processes %v, %v", procs, err)
	}
	for _, frozen := range []bool{true, false} {
		if err := g.Freeze(frozen); err != nil {
			t.Fatal(err)
		}
		if now, err := g.Frozen(); err != nil || now != frozen {
			t.Errorf("frozen %v, %v", now, err)
		}
	}
	if st, err := g.Stats(); err != nil || st.PIDs.Current != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

// A child of a thread that joined is born in the group.
func TestJoinThread(t *testing.T) {
	g := groupOf(t)
	if g.sys.Unified() {
		t.Skip("children are cloned into groups of version 2")
	}
	out := make(chan string)
	var born func()
	born = func() {
		runtime.LockOSThread() // thrown away
		if unix.Gettid() == os.Getpid() {
			// The main thread never ends, and would stay in the group.
			go born()
			<-t.Context().Done()
			runtime.UnlockOSThread()
			return
		}
		if err := g.JoinThread(); err != nil {
			t.Error(err)
		}
		text, err := exec.Command("cat", "/proc/self/cgroup").Output()
		if err != nil {
			t.Error(err)
		}
		out <- string(text)
	}
	go born()
	for line := range strings.Lines(<-out) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); f[0] != "0" && f[2] != g.Path() {
			t.Errorf("born in %s", line)
		}
	}
}

func TestDevicesV1(t *testing.T) {
	g := groupOf(t)
	if g.sys.Unified() {
		t.Skip("control groups of version 2")
	}
	num := func(n int64) *int64 { return &n }
	list := func() string {
		text, err := read(g.dir("devices"), "devices.list")
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	sorted := func(text string) []string {
		lines := strings.Split(text, "\n")
		slices.Sort(lines)
		return lines
	}
	everybody := "c *:* m\nb *:* m\nc 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:1 rwm\nc 5:2 rwm\nc 136:* rwm"
	for name, tc := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		"none":                  {nil, everybody},
		"no denial first":       {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: num(10), Minor: num(229), Access: "rw"}}, everybody + "\nc 10:229 rw"},
		"all":                   {[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, "a *:* rwm"},
		"all after a denial":    {[]specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "a", Access: "rwm"}}, "a *:* rwm"},
		"denied after all":      {[]specs.LinuxDeviceCgroup{{Allow: true}, {Access: "rwm"}}, everybody},
		"one taken back":        {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: num(10), Minor: num(229), Access: "rw"}, {Type: "c", Major: num(10), Minor: num(229), Access: "w"}}, everybody + "\nc 10:229 r"},
		"for both kinds at one": {[]specs.LinuxDeviceCgroup{{Allow: true, Major: num(10), Access: "r"}}, everybody + "\nb 10:* r\nc 10:* r"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := g.LimitDevices(tc.rules); err != nil {
				t.Fatal(err)
			}
			if got, want := sorted(list()), sorted(tc.want); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
	part := []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: num(10), Access: "rw"}, {Type: "c", Major: num(10), Minor: num(229), Access: "rw"}}
	if err := g.LimitDevices(part); err == nil {
		t.Errorf("a part of a rule is taken back: %s", list())
	}
}

// The device program also works beside version 1, where its attachment can be
// tried on a group of the empty version 2.
func TestDevicesV2(t *testing.T) {
	mount := ""
	for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			mount = dir
			break
		}
	}
	if mount == "" {
		t.Skip("no control groups of version 2")
	}
	dir := filepath.Join(mount, "skiff-devtest-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Rmdir(dir) }()
	num := func(n int64) *int64 { return &n }
	rules := withDefaultDevices([]specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Allow: true, Type: "c", Major: num(1), Minor: num(11), Access: "r"},
	})
	open := func() string {
		script := `
for x in '< /dev/zero' '> /dev/zero' '< /dev/kmsg' '> /dev/kmsg' '< /dev/mem'; do if sh -c ": $x" 2>/dev/null; then printf 'y'; else printf 'n'; fi; done`
		c := exec.Command("sh", "-c", "echo $$ > "+dir+"/cgroup.procs; "+script)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	for _, tc := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{rules, "yyynn"},
		{[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, "yyyyy"},
		{append(rules, specs.LinuxDeviceCgroup{Type: "c", Major: num(1), Minor: num(5), Access: "w"}), "ynynn"},
	} {
		if err := attachDevices(dir, tc.rules); err != nil {
			t.Fatal(err)
		}
		got := open()
		if _, err := os.Stat("/dev/kmsg"); err != nil {
			t.Skip("no /dev/kmsg here")
		}
		if _, err := os.Stat("/dev/mem"); err != nil {
			got, tc.want = got[:4], tc.want[:4]
		}
		if got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.rules, got, tc.want)
		}
	}
	group, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(group) }()
	if ids, err := attachedDevices(group); err != nil || len(ids) != 1 {
		t.Errorf("programs %v, %v", ids, err)
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("%d shares: %d, want %d", shares, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	s := &System{}
	for _, p := range []string{"", "/", "a", "/a/../b", "/a/", "//a"} {
		if _, err := s.Open(p); err == nil {
			t.Errorf("%q opens", p)
		}
	}
}

// Quota and burst are raised and lowered together.
func TestBurstFollowsQuota(t *testing.T) {
	g := groupOf(t)
	for _, n := range []int64{50000, 90000, 20000} {
		burst, period := uint64(n), uint64(100000)
		if err := g.Apply(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &n, Period: &period, Burst: &burst}}, false); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
	}
}
