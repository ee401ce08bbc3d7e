//go:build root

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// buildOnNetwork builds with steps that need a container of a network.
func buildOnNetwork(t *testing.T, d *harness.Daemon) {
	d.Run("docker", "network", "create", "--subnet", "10.77.0.0/24", "buildnet")
	d.Run("docker", "run", "-d", "--network", "buildnet", "--name", "mirror", "-h", "mirrorhost", "busybox", "sh", "-c", httpd)
	dir := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN for i in 1 2 3 4 5; do wget -qO /page http://mirror/ && break; sleep 1; done; ip -4 -o addr > /addr\nRUN --network=none ip -o link > /links\n"})
	fetched := func(t *testing.T, img string) {
		t.Helper()
		want(t, "what the network serves", d.Run("docker", "run", "--rm", img, "cat", "/page"), "mirrorhost")
		if addr := d.Run("docker", "run", "--rm", img, "cat", "/addr"); !strings.Contains(addr, "10.77.0.") {
			t.Errorf("addresses: %s", addr)
		}
		if links := d.Run("docker", "run", "--rm", img, "cat", "/links"); strings.Contains(links, "eth0") {
			t.Errorf("RUN --network=none has interfaces: %s", links)
		}
	}
	fetched(t, d.Run("docker", "build", "-q", "--no-cache", "--network", "buildnet", dir))
	id := d.Run("docker", "network", "inspect", "-f", "{{.Id}}", "buildnet")
	fetched(t, d.Run("docker", "build", "-q", "--no-cache", "--network", id, dir))

	self := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN wget -qO /page http://localhost/ && cat /etc/hosts > /h\n"})
	img := d.Run("docker", "build", "-q", "--network", "container:mirror", self)
	want(t, "what the container serves", d.Run("docker", "run", "--rm", img, "cat", "/page"), "mirrorhost")
	if hosts := d.Run("docker", "run", "--rm", img, "cat", "/h"); !strings.Contains(hosts, "mirrorhost") {
		t.Errorf("hosts of the container's network: %s", hosts)
	}
	for mode, why := range map[string]string{"nosuch": "network nosuch not found", "container:nosuch": "No such container: nosuch"} {
		r := d.Try("", "docker", "build", "--network", mode, "--no-cache", self)
		if r.Code == 0 || !strings.Contains(r.Stderr, why) {
			t.Errorf("--network %s: %d %s", mode, r.Code, r.Stderr)
		}
	}
	// By BuildKit's own API.
	line := []string{"X=1", harness.Bin(t, "skiff"), "build", "-q", "--secret", "id=x,env=X", "--no-cache", "--network", "buildnet", "-t", "bynet", dir}
	if r := d.Try("", "env", line...); r.Code != 0 {
		t.Errorf("skiff build: %s", r.Stderr)
	} else {
		fetched(t, "bynet")
	}

	// A daemon that is killed during a step leaves nothing on the network.
	d.Run("docker", "rm", "-f", "mirror")
	slow := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN sleep 1000\n"})
	ended := make(chan harness.Result, 1)
	go func() { ended <- d.Try("", "docker", "build", "--network", "buildnet", slow) }()
	harness.Eventually(t, 20*time.Second, func() string {
		if n := d.Run("docker", "network", "inspect", "-f", "{{len .Containers}}", "buildnet"); n != "1" {
			return "on the network: " + n
		}
		return ""
	})
	if r := d.Try("", "docker", "network", "rm", "buildnet"); r.Code == 0 {
		t.Error("a network with a step on it was removed")
	}
	d.Kill()
	d.Launch()
	if r := <-ended; r.Code == 0 {
		t.Errorf("the build of a killed daemon: %s", r.Stdout)
	}
	want(t, "on the network after a restart", d.Run("docker", "network", "inspect", "-f", "{{len .Containers}}", "buildnet"), "0")
	d.Run("docker", "network", "rm", "buildnet")
}
