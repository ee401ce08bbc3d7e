//go:build root

// Package harness runs the real skiffd for end-to-end tests: in network and
// mount namespaces of the test process's own, with directories and a cgroup
// parent of its own, and looks for leaks when it ends.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/sys/mnt/mnttest"
)

const inside = "SKIFF_TEST_NAMESPACES"

// Main is TestMain: it runs the tests in fresh network and mount namespaces, so
// that nothing they do is seen by the host.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := mnttest.OwnRoot(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "lo up: %v: %s\n", err, out)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root")
		os.Exit(1)
	}
	proxy, stop, err := serveProxy()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// By its name, not by /proc/self/exe: that stays a file of the mount
	// namespace outside.
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1", proxyEnv+"="+proxy)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		// Mounts made inside must not come back to the host.
		Unshareflags: syscall.CLONE_NEWNS,
	}
	err = cmd.Run()
	stop()
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		os.Exit(ee.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Daemon is a private skiffd.
type Daemon struct {
	Dir, DataRoot, ExecRoot, Sock, CgroupParent string

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended
	log  *os.File
	base leakState
}

// Bin returns the path of one of the built executables.
func Bin(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("SKIFF_BIN")
	if dir == "" {
		dir = filepath.Join("..", "..", "bin")
	}
	p, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return p
}

// Start starts a daemon with the extra flags. When the test ends its
// containers are removed, it is stopped, and whatever it left is an error.
func Start(t testing.TB, args ...string) *Daemon {
	t.Helper()
	d := start(t, "", args)
	t.Cleanup(d.Finish)
	return d
}

// StartIn is Start with the data root on a directory of the test's; the test
// calls Finish.
func StartIn(t testing.TB, dataRoot string, args ...string) *Daemon {
	t.Helper()
	return start(t, dataRoot, args)
}

func start(t testing.TB, dataRoot string, args []string) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "skiff-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{
		Dir: dir, DataRoot: filepath.Join(dir, "data"), ExecRoot: filepath.Join(dir, "run"),
		Sock: filepath.Join(dir, "run", "skiff.sock"), CgroupParent: "/" + filepath.Base(dir),
		t: t, args: args, base: observe(t),
	}
	d.log, err = os.OpenFile(filepath.Join(dir, "skiffd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if dataRoot != "" {
		d.DataRoot = dataRoot
	}
	d.Launch()
	return d
}

// Launch starts the daemon's process and waits until its API answers.
func (d *Daemon) Launch() {
	d.t.Helper()
	if err := d.TryLaunch(); err != nil {
		d.t.Fatalf("%v\n%s", err, d.LogTail())
	}
}

// startLimit is long: the first start of all makes an emulated kernel load its
// modules for packet filters.
const startLimit = 90 * time.Second

