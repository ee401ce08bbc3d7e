// Package peer starts container engines for benchmarks: each with directories,
// a socket and control groups of its own, in the benchmark's namespaces.
package peer

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Engine is one peer: a daemon in this process's namespaces and its command line.
type Engine struct {
	Name, Sock  string
	dir         string
	daemon, cli string
	args        []string
	env         []string
	cmd         *exec.Cmd
}

// New returns the engine called skiff or docker, or why it cannot be had.
func New(name, dir string) (*Engine, string) {
	e := &Engine{Name: name, dir: dir, Sock: filepath.Join(dir, "sock")}
	cgroup := "/skiff-bench-" + strconv.Itoa(os.Getpid()) + "-" + name
	switch name {
	case "skiff":
		e.daemon, e.cli = findBin("skiffd"), findBin("skiff")
		e.args = []string{
			"--exec-root", filepath.Join(dir, "run"), "--data-root", filepath.Join(dir, "data"), "-H", "unix://" + e.Sock,
			"--config-file", "/dev/null", "--log-level", "warn", "--cgroup-parent", cgroup, "--bip", "172.29.0.1/16", "--bridge", "skiffbench0",
		}
		e.env = []string{"SKIFF_HOST=unix://" + e.Sock, "SKIFF_NO_AUTOSTART=1"}
	case "docker":
		e.daemon, _ = exec.LookPath("dockerd")
		if d := os.Getenv("DOCKERD"); d != "" {
			e.daemon = d
		}
		e.cli, _ = exec.LookPath("docker")
		e.args = []string{
			"--exec-root", filepath.Join(dir, "run"), "--data-root", filepath.Join(dir, "data"), "-H", "unix://" + e.Sock,
			"--pidfile", filepath.Join(dir, "pid"), "--cgroup-parent", cgroup, "--bip", "172.28.0.1/16", "--config-file", filepath.Join(dir, "daemon.json"),
		}
		e.env = []string{"DOCKER_HOST=unix://" + e.Sock, "DOCKER_CONFIG=" + dir, "DOCKER_BUILDKIT=0"}
	default:
		return nil, "not a known engine"
	}
	if e.daemon == "" || e.cli == "" {
		return nil, "not installed"
	}
	return e, ""
}

func findBin(name string) string {
	dir := os.Getenv("SKIFF_BIN")
	if dir == "" {
		dir = "bin"
	}
	p, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(p); err != nil {
		return ""
	}
	return p
}

// Start runs the daemon and waits until it answers.
func (e *Engine) Start() error {
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return err
	}
	// As /run is: neither engine keeps there what must survive a reboot.
	run := filepath.Join(e.dir, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", run, "tmpfs", 0, "mode=711"); err != nil {
		return fmt.Errorf("mount %s: %w", run, err)
	}
	path := os.Getenv("PATH")
	if e.Name == "docker" {
		conf := `{}`
		if w, err := e.runcWrapper(); err != nil {
			return err
		} else if w != "" {
			conf = fmt.Sprintf(`{"runtimes": {"w": {"path": %q}}, "default-runtime": "w"}`, w)
		}
		if err := os.WriteFile(filepath.Join(e.dir, "daemon.json"), []byte(conf), 0o600); err != nil {
			return err
		}
		path = filepath.Dir(e.daemon) + ":" + path
	}
	log, err := os.Create(filepath.Join(e.dir, "log"))
	if err != nil {
		return err
	}
	e.cmd = exec.Command(e.daemon, e.args...)
	e.cmd.Env = append(os.Environ(), "PATH="+path)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.cmd.Start(); err != nil {
		return err
	}
	return e.waitReady()
}

