//go:build root

package ociruntime

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "notify" { // in a container
		conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err == nil {
			_, err = conn.Write([]byte("STATUS=up\nREADY=1\n"))
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		time.Sleep(time.Hour)
	}
	if len(os.Args) == 2 && os.Args[1] == "keyring" { // in a container
		fmt.Println(sessionKeyring())
		os.Exit(0)
	}
	isolated := os.Getenv("SKIFF_TEST_ISOLATED") != ""
	code := runtimetest.Isolate(m)
	if isolated {
		if err := runtimetest.RemoveCgroupParent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// cli is skiff-runtime with a state directory of its own.
type cli struct {
	t    *testing.T
	bin  string
	root string
	args []string
}

func newCLI(t *testing.T, args ...string) *cli {
	t.Helper()
	dir := os.Getenv("SKIFF_BIN")
	if dir == "" {
		dir = "../../../bin"
	}
	bin, err := filepath.Abs(filepath.Join(dir, "skiff-runtime"))
	if err == nil {
		_, err = os.Stat(bin)
	}
	if err != nil {
		t.Skip("skiff-runtime is not built: make build")
	}
	return &cli{t, bin, t.TempDir(), args}
}

func (c *cli) command(args ...string) *exec.Cmd {
	return exec.Command(c.bin, append(append([]string{"--root", c.root}, c.args...), args...)...)
}

func (c *cli) try(args ...string) (string, error) {
	out, err := c.command(args...).CombinedOutput()
	return string(out), err
}

func (c *cli) run(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return out
}

// bundle writes one; its root is a directory of busybox's.
func (c *cli) bundle(s *specs.Spec) string {
	c.t.Helper()
	dir := c.t.TempDir()
	s.Root.Path = runtimetest.Rootfs(c.t)
	data, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return dir
}

// made creates a container that goes with the test. Create hands its streams to
// the container, so nobody may wait for their end.
func (c *cli) made(id, bundle string, env ...string) {
	c.t.Helper()
	log, err := os.Create(filepath.Join(c.t.TempDir(), "log")) //nolint:forbidigo // the test's own
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := c.command("create", "--bundle", bundle, id)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), env...)
	c.t.Cleanup(func() { _, _ = c.try("delete", "--force", id) })
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		c.t.Fatalf("create: %v: %s", err, text)
	}
}

func stateOf(t *testing.T, text string) (s specs.State) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	return s
}

