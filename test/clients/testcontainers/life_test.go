// Package testcontainers uses testcontainers-go against the daemon of
// DOCKER_HOST with the image of SKIFF_TEST_IMAGE; TestTestcontainers of
// test/clients runs it. Its reaper, an image of Docker Hub, is switched off.
package testcontainers

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	tc "github.com/testcontainers/testcontainers-go"
	tcexec "github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

func image(t *testing.T) string {
	t.Helper()
	if i := os.Getenv("SKIFF_TEST_IMAGE"); i != "" {
		return i
	}
	t.Skip("SKIFF_TEST_IMAGE names no image")
	return ""
}

func run(t *testing.T, img string, opts ...tc.ContainerCustomizer) *tc.DockerContainer {
	t.Helper()
	c, err := tc.Run(t.Context(), img, opts...)
	if c != nil {
		t.Cleanup(func() { stop(t, c) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func stop(t *testing.T, c tc.Container) {
	t.Helper()
	if err := c.Terminate(context.WithoutCancel(t.Context()), tc.StopTimeout(0)); err != nil {
		t.Errorf("terminate: %v", err)
	}
}

func output(t *testing.T, c tc.Container, cmd ...string) string {
	t.Helper()
	code, out, err := c.Exec(t.Context(), cmd, tcexec.Multiplexed())
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil || code != 0 {
		t.Fatalf("%q: exit code %d, %v\n%s", cmd, code, err, text)
	}
	return string(text)
}

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestWaitStrategies(t *testing.T) {
	c := run(t, image(t),
		tc.WithCmd("sh", "-c", "echo preparing; mkdir -p /www && echo hi > /www/index.html; touch /done; echo ready; echo ready; exec httpd -f -h /www"),
		tc.WithExposedPorts("80/tcp"),
		tc.WithConfigModifier(func(c *container.Config) {
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "test", "-e", "/done"}, Interval: 100 * time.Millisecond}
		}),
		tc.WithWaitStrategyAndDeadline(30*time.Second, wait.ForAll(
			wait.ForLog("ready").WithOccurrence(2),
			wait.ForListeningPort("80/tcp"),
			wait.ForExec([]string{"test", "-e", "/done"}),
			wait.ForHealthCheck(),
			wait.ForFile("/www/index.html"),
			wait.ForHTTP("/").WithPort("80/tcp").WithStatusCodeMatcher(func(s int) bool { return s == 200 }),
		)))
	if !c.IsRunning() {
		t.Error("not running")
	}
	if _, err := c.Endpoint(t.Context(), "http"); err != nil {
		t.Error(err)
	}
	once := run(t, image(t), tc.WithCmd("sh", "-c", "sleep 0.2; exit 3"), tc.WithWaitStrategy(wait.ForExit().WithExitTimeout(20*time.Second)))
	s, err := once.State(t.Context())
	if err != nil || s.ExitCode != 3 {
		t.Errorf("state %+v, %v", s, err)
	}
	never, err := tc.Run(t.Context(), image(t), tc.WithCmd("sleep", "1000"), tc.WithWaitStrategyAndDeadline(300*time.Millisecond, wait.ForLog("never")))
	if err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("a log line that never comes: %v", err)
	}
	stop(t, never)
}

func TestExecAndFiles(t *testing.T) {
	c := run(t, image(t), tc.WithCmd("sleep", "1000"), tc.WithEnv(map[string]string{"A": "b"}), tc.WithFiles(
		tc.ContainerFile{Reader: strings.NewReader("given"), ContainerFilePath: "/etc/given", FileMode: 0o640}))
	check(t, "a file given at creation", output(t, c, "sh", "-c", "cat /etc/given; stat -c %a /etc/given"), "given640\n")
	check(t, "environment", output(t, c, "sh", "-c", "echo $A"), "b\n")
	code, out, err := c.Exec(t.Context(), []string{"sh", "-c", "id -u; pwd; echo $C; echo bad >&2; exit 5"},
		tcexec.WithUser("33"), tcexec.WithWorkingDir("/tmp"), tcexec.WithEnv([]string{"C=d"}), tcexec.Multiplexed())
	if err != nil || code != 5 {
		t.Fatalf("exit code %d, %v", code, err)
	}
	text, _ := io.ReadAll(out)
	for _, w := range []string{"33\n", "/tmp\n", "d\n", "bad\n"} {
		if !strings.Contains(string(text), w) {
			t.Errorf("%q has no %q", text, w)
		}
	}

	if err := c.CopyToContainer(t.Context(), []byte("one"), "/tmp/a/one", 0o600); err != nil {
		t.Error(err)
	}
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "f"), []byte("deep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.CopyDirToContainer(t.Context(), dir, "/tmp/dir", 0o755); err != nil {
		t.Error(err)
	}
	if err := c.CopyFileToContainer(t.Context(), filepath.Join(dir, "sub", "f"), "/tmp/f", 0o644); err != nil {
		t.Error(err)
	}
	check(t, "copied", output(t, c, "cat", "/tmp/a/one", "/tmp/dir/sub/f", "/tmp/f"), "onedeepdeep")
	r, err := c.CopyFileFromContainer(t.Context(), "/tmp/f")
	if err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(r)
	if err != nil || string(back) != "deep" {
		t.Errorf("copied back: %q, %v", back, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.CopyFileFromContainer(t.Context(), "/nosuch"); err == nil {
		t.Error("a file that is not there was copied")
	}

	none := time.Duration(0)
	if err := c.Stop(t.Context(), &none); err != nil || c.IsRunning() {
		t.Errorf("stop: %v, running %v", err, c.IsRunning())
	}
	if err := c.Start(t.Context()); err != nil {
		t.Error(err)
	}
	check(t, "after a restart", output(t, c, "cat", "/tmp/f"), "deep")
}

// lines collects what a container prints.
type lines struct {
	mu  sync.Mutex
	got []string
}

func (l *lines) Accept(x tc.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, x.LogType+" "+strings.TrimSpace(string(x.Content)))
}

func (l *lines) has(want string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.got, want)
}

