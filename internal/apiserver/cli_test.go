package apiserver

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listen starts a server over the fake on a unix socket.
func listen(t testing.TB, f *fake) (s *Server, socket string) {
	t.Helper()
	return listenTo(t, f.backends())
}

func listenTo(t testing.TB, b Backends) (s *Server, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // short: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s = New(Options{Backends: b, Version: "0.0"})
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, socket
}

type docker struct {
	t      *testing.T
	socket string
	config string
}

func newDocker(t *testing.T, socket string) *docker {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("no docker client here")
	}
	return &docker{t, socket, t.TempDir()}
}

// run returns what the command printed and its exit code.
func (d *docker) run(stdin string, args ...string) (out, errOut string, code int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "docker", args...)
	c.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.socket, "DOCKER_CONFIG="+d.config, "DOCKER_CONTEXT=", "DOCKER_CLI_HINTS=false")
	var stdout, stderr bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := c.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) || ctx.Err() != nil {
		d.t.Fatalf("docker %v: %v\n%s%s", args, err, &stdout, &stderr)
	}
	return stdout.String(), stderr.String(), c.ProcessState.ExitCode()
}

func TestDockerClient(t *testing.T) {
	f := newFake()
	_, socket := listen(t, f)
	d := newDocker(t, socket)
	dockerfile := filepath.Join(t.TempDir(), "Dockerfile")
	if err := os.WriteFile(dockerfile, []byte("FROM busybox\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		stdin, args string
		code        int
		out, err    string // contained in
	}{
		{"", "version", 0, "Engine:", ""},
		{"", "info", 0, "overlay2", ""},
		{"", "run --name web -d busybox", 0, "", ""},
		{"", "ps", 0, "web", ""},
		{"", "ps --filter name=nothing -q", 0, "", ""},
		{"", "inspect -f {{.NetworkSettings.IPAddress}} web", 0, "172.17.0.2", ""},
		{"", "run --name web busybox", 125, "", "is already in use by container"},
		{"", "run --rm busybox echo hello", 0, "hello\n", ""},
		{"", "run --rm busybox warn oops", 0, "", "oops\n"},
		{"", "run --rm busybox exit 3", 3, "", ""},
		{"to cat\n", "run --rm -i busybox cat", 0, "to cat\n", ""},
		{"", "run --rm missing:1 true", 125, "", "pull access denied"},
		{"", "run --rm alpine echo pulled", 0, "pulled", "Unable to find image 'alpine:latest' locally"},
		{"", "run --name done busybox echo one", 0, "one", ""},
		{"", "logs done", 0, "one\n", ""},
		{"", "logs -f done", 0, "one\n", ""},
		{"", "logs nothing", 1, "", "No such container: nothing"},
		{"", "wait done", 0, "0\n", ""},
		{"", "exec web echo from exec", 0, "from exec\n", ""},
		{"in\n", "exec -i web cat", 0, "in\n", ""},
		{"", "exec web exit 9", 9, "", ""},
		{"", "exec web nosuch", 127, "executable file not found", ""},
		{"", "exec -d web sleep", 0, "", ""},
		{"", "stats --no-stream web", 0, "1MiB / 1GiB", ""},
		{"", "top web", 0, "-ef", ""},
		{"", "cp web:/etc/hostname -", 0, "fake", ""},
		{"", "cp web:/missing -", 1, "", "Could not find the file"},
		{"", "cp " + dockerfile + " web:/tmp", 0, "", ""},
		{"", "export web", 0, "etc/hostname", ""},
		{"", "commit web mine", 0, "sha256:cccc", ""},
		{"", "rename web www", 0, "", ""},
		{"", "kill www", 0, "www", ""},
		{"", "kill www", 1, "", "is not running"},
		{"", "rm www done", 0, "www\ndone\n", ""},
		{"", "images", 0, "busybox", ""},
		{"", "image inspect busybox", 0, "amd64", ""},
		{"", "history busybox", 0, "me", ""},
		{"", "pull busybox", 0, "Pull complete", ""},
		{"", "pull missing", 1, "", "pull access denied"},
		{"", "pull broken", 1, "", "the registry went away"},
		{"", "push busybox", 0, "The push refers to repository", ""},
		{"", "tag busybox other:1", 0, "", ""},
		{"", "save busybox", 0, "manifest.json", ""},
		{"", "save missing", 1, "", "No such image: missing"},
		{"a tar", "load", 0, "Loaded image: busybox:latest", ""},
		{"a tar", "import - imported", 0, "sha256:dddd", ""},
		{"", "rmi busybox", 0, "Untagged: busybox", ""},
		{"", "build --build-arg A=b -t x " + filepath.Dir(dockerfile), 0, "Successfully built", ""},
		{"", "build -q " + filepath.Dir(dockerfile), 0, "sha256:eeee", ""},
		{"", "build --target broken " + filepath.Dir(dockerfile), 42, "", "non-zero code: 42"},
		{"", "network create mine", 0, "", ""},
		{"", "network ls", 0, "mine", ""},
		{"", "network inspect mine", 0, `"Name": "mine"`, ""},
		{"", "network connect mine web", 0, "", ""},
		{"", "network rm mine", 0, "mine", ""},
		{"", "network rm mine", 1, "", "network mine not found"},
		{"", "volume create data", 0, "data", ""},
		{"", "volume ls", 0, "data", ""},
		{"", "volume rm data", 0, "data", ""},
		{"", "volume rm data", 1, "", "no such volume"},
		{"", "system df", 0, "Build Cache", ""},
		{"", "system df -v", 0, "Images space usage", ""},
		{"", "events --since 1 --until 0s --filter event=exec_create", 0, "exec_create: echo from exec", ""},
		{"", "container prune -f", 0, "reclaimed", ""},
		{"", "builder prune -f", 0, "3B", ""},
		{"", "service ls", 1, "", "This node is not a swarm manager"},
		{"", "plugin ls", 0, "", ""},
		{"", "search thing", 0, "thing", ""},
	} {
		t.Run(strings.ReplaceAll(tc.args, "/", "_"), func(t *testing.T) {
			d := &docker{t, d.socket, d.config}
			out, errOut, code := d.run(tc.stdin, strings.Fields(tc.args)...)
			if code != tc.code || !strings.Contains(out, tc.out) || !strings.Contains(errOut, tc.err) {
				t.Errorf("exit code %d, want %d\nstdout, want %q:\n%s\nstderr, want %q:\n%s", code, tc.code, tc.out, out, tc.err, errOut)
			}
		})
	}
	if f.built.BuildArgs == nil && f.built.Dockerfile != "Dockerfile" {
		t.Errorf("build options %+v", f.built)
	}
}