func (e *Engine) waitReady() error {
	for range 3000 {
		if c, err := net.Dial("unix", e.Sock); err == nil {
			_ = c.Close()
			if _, err := e.Output("version"); err == nil {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(e.dir, "log"))
	return fmt.Errorf("no answer within 30 s\n%s", log)
}

// runcWrapper returns a stand-in for runc that takes out of the spec what a
// root without CAP_SYS_RESOURCE may not set; "" where root may.
func (e *Engine) runcWrapper() (string, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err != nil || caps&(1<<24) != 0 {
				return "", err
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	w := filepath.Join(e.dir, "wrap", "runc")
	if err := os.MkdirAll(filepath.Dir(w), 0o700); err != nil {
		return "", err
	}
	return w, os.WriteFile(w, data, 0o700)
}

// Command is the engine's command line, told where the daemon is.
func (e *Engine) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(e.cli, args...)
	cmd.Env = append(os.Environ(), e.env...)
	return cmd
}

// Output runs the command line and returns what it prints.
func (e *Engine) Output(args ...string) (string, error) {
	cmd := e.Command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", e.Name, strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

// Timed runs the command line and returns how long it took, in ms.
func (e *Engine) Timed(args ...string) (float64, error) {
	start := time.Now()
	_, err := e.Output(args...)
	return float64(time.Since(start).Microseconds()) / 1000, err
}

// MakeImage imports a root file system with a static busybox as "bench".
func (e *Engine) MakeImage(dir string) error {
	root := filepath.Join(dir, "rootfs")
	if _, err := os.Stat(root); err != nil {
		if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
			return err
		}
		for _, d := range []string{"etc", "tmp", "root"} {
			if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
				return err
			}
		}
		bb, err := os.ReadFile("/bin/busybox")
		if err != nil {
			return fmt.Errorf("%w (package busybox-static)", err)
		}
		if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), bb, 0o755); err != nil {
			return err
		}
		for _, a := range []string{"sh", "true", "sleep", "echo", "touch"} {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
				return err
			}
		}
	}
	tarball := filepath.Join(dir, "rootfs.tar")
	if out, err := exec.Command("tar", "-C", root, "-cf", tarball, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w: %s", err, out)
	}
	_, err := e.Output("import", tarball, "bench")
	return err
}

// Stop removes the containers and ends the daemon and all it started.
func (e *Engine) Stop() {
	if e.cmd == nil {
		return
	}
	if ids, err := e.Output("ps", "-aq"); err == nil && len(strings.Fields(ids)) > 0 {
		_, _ = e.Output(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	}
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = e.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		_ = e.cmd.Process.Kill()
	}
	for _, pid := range e.Processes() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	time.Sleep(200 * time.Millisecond)
	removeCgroups("skiff-bench-" + strconv.Itoa(os.Getpid()) + "-" + e.Name)
	for _, m := range mountsBelow(e.dir) { // the deepest first
		_ = syscall.Unmount(m, syscall.MNT_DETACH)
	}
}

// Processes lists the engine's own processes: those with its directory on
// their command line.
func (e *Engine) Processes() []int {
	var out []int
	ents, _ := os.ReadDir("/proc")
	for _, d := range ents {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmd, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if bytes.Contains(cmd, []byte(e.dir+"/")) {
			out = append(out, pid)
		}
	}
	return out
}

// Memory sums the resident and proportional set sizes of the engine's own
// processes, in MB.
func (e *Engine) Memory() (rss, pss float64, err error) {
	pids := e.Processes()
	if len(pids) == 0 {
		return 0, 0, errors.New("no process found")
	}
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			kb, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "Rss:":
				rss += kb / 1024
			case "Pss:":
				pss += kb / 1024
			}
		}
	}
	return rss, pss, nil
}

func mountsBelow(dir string) []string {
	var out []string
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], dir+"/") {
			out = append([]string{f[4]}, out...)
		}
	}
	return out
}

func removeCgroups(name string) {
	for range 3 {
		matches, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		more, _ := filepath.Glob("/sys/fs/cgroup/" + name)
		for _, m := range append(matches, more...) {
			var dirs []string
			_ = filepath.WalkDir(m, func(p string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append([]string{p}, dirs...)
				}
				return nil
			})
			for _, d := range dirs {
				_ = os.Remove(d)
			}
		}
	}
}