func TestLogs(t *testing.T) {
	var seen lines
	c := run(t, image(t), tc.WithCmd("sh", "-c", "echo first; echo second >&2; while sleep 0.1; do echo more; done"),
		tc.WithLogConsumers(&seen), tc.WithWaitStrategy(wait.ForLog("more").WithOccurrence(3)))
	deadline := time.Now().Add(10 * time.Second)
	for !seen.has("STDOUT first") || !seen.has("STDERR second") || !seen.has("STDOUT more") {
		if time.Now().After(deadline) {
			t.Fatalf("streamed: %q", seen.got)
		}
		time.Sleep(10 * time.Millisecond)
	}
	r, err := c.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	text, err := io.ReadAll(io.LimitReader(r, 13))
	if err != nil || string(text) != "first\nsecond\n" && string(text) != "second\nfirst\n" { // two pipes
		t.Errorf("logs: %q, %v", text, err)
	}
}

func TestNetworksAndMounts(t *testing.T) {
	nw, err := network.New(t.Context(), network.WithLabels(map[string]string{"a": "b"}), network.WithAttachable())
	if err != nil {
		t.Fatal(err)
	}
	tc.CleanupNetwork(t, nw)
	t.Cleanup(func() {
		c, err := client.New(client.FromEnv)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.VolumeRemove(context.WithoutCancel(t.Context()), "tc-volume", client.VolumeRemoveOptions{Force: true}); err != nil {
			t.Errorf("volume: %v", err)
		}
	})
	volume := tc.WithMounts(tc.VolumeMount("tc-volume", "/data"))
	server := run(t, image(t), tc.WithCmd("sh", "-c", "echo served > /data/index.html; exec httpd -f -h /data"), volume,
		network.WithNetwork([]string{"server"}, nw), tc.WithTmpfs(map[string]string{"/scratch": "size=1m"}),
		tc.WithExposedPorts("80/tcp"), tc.WithWaitStrategy(wait.ForListeningPort("80/tcp")))
	user := run(t, image(t), tc.WithCmd("sleep", "1000"), network.WithNetwork(nil, nw), volume,
		tc.WithImageMount(image(t), "bin", "/image"))
	check(t, "by alias", output(t, user, "wget", "-qO-", "http://server"), "served\n")
	check(t, "the volume", output(t, user, "cat", "/data/index.html"), "served\n")
	if got := output(t, user, "ls", "/image"); !strings.Contains(got, "busybox") {
		t.Errorf("the image's mount has %q", got)
	}
	aliases, err := server.NetworkAliases(t.Context())
	if err != nil || !slices.Contains(aliases[nw.Name], "server") {
		t.Errorf("aliases %v, %v", aliases, err)
	}
	if ip, err := server.ContainerIP(t.Context()); err != nil || ip == "" {
		t.Errorf("address %q, %v", ip, err)
	}
	if _, err := server.MappedPort(t.Context(), "80/tcp"); err != nil {
		t.Error(err)
	}
}

func TestReuse(t *testing.T) {
	first := run(t, image(t), tc.WithCmd("sleep", "1000"), tc.WithReuseByName("tc-reused"))
	again, err := tc.Run(t.Context(), image(t), tc.WithCmd("sleep", "1000"), tc.WithReuseByName("tc-reused"))
	if err != nil {
		t.Fatal(err)
	}
	check(t, "the reused container", again.GetContainerID(), first.GetContainerID())
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+image(t)+"\nARG WHO\nRUN echo built for $WHO > /made\nCMD [\"sleep\", \"1000\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	who := "you"
	var log bytes.Buffer
	c := run(t, "", tc.WithDockerfile(tc.FromDockerfile{Context: dir, Repo: "tc-built", Tag: "1", BuildArgs: map[string]*string{"WHO": &who}, BuildLogWriter: &log}))
	check(t, "what was built", output(t, c, "cat", "/made"), "built for you\n")
	if !strings.Contains(log.String(), "RUN echo built") {
		t.Errorf("the build's log: %q", log.String())
	}
}