// A container whose control group systemd makes.
func TestSystemdScope(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil || !systemd.Running() {
		t.Skip("needs systemd and control groups of version 2: SYSTEMD=1 make test-vm has them")
	}
	c := newCLI(t, "--systemd-cgroup")
	id := fmt.Sprintf("skiff-oci-%d", os.Getpid())
	limit, weight, pids := int64(64<<20), uint64(512), int64(40)
	s := runtimetest.Spec(id, "sleep", "1000")
	s.Linux.CgroupsPath = "skiffocitest.slice:ocitest:" + id
	s.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Shares: &weight}, Pids: &specs.LinuxPids{Limit: &pids},
	}
	unit := "ocitest-" + id + ".scope"
	dir := "/sys/fs/cgroup/skiffocitest.slice/" + unit
	file := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(data))
	}
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	systemctl := func(args ...string) string {
		out, err := exec.Command("systemctl", args...).CombinedOutput()
		if err != nil {
			t.Errorf("systemctl %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	t.Cleanup(func() { systemctl("stop", "skiffocitest.slice") })
	c.made(id, c.bundle(s))
	st := stateOf(t, c.run("state", id))
	want("created", string(st.Status), "created")
	want("its process", file("cgroup.procs"), fmt.Sprint(st.Pid))
	c.run("start", id)
	want("running", string(stateOf(t, c.run("state", id)).Status), "running")
	limits := func(when, memory, weight, tasks string) {
		t.Helper()
		want("memory "+when, file("memory.max"), memory)
		want("weight "+when, file("cpu.weight"), weight)
		want("processes "+when, file("pids.max"), tasks)
		want("known "+when, systemctl("show", "-P", "MemoryMax", unit)+" "+systemctl("show", "-P", "TasksMax", unit), memory+" "+tasks)
	}
	limits("at start", "67108864", "59", "40")
	systemctl("daemon-reload")
	limits("after a reload", "67108864", "59", "40")
	want("exec", c.run("exec", id, "cat", "/proc/self/cgroup"), "0::/\n")
	c.run("update", "--memory", "134217728", "--cpu-share", "1024", "--pids-limit", "30", id)
	systemctl("daemon-reload")
	limits("after an update", "134217728", "100", "30")
	if events := c.run("events", "--stats", id); !strings.Contains(events, `"limit":134217728`) {
		t.Error(events)
	}
	c.run("pause", id)
	want("paused", string(stateOf(t, c.run("state", id)).Status), "paused")
	c.run("resume", id)
	if ps := c.run("ps", id); strings.Count(ps, "\n") != 2 {
		t.Errorf("processes: %s", ps)
	}
	c.run("kill", id, "KILL")
	for range 500 {
		if stateOf(t, c.run("state", id)).Status == specs.StateStopped {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.run("delete", id)
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	want("units left", systemctl("list-units", "--all", "--no-legend", unit), "")

	s.Linux.CgroupsPath = "/not/a/scope"
	if out, err := c.try("create", "--bundle", c.bundle(s), "not"); err == nil || !strings.Contains(out, "slice:prefix:name") {
		t.Errorf("a path: %v: %s", err, out)
	}
}

// The runtime stands between a service in a container and systemd.
func TestNotifySocket(t *testing.T) {
	c := newCLI(t)
	path := filepath.Join(t.TempDir(), "host.sock")
	host, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	s := runtimetest.Spec("service", "/notify", "notify")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/notify", Type: "bind", Source: exe, Options: []string{"bind", "ro"}})
	c.made("service", c.bundle(s), "NOTIFY_SOCKET="+path)
	start := c.command("start", "service")
	start.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	var out bytes.Buffer
	start.Stdout, start.Stderr = &out, &out
	if err := start.Start(); err != nil {
		t.Fatal(err)
	}
	_ = host.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf, oob := make([]byte, 4096), make([]byte, 64)
	n, err := host.Read(buf)
	pid := stateOf(t, c.run("state", "service")).Pid
	if want := fmt.Sprintf("READY=1\nMAINPID=%d\n", pid); err != nil || string(buf[:n]) != want {
		t.Errorf("told %q, %v, want %q", buf[:n], err, want)
	}
	// It stays until what it said was read.
	n, nn, _, _, err := host.ReadMsgUnix(buf, oob)
	if err != nil || string(buf[:n]) != "BARRIER=1" {
		t.Errorf("then %q, %v", buf[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:nn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%v, %v", messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	if err := start.Wait(); err != nil {
		t.Errorf("start: %v: %s", err, out.String())
	}
}

// Run in the foreground relays the terminal between the container's and its own.
func TestTerminalInForeground(t *testing.T) {
	c := newCLI(t)
	s := runtimetest.Spec("tty", "sh", "-c", "stty size; read x; echo got $x; tty; exit 3")
	s.Process.Terminal = true
	bundle := c.bundle(s)
	if out, err := c.try("create", "--bundle", bundle, "tty"); err == nil || !strings.Contains(out, "without setting console socket") {
		t.Errorf("create without a console socket: %v: %s", err, out)
	}
	if out, err := c.try("run", "--bundle", bundle, "--console-socket", "/nosuch", "tty"); err == nil || !strings.Contains(out, "cannot use console socket") {
		t.Errorf("run with a console socket: %v: %s", err, out)
	}
	master, slave := openTerminal(t)
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 11, Col: 33}); err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	run := c.command("run", "--bundle", bundle, "tty")
	run.Stdin, run.Stdout, run.Stderr = slave, slave, slave
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	_ = master.SetDeadline(time.Now().Add(30 * time.Second))
	var got strings.Builder
	until := func(text string) {
		t.Helper()
		buf := make([]byte, 1024)
		for !strings.Contains(got.String(), text) {
			n, err := master.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				t.Fatalf("%v after %q", err, got.String())
			}
		}
	}
	until("11 33\r\n")
	if raw, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS); err != nil || raw.Lflag&(unix.ECHO|unix.ICANON) != 0 {
		t.Errorf("the terminal is not raw meanwhile: %v", err)
	}
	if _, err := master.WriteString("word\r"); err != nil {
		t.Fatal(err)
	}
	until("got word\r\n")
	until("/dev/")
	if err := run.Wait(); run.ProcessState.ExitCode() != 3 {
		t.Errorf("ended with %v, not 3; printed %q", err, got.String())
	}
	if after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS); err != nil || after.Lflag != before.Lflag || after.Oflag != before.Oflag {
		t.Errorf("the terminal is not as it was: %v", err)
	}
	if left := c.run("list", "--quiet"); left != "" {
		t.Errorf("left: %s", left)
	}
}

func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	slave = os.NewFile(peer, "terminal")
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// A pre-dump saves memory and leaves the container as it is; what follows needs
// to save only what has changed.
func TestPreDump(t *testing.T) {
	if _, err := exec.LookPath("criu"); err != nil {
		t.Skip("criu is not installed")
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil { // criu asks the kernel by it
		t.Skipf("%v: %s", err, out)
	}
	c := newCLI(t)
	// One sleep may not go on: criu lets a call that it has interrupted say so.
	s := runtimetest.Spec("dump", "sh", "-c", "while :; do sleep 0.2; done")
	s.Linux.CgroupsPath = runtimetest.CgroupParent() + "/dump"
	c.made("dump", c.bundle(s))
	c.run("start", "dump")
	dir := t.TempDir()
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	out, err := c.try("checkpoint", "--pre-dump", "--image-path", before, "dump")
	if err != nil {
		if strings.Contains(out, "criu") && !strings.Contains(out, "panic") {
			t.Skipf("criu cannot do so on this kernel: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	if st := stateOf(t, c.run("state", "dump")); st.Status != specs.StateRunning {
		t.Errorf("after a pre-dump it is %s", st.Status)
	}
	if pages, _ := filepath.Glob(filepath.Join(before, "pages-*.img")); len(pages) == 0 {
		t.Error("no memory is saved")
	}
	if out, err := c.try("checkpoint", "--parent-path", "/abs", "--image-path", after, "dump"); err == nil || !strings.Contains(out, "must be relative") {
		t.Errorf("an absolute parent: %v: %s", err, out)
	}
	c.run("checkpoint", "--parent-path", "../before", "--image-path", after, "dump")
	if link, err := os.Readlink(filepath.Join(after, "parent")); err != nil || link != "../before" {
		t.Errorf("parent %q, %v", link, err)
	}
	if left := c.run("list", "--quiet"); left != "" {
		t.Errorf("left: %s", left)
	}
}