// TryLaunch is Launch for a daemon that may refuse to start.
func (d *Daemon) TryLaunch() error {
	args := append([]string{
		"--data-root", d.DataRoot, "--exec-root", d.ExecRoot, "--cgroup-parent", d.CgroupParent,
		"--config-file", "/dev/null", "--log-level", "info",
	}, d.args...)
	for i := range args { // a test that gives -H has to give this one too
		args[i] = strings.ReplaceAll(args[i], "SOCK", d.Sock)
	}
	d.cmd = exec.Command(Bin(d.t, "skiffd"), args...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	d.gone = gone
	go func(cmd *exec.Cmd) { _ = cmd.Wait(); close(gone) }(d.cmd)
	deadline := time.After(startLimit)
	for {
		if conn, err := net.Dial("unix", d.Sock); err == nil {
			_ = conn.Close()
			return nil
		}
		select {
		case <-gone:
			return fmt.Errorf("skiffd exited: %v", d.cmd.ProcessState)
		case <-deadline:
			return fmt.Errorf("skiffd did not answer within %s\n%s", startLimit, d.stacks())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Args are the flags of the daemon's next start, beside those that every one has.
func (d *Daemon) Args(args ...string) { d.args = args }

// PID is the daemon's.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Kill ends the daemon as a crash would.
func (d *Daemon) Kill() {
	d.t.Helper()
	_ = d.cmd.Process.Kill()
	d.waitGone()
}

// Terminate ends it with SIGTERM.
func (d *Daemon) Terminate() {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	d.waitGone()
}

func (d *Daemon) waitGone() {
	d.t.Helper()
	select {
	case <-d.gone:
	case <-time.After(30 * time.Second):
		d.t.Fatalf("skiffd %d is still there", d.PID())
	}
}

// stacks ends the daemon and returns where it was.
func (d *Daemon) stacks() string {
	before, _ := d.log.Stat()
	_ = d.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-d.gone:
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		return "and does not end by SIGQUIT"
	}
	data, _ := os.ReadFile(filepath.Join(d.Dir, "skiffd.log"))
	data = data[min(before.Size(), int64(len(data))):]
	return string(data[:min(len(data), 32<<10)])
}

// LogTail returns the end of the daemon's log.
func (d *Daemon) LogTail() string {
	data, _ := os.ReadFile(filepath.Join(d.Dir, "skiffd.log"))
	if len(data) > 8000 {
		data = data[len(data)-8000:]
	}
	return string(data)
}

// Result is what a command did.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Out returns the standard output without the spaces around it.
func (r Result) Out() string { return strings.TrimSpace(r.Stdout) }

// HaveDocker reports whether docker's own command line is here. Without it, or
// with SKIFF_TEST_CLI=skiff, the tests' docker commands go through skiff.
func HaveDocker() bool {
	_, err := exec.LookPath("docker")
	return err == nil && os.Getenv("SKIFF_TEST_CLI") != "skiff"
}

// Cmd prepares a command with the environment that points clients at the daemon.
func (d *Daemon) Cmd(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "skiff" || name == "docker" && !HaveDocker() {
		name = Bin(d.t, "skiff")
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = d.Dir
	cmd.Env = append(os.Environ(),
		"DOCKER_HOST=unix://"+d.Sock, "SKIFF_HOST=unix://"+d.Sock, "SKIFF_NO_AUTOSTART=1",
		"DOCKER_CONFIG="+filepath.Join(d.Dir, "docker-config"), "DOCKER_BUILDKIT=", "HOME="+d.Dir)
	return cmd
}

// Try runs a command with a deadline of two minutes.
func (d *Daemon) Try(stdin, name string, args ...string) Result {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := d.Cmd(ctx, name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errOut.String()}
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		r.Code = ee.ExitCode()
		if ctx.Err() != nil {
			d.t.Errorf("%s %s: no end after two minutes", name, strings.Join(args, " "))
		}
	case err != nil:
		d.t.Fatalf("%s: %v", name, err)
	}
	return r
}

// Run runs a command that must succeed and returns what it printed, trimmed.
func (d *Daemon) Run(name string, args ...string) string {
	d.t.Helper()
	return d.RunIn("", name, args...)
}

// RunIn is Run with a standard input.
func (d *Daemon) RunIn(stdin, name string, args ...string) string {
	d.t.Helper()
	r := d.Try(stdin, name, args...)
	if r.Code != 0 {
		d.t.Fatalf("%s %s: exit code %d\n%s%s\n--- skiffd\n%s", name, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr, d.LogTail())
	}
	return r.Out()
}

// Busybox makes the image "busybox:latest" from the host's static busybox.
func (d *Daemon) Busybox() {
	d.t.Helper()
	d.RunIn(BusyboxTar(d.t), "docker", "import", "-c", `CMD ["sh"]`, "-c", "ENV PATH=/bin", "-", "busybox:latest")
}

// Eventually waits until f returns "", and fails with what it returned last.
func Eventually(t testing.TB, within time.Duration, f func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		why := f()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", within, why)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Finish removes the containers, stops the daemon and reports what is left.
func (d *Daemon) Finish() {
	d.t.Helper()
	if d.t.Failed() {
		d.t.Logf("--- end of skiffd's log\n%s", d.LogTail())
	}
	if conn, err := net.Dial("unix", d.Sock); err != nil {
		_ = d.TryLaunch()
	} else {
		_ = conn.Close() // the daemon would wait for its request when it ends
	}
	ids := strings.Fields(d.Try("", "docker", "ps", "-aq").Stdout)
	if len(ids) > 0 {
		d.Try("", "docker", append([]string{"rm", "-fv"}, ids...)...)
	}
	d.checkLeaks()
	d.Terminate()
	d.stopShim()
	d.checkGone()
	_ = d.log.Close()
	if d.t.Failed() && os.Getenv("KEEP") != "" {
		d.t.Logf("kept %s", d.Dir)
		return
	}
	if err := os.RemoveAll(d.Dir); err != nil {
		d.t.Errorf("remove %s: %v", d.Dir, err)
	}
}

// stopShim ends the shim, which outlives the daemon by design.
func (d *Daemon) stopShim() {
	for _, pid := range pidsMentioning(d.ExecRoot) {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	for range 400 {
		if len(pidsMentioning(d.ExecRoot)) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, pid := range pidsMentioning(d.ExecRoot) {
		d.t.Errorf("process %d is still there", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// KillShim ends the shim as a crash would; containers live on, and the daemon
// starts another.
func (d *Daemon) KillShim() {
	d.t.Helper()
	for _, pid := range pidsMentioning(filepath.Join(d.ExecRoot, "shim")) {
		if cmd, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); bytes.HasPrefix(cmd, []byte("skiff-shim\x00")) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// pidsMentioning lists the live processes, but the test's own, with s on their
// command line.
func pidsMentioning(s string) []int {
	var out []int
	ents, _ := os.ReadDir("/proc")
	for _, e := range ents {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if bytes.Contains(cmd, []byte(s)) {
			out = append(out, pid)
		}
	}
	return out
}
