//go:build root

package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// apiVersion is what dockerd 20.10 speaks; both daemons are asked in it.
const apiVersion = "1.41"

// engine is one of the two daemons.
type engine struct {
	name, sock, work string // work is the directory its commands run in
	places           *strings.Replacer
	http             *http.Client
}

func newEngine(t *testing.T, name, sock string, places ...string) *engine {
	t.Helper()
	e := &engine{name: name, sock: sock, work: filepath.Join(t.TempDir(), "work")}
	if err := os.Mkdir(e.work, 0o755); err != nil {
		t.Fatal(err)
	}
	e.places = strings.NewReplacer(append([]string{"unix://" + sock, "<sock>", sock, "<sock>", e.work, "<work>"}, places...)...)
	e.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", sock)
		},
		DisableKeepAlives: true,
	}}
	t.Cleanup(func() { e.reset(t) })
	return e
}

// startSkiff starts skiffd in the test's namespaces.
func startSkiff(t *testing.T) *engine {
	t.Helper()
	d := harness.Start(t)
	e := newEngine(t, "skiff", d.Sock, d.DataRoot, "<data>", d.ExecRoot, "<run>", d.CgroupParent, "<cgroup>")
	e.ready(t)
	return e
}

// startDocker starts dockerd in namespaces of its own.
func startDocker(t *testing.T, dockerd string) *engine {
	t.Helper()
	dir, err := os.MkdirTemp("", "skiff-parity-")
	if err != nil {
		t.Fatal(err)
	}
	run, data, cgroup := filepath.Join(dir, "run"), filepath.Join(dir, "data"), "/"+filepath.Base(dir)
	sock := filepath.Join(dir, "sock")
	conf := "{}"
	if !allOfRoot() {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(self, filepath.Join(dir, "runc")); err != nil {
			t.Fatal(err)
		}
		conf = fmt.Sprintf(`{"runtimes": {"confined": {"path": %q}}, "default-runtime": "confined"}`, filepath.Join(dir, "runc"))
	}
	if err := os.WriteFile(filepath.Join(dir, "daemon.json"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(run, 0o711); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "-n", "-m", "sh", "-c", `ip link set lo up && mount -t tmpfs -o mode=711 tmpfs "$1" && shift && exec "$@"`, "sh", run,
		dockerd, "--exec-root", run, "--data-root", data, "-H", "unix://"+sock, "--pidfile", filepath.Join(dir, "pid"),
		"--cgroup-parent", cgroup, "--config-file", filepath.Join(dir, "daemon.json"))
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(dockerd)+":"+filepath.Join(filepath.Dir(dockerd), "..", "bin")+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = log.Close()
		removeCgroups(cgroup)
		if !t.Failed() || os.Getenv("KEEP") == "" {
			_ = os.RemoveAll(dir)
		}
	})
	e := newEngine(t, "docker", sock, data, "<data>", run, "<run>", cgroup, "<cgroup>")
	e.ready(t)
	return e
}

// ready waits for the daemon and loads the base image.
func (e *engine) ready(t *testing.T) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, func() string {
		if code, _ := e.call("GET", "/_ping", nil); code != http.StatusOK {
			return e.name + " does not answer"
		}
		return ""
	})
	e.loadBase(t)
}

// loadBase makes the image that all scripts use.
func (e *engine) loadBase(t *testing.T) {
	t.Helper()
	q := url.Values{"fromSrc": {"-"}, "repo": {"img"}, "changes": {`CMD ["sh"]`, "ENV PATH=/bin"}}
	if code, body := e.call("POST", "/images/create?"+q.Encode(), strings.NewReader(harness.BusyboxTar(t))); code != http.StatusOK {
		t.Fatalf("%s: import: %d %s", e.name, code, body)
	}
}

// call asks the daemon in the API version of both.
func (e *engine) call(method, path string, body io.Reader) (int, []byte) {
	req, err := http.NewRequest(method, "http://localhost/v"+apiVersion+path, body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		data = append(data, "\n<cut>"...)
	}
	return resp.StatusCode, data
}

func (e *engine) list(path string) []map[string]any {
	_, data := e.call("GET", path, nil)
	var out []map[string]any
	_ = json.Unmarshal(data, &out)
	return out
}

// reset removes what a script made, so that the next one finds what it would
// find alone.
func (e *engine) reset(t *testing.T) {
	t.Helper()
	for _, c := range e.list("/containers/json?all=1") {
		id := fmt.Sprint(c["Id"])
		_, _ = e.call("POST", "/containers/"+id+"/unpause", nil)
		_, _ = e.call("DELETE", "/containers/"+id+"?force=1&v=1", nil)
	}
	_, _ = e.call("POST", "/networks/prune", nil)
	_, vols := e.call("GET", "/volumes", nil)
	var v struct{ Volumes []struct{ Name string } }
	_ = json.Unmarshal(vols, &v)
	for _, x := range v.Volumes {
		_, _ = e.call("DELETE", "/volumes/"+x.Name+"?force=1", nil)
	}
	for _, i := range e.list("/images/json?all=1") {
		tags, _ := i["RepoTags"].([]any)
		for _, tag := range tags {
			if tag != "img:latest" && tag != "<none>:<none>" {
				_, _ = e.call("DELETE", "/images/"+fmt.Sprint(tag)+"?force=1", nil)
			}
		}
	}
	_, _ = e.call("POST", "/build/prune?all=1", nil)
	_, _ = e.call("POST", "/images/prune", nil)
	if code, _ := e.call("GET", "/images/img/json", nil); code != http.StatusOK {
		e.loadBase(t)
	}
	if err := os.RemoveAll(e.work); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(e.work, 0o755); err != nil {
		t.Error(err)
	}
}

// shell runs a command line in the engine's directory.
func (e *engine) shell(line string, vars map[string]string) (code int, stdout, stderr string) {
	ctx, cancel := context.WithTimeout(context.Background(), 45*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = e.work
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + e.work, "TERM=xterm", "LC_ALL=C", "TZ=UTC", "DOCKER_HOST=unix://" + e.sock,
		"DOCKER_API_VERSION=" + apiVersion, "DOCKER_CONFIG=" + filepath.Join(e.work, ".docker"), "DOCKER_BUILDKIT=0", "WORK=" + e.work,
	}
	for k, v := range vars {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return -1, out.String(), errOut.String() + "\n<no end>"
	case cmd.ProcessState == nil:
		return -1, "", err.Error()
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// removeCgroups removes what dockerd left below its parent.
func removeCgroups(parent string) {
	var dirs []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (strings.HasSuffix(p, parent) || strings.Contains(p, parent+"/")) {
			dirs = append(dirs, p)
		}
		return nil
	})
	slices.Reverse(dirs)
	for _, d := range dirs {
		_ = os.Remove(d)
	}
}
