//go:build root

package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

const compose2File = `
name: shop
services:
  db:
    image: img
    command: sh -c 'echo "$$GREETING" >> /data/state; echo started; httpd -f -p 5432 -h /data'
    environment: {GREETING: one}
    volumes: ["dbdata:/data", {type: tmpfs, target: /scratch, tmpfs: {size: 1m}}]
    networks: [back]
    healthcheck: {test: ["CMD", "test", "-s", "/data/state"], interval: 1s, start_period: 5s, start_interval: 100ms, retries: 20}
    secrets: [password]
    stop_grace_period: 0s
  migrate:
    image: img
    command: sh -c 'wget -qO- http://db:5432/state > /dev/null && echo migrated'
    networks: [back]
    depends_on: {db: {condition: service_healthy}}
  web:
    build: {context: ./web, args: {GREETING: hello}, labels: {built: by-compose}}
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    ports: ["127.0.0.1::80"]
    networks: {back: {aliases: [www]}, front: {}}
    volumes: ["./web:/src:ro"]
    configs: [{source: site, target: /etc/site.conf}]
    restart: unless-stopped
    init: true
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M, pids: 50}}}
    ulimits: {nofile: 512}
    logging: {driver: json-file, options: {max-size: 1m}}
    stop_grace_period: 0s
  debug:
    image: img
    profiles: [debug]
    command: sleep 10000
    network_mode: service:web
    stop_grace_period: 0s
volumes: {dbdata: {labels: {kept: "yes"}}}
networks:
  front:
  back: {internal: true, ipam: {config: [{subnet: 10.73.0.0/24}]}}
secrets: {password: {file: ./password}}
configs: {site: {file: ./site.conf}}
`

// TestCompose2 and TestCompose5 bring up a web and database project whose
// parts wait for each other's health, with docker compose as a plugin of
// docker's command line.
func TestCompose2(t *testing.T) { compose(t, "docker-compose") }

func TestCompose5(t *testing.T) { compose(t, "docker-compose-5") }

