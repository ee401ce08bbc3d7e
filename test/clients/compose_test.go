//go:build root

package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

const composeFile = `version: "3.7"
services:
  db:
    image: img
    command: sh -c 'echo $$GREETING >> /data/state; echo started; sleep 10000'
    environment: {GREETING: one}
    volumes: ["dbdata:/data", "/anonymous"]
    networks: [back]
    stop_grace_period: 0s
  web:
    build: ./web
    depends_on: [db]
    ports: ["127.0.0.1::80"]
    networks: {back: {aliases: [www]}, default: {}}
    volumes: ["./web:/src:ro"]
    restart: unless-stopped
    init: true
    stop_grace_period: 0s
volumes: {dbdata: {}}
networks: {back: {ipam: {config: [{subnet: 10.72.0.0/24}]}}}
`

// TestCompose1 brings a project up, changes it, and takes it away with Debian's
// docker-compose 1.29, which is written in Python.
func TestCompose1(t *testing.T) {
	out, err := exec.Command("docker-compose", "version", "--short").Output()
	if err != nil || !strings.HasPrefix(string(out), "1.") {
		t.Skip("docker-compose 1 is not here (package docker-compose)")
	}
	d := harness.Start(t)
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["sh"]`, "-", "img")
	dir := filepath.Join(d.Dir, "project")
	write(t, filepath.Join(dir, "docker-compose.yml"), composeFile)
	write(t, filepath.Join(dir, "web", "Dockerfile"),
		"FROM img\nRUN mkdir /www && echo hello compose > /www/index.html\nCMD [\"httpd\", \"-f\", \"-h\", \"/www\"]\n")
	t.Setenv("COMPOSE_DOCKER_CLI_BUILD", "0") // its own builds
	compose := func(args ...string) string {
		t.Helper()
		return d.Run("docker-compose", append([]string{"--no-ansi", "--project-directory", dir, "-f", filepath.Join(dir, "docker-compose.yml")}, args...)...)
	}
	has := func(got, want string) {
		t.Helper()
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	compose("up", "-d")
	has(d.Run("wget", "-qO-", "http://"+compose("port", "web", "80")), "hello compose")
	has(compose("exec", "-T", "web", "ping", "-c1", "db"), "1 packets received")
	has(compose("exec", "-T", "db", "wget", "-qO-", "http://www"), "hello compose")
	has(compose("logs", "db"), "started")
	has(compose("ps"), "project_web_1")
	has(compose("top", "web"), "httpd")
	has(compose("run", "--rm", "web", "cat", "/src/Dockerfile"), "FROM img")
	compose("exec", "-T", "db", "touch", "/anonymous/kept")

	write(t, filepath.Join(dir, "docker-compose.yml"), strings.Replace(composeFile, "GREETING: one", "GREETING: two", 1))
	compose("up", "-d", "--scale", "web=2")
	has(compose("exec", "-T", "db", "cat", "/data/state"), "one\ntwo")
	has(compose("exec", "-T", "db", "ls", "/anonymous"), "kept") // taken over by the new container
	compose("restart", "-t", "0")
	compose("pause", "web")
	compose("unpause", "web")
	compose("kill", "web")
	compose("rm", "-fs", "web")
	compose("up", "-d")
	compose("down", "-v", "--rmi", "local")
	has(d.Run("docker", "system", "df"), "Containers      0")
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
