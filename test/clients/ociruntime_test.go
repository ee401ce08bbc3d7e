//go:build root

package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
	"github.com/skiff-containers/skiff/test/harness"
)

// Other engines run their containers on skiff-runtime.

// A peer is another engine's command line.
type peer struct {
	t    *testing.T
	argv []string
	env  []string
}

// run returns what a command prints on both streams, and its exit code.
func (p *peer) run(args ...string) (string, int) {
	p.t.Helper()
	cmd := exec.Command(p.argv[0], append(p.argv[1:len(p.argv):len(p.argv)], args...)...)
	cmd.Env = append(os.Environ(), p.env...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (p *peer) want(code int, text string, args ...string) {
	p.t.Helper()
	if out, got := p.run(args...); got != code || !strings.Contains(out, text) {
		p.t.Errorf("%s: exit code %d, want %d; want %q in %q", strings.Join(args, " "), got, code, text, out)
	}
}

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// tmpfsOver covers a directory while the test runs, in the test's own mount
// namespace: the engines keep state in fixed places.
func tmpfsOver(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// removeGroups removes the engine's control groups when the test has ended.
func removeGroups(t *testing.T, parent string) {
	t.Cleanup(func() {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + parent)
		dirs = append(dirs, "/sys/fs/cgroup"+parent)
		for try := 0; try < 50 && len(dirs) > 0; try++ { // the engine's helpers may still be leaving
			time.Sleep(time.Duration(try) * time.Millisecond)
			var left []string
			for _, d := range dirs {
				below, _ := os.ReadDir(d)
				for _, b := range below {
					_ = syscall.Rmdir(filepath.Join(d, b.Name()))
				}
				_ = syscall.Rmdir(d)
				if _, err := os.Stat(d); err == nil {
					left = append(left, d)
				}
			}
			dirs = left
		}
		if len(dirs) > 0 {
			t.Errorf("control groups are left: %v", dirs)
		}
	})
}

// life is what every engine is asked. image is what follows the options of run,
// up to the command.
func life(p *peer, options, image []string) {
	run := func(more ...string) []string { return append(append([]string{"run"}, options...), more...) }
	command := func(args ...string) []string { return append(image[:len(image):len(image)], args...) }
	p.want(3, "uid=0(root)", append(run("--rm"), command("sh", "-c", "id; exit 3")...)...)
	p.want(0, "/dev/pts/0", append(run("--rm", "-t"), command("tty")...)...)
	p.want(127, "nosuch", append(run("--rm"), command("nosuch")...)...)
	p.want(0, "", append(run("-d", "--name", "c1"), command("sh", "-c", `trap "echo bye; exit 5" TERM; echo up; while :; do sleep 0.1; done`)...)...)
	deadline := time.Now().Add(20 * time.Second)
	for out := ""; !strings.Contains(out, "up"); out, _ = p.run("logs", "c1") {
		if time.Now().After(deadline) {
			p.t.Fatalf("the container does not come up: %s", out)
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.want(4, "in", "exec", "c1", "sh", "-c", "echo in; exit 4")
	p.want(0, "sleep", "top", "c1")
	p.want(0, "c1", "pause", "c1")
	p.want(0, "c1", "unpause", "c1")
	p.want(0, "c1", "stop", "c1")
	p.want(0, "bye", "logs", "c1")
	p.want(0, "5", "inspect", "-f", "{{.State.ExitCode}}", "c1")
	p.want(0, "c1", "start", "c1")
	p.want(0, "c1", "rm", "-f", "c1")
}

func TestPodmanOnSkiffRuntime(t *testing.T) {
	needs(t, "podman", "conmon")
	t.Run("cgroupfs", func(t *testing.T) {
		parent := fmt.Sprintf("/skiff-podman-%d", os.Getpid())
		removeGroups(t, parent)
		tmpfsOver(t, "/run")
		life(podman(t, "cgroupfs"), []string{"--network", "none", "--cgroup-parent", parent}, []string{"--rootfs", runtimetest.Rootfs(t)})
		nothingIn(t, "/run/skiff-runtime")
	})
	t.Run("systemd", func(t *testing.T) {
		if _, err := os.Stat("/run/systemd/system"); err != nil {
			t.Skip("systemd is not the first process: make test-vm has it, with SYSTEMD=1 VM_PACKAGES=podman")
		}
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
			t.Skip("control groups are not of version 2")
		}
		for _, dir := range []string{"/run/containers", "/run/libpod", "/run/crun", "/run/skiff-runtime"} {
			tmpfsOver(t, dir)
		}
		p := podman(t, "systemd")
		slice := fmt.Sprintf("skiffpodman%d.slice", os.Getpid())
		rootfs := runtimetest.Rootfs(t)
		options := []string{"--network", "none", "--cgroup-parent", slice}
		life(p, options, []string{"--rootfs", rootfs})
		p.want(0, "", append(append([]string{"run", "-d", "--name", "scoped", "-m", "64m"}, options...), "--rootfs", rootfs, "sleep", "1000")...)
		id, _ := p.run("inspect", "-f", "{{.Id}}", "scoped")
		scope := "libpod-" + strings.TrimSpace(id) + ".scope"
		out, err := exec.Command("systemctl", "show", "-p", "MemoryMax,Slice,ActiveState", scope).CombinedOutput()
		for _, want := range []string{"MemoryMax=67108864", "Slice=" + slice, "ActiveState=active"} {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("want %s of %s in %s (%v)", want, scope, out, err)
			}
		}
		p.want(0, "scoped", "rm", "-f", "-t", "0", "scoped")
		if out, err := exec.Command("systemctl", "stop", slice).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		nothingIn(t, "/run/skiff-runtime")
	})
}

// podman is podman with a state of its own, on skiff-runtime.
func podman(t *testing.T, groups string) *peer {
	t.Helper()
	dir, err := os.MkdirTemp("", "podman") // it wants short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// This root may have no CAP_SYS_RESOURCE: limits only as they are.
	conf := `[containers]
default_ulimits=["nofile=1024:2048","nproc=1024:2048"]
default_sysctls=[]
log_driver="k8s-file"
[engine]
events_logger="file"
runtime_supports_json=["skiff-runtime"]
`
	if err := os.WriteFile(filepath.Join(dir, "containers.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, env: []string{"CONTAINERS_CONF=" + filepath.Join(dir, "containers.conf"), "HOME=" + dir}, argv: []string{
		"podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--cgroup-manager", groups, "--runtime", harness.Bin(t, "skiff-runtime"),
	}}
}

func nothingIn(t *testing.T, dir string) {
	t.Helper()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s keeps %v", dir, left)
	}
}

func TestDockerdOnSkiffRuntime(t *testing.T) {
	needs(t, "dockerd", "containerd", "containerd-shim-runc-v2")
	dir, rootfs, parent := t.TempDir(), runtimetest.Rootfs(t), fmt.Sprintf("/skiff-dockerd-%d", os.Getpid())
	removeGroups(t, parent)
	tmpfsOver(t, "/run")
	tmpfsOver(t, "/etc/docker")
	log, err := os.Create(filepath.Join(dir, "dockerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	const sock = "unix:///run/peer.sock"
	daemon := exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", "/run/peer", "--pidfile", "/run/peer.pid", "-H", sock,
		"--bridge", "none", "--iptables=false", "--storage-driver", "vfs", "--cgroup-parent", parent, "--default-ulimit", "nofile=1024:1024",
		"--add-runtime", "skiff="+harness.Bin(t, "skiff-runtime"))
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
	}()
	docker := dockerFor(t, sock)
	tar := filepath.Join(dir, "image.tar")
	if out, err := exec.Command("tar", "-C", rootfs, "-cf", tar, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	p := &peer{t: t, argv: []string{docker}, env: []string{"DOCKER_HOST=" + sock}}
	p.want(0, "sha256:", "import", tar, "box:1")
	life(p, []string{"--runtime", "skiff", "--network", "none"}, []string{"box:1"})
	p.want(0, "", "run", "-d", "--name", "c2", "--runtime", "skiff", "--network", "none", "box:1", "sleep", "100")
	p.want(0, "c2", "update", "--memory", "64m", "--memory-swap", "128m", "c2")
	p.want(0, "67108864", "exec", "c2", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true")
	p.want(0, "c2", "rm", "-f", "c2")
}

// dockerFor finds a docker command line that talks to the daemon: a new one
// refuses an old daemon.
func dockerFor(t *testing.T, sock string) string {
	t.Helper()
	var candidates []string
	for d := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		if st, err := os.Stat(filepath.Join(d, "docker")); err == nil && st.Mode().IsRegular() {
			candidates = append(candidates, filepath.Join(d, "docker"))
		}
	}
	var last string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		for _, c := range candidates {
			out, err := exec.Command(c, "-H", sock, "version").CombinedOutput()
			if err == nil {
				return c
			}
			last = string(out)
		}
	}
	t.Skipf("no docker command line talks to the installed dockerd: %s", last)
	return ""
}