func compose(t *testing.T, tool string) {
	if !harness.HaveDocker() {
		t.Skip("docker's command line is not here")
	}
	plugins := map[string]string{"docker-compose": harness.Tool(t, tool), "docker-buildx": harness.Tool(t, "docker-buildx")}
	d := harness.Start(t)
	usePlugins(t, d, plugins)
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["sh"]`, "-", "img")
	dir := filepath.Join(d.Dir, "project")
	write(t, filepath.Join(dir, "compose.yml"), compose2File)
	write(t, filepath.Join(dir, "password"), "s3cret")
	write(t, filepath.Join(dir, "site.conf"), "site")
	write(t, filepath.Join(dir, "web", "Dockerfile"),
		"FROM img\nARG GREETING\nRUN mkdir /www && echo $GREETING compose > /www/index.html\nCMD [\"httpd\", \"-f\", \"-h\", \"/www\"]\n")
	c := project{d: d, t: t, dir: dir}
	c.rises()
	c.changes()
	c.watches()
	c.goes()
}

// project is one compose project on a daemon.
type project struct {
	d   *harness.Daemon
	t   *testing.T
	dir string
}

func (c project) run(args ...string) string {
	c.t.Helper()
	return c.d.Run("docker", append([]string{"compose", "--ansi", "never", "--progress", "plain", "-f", filepath.Join(c.dir, "compose.yml")}, args...)...)
}

func (c project) has(want string, args ...string) {
	c.t.Helper()
	if got := c.run(args...); !strings.Contains(got, want) {
		c.t.Errorf("compose %s: got %q, want %q in it", strings.Join(args, " "), got, want)
	}
}

func (c project) rises() {
	t := c.t
	t.Helper()
	c.run("config", "-q")
	c.run("up", "-d", "--wait", "--build", "--quiet-pull", "web", "db")
	want(t, "the page", c.d.Run("wget", "-qO-", "http://"+c.run("port", "web", "80")), "hello compose")
	want(t, "health", c.d.Run("docker", "inspect", "-f", "{{.State.Health.Status}}", "shop-db-1"), "healthy")
	c.has("migrated", "logs", "migrate")
	c.has("one", "exec", "-T", "web", "wget", "-qO-", "http://db:5432/state")
	c.has("hello compose", "exec", "-T", "db", "wget", "-qO-", "http://www")
	c.has("s3cret", "exec", "-T", "db", "cat", "/run/secrets/password")
	c.has("site", "exec", "-T", "web", "cat", "/etc/site.conf")
	c.has("started", "logs", "--no-log-prefix", "-t", "db")
	c.has(`"Service":"web"`, "ps", "--format", "json")
	c.has("(healthy)", "ps")
	c.has("shop-migrate-1", "ps", "-a")
	c.has("httpd", "top", "web")
	c.has("shop-db-1", "stats", "--no-stream")
	want(t, "the image's label", c.d.Run("docker", "inspect", "-f", "{{.Config.Labels.built}}", "shop-web"), "by-compose")
}

func (c project) changes() {
	t := c.t
	t.Helper()
	before := c.run("ps", "-q", "web")
	c.run("up", "-d", "--wait", "web", "db")
	want(t, "nothing changed: the same container", c.run("ps", "-q", "web"), before)
	write(t, filepath.Join(c.dir, "compose.yml"), strings.Replace(compose2File, "GREETING: one", "GREETING: two", 1))
	c.run("up", "-d", "--wait", "--scale", "web=3", "web", "db")
	c.has("one\ntwo", "exec", "-T", "db", "cat", "/data/state")
	if n := len(strings.Fields(c.run("ps", "-q", "web"))); n != 3 {
		t.Errorf("%d containers of web, want 3", n)
	}
	c.run("scale", "web=1")
	if n := len(strings.Fields(c.run("ps", "-q", "web"))); n != 1 {
		t.Errorf("%d containers of web, want 1", n)
	}
	c.has("FROM img", "run", "--rm", "--no-deps", "web", "cat", "/src/Dockerfile")
	c.run("--profile", "debug", "up", "-d", "--no-recreate", "debug")
	c.has("hello compose", "exec", "-T", "debug", "wget", "-qO-", "http://127.0.0.1")
	c.run("--profile", "debug", "rm", "-fs", "debug")
	write(t, filepath.Join(c.dir, "file"), "copied")
	c.run("cp", filepath.Join(c.dir, "file"), "web:/tmp/file")
	c.has("copied", "exec", "-T", "web", "cat", "/tmp/file")
	c.run("cp", "web:/tmp/file", filepath.Join(c.dir, "back"))
}

func (c project) watches() {
	t := c.t
	t.Helper()
	c.run("stop")
	want(t, "after stop", c.run("ps", "-q"), "")
	c.has("Exited", "ps", "-a")
	c.run("start", "db", "web")
	c.run("restart", "-t", "0", "web")
	harness.Eventually(t, 20*time.Second, func() string {
		r := c.d.Try("", "wget", "-T", "2", "-qO-", "http://"+c.run("port", "web", "80"))
		if r.Out() != "hello compose" {
			return "after the restart: " + r.Stdout + r.Stderr
		}
		return ""
	})
	c.run("pause", "web")
	c.has("(Paused)", "ps")
	c.run("unpause", "web")
	c.run("kill", "-s", "KILL", "web")
	c.has("exited", "ls", "-a")
	c.run("rm", "-f", "web")
	c.has("shop", "ls", "-a", "--format", "json")
	c.has("shop_dbdata", "volumes")
}

func (c project) goes() {
	t := c.t
	t.Helper()
	c.run("up", "-d", "--wait", "web", "db")
	c.run("down")
	want(t, "the volume after down", c.d.Run("docker", "volume", "ls", "-q"), "shop_dbdata")
	c.run("create", "db")
	c.run("down", "-v", "--rmi", "local", "--remove-orphans")
	want(t, "volumes after down -v", c.d.Run("docker", "volume", "ls", "-q"), "")
	want(t, "containers", c.d.Run("docker", "ps", "-aq"), "")
	want(t, "networks", c.d.Run("docker", "network", "ls", "-q", "--filter", "type=custom"), "")
	want(t, "images", c.d.Run("docker", "images", "--format", "{{.Repository}}"), "img")
}

// usePlugins puts plugins of docker's command line where it looks for them.
func usePlugins(t *testing.T, d *harness.Daemon, plugins map[string]string) {
	t.Helper()
	dir := filepath.Join(d.Dir, "docker-config", "cli-plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, bin := range plugins {
		if err := os.Symlink(bin, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
