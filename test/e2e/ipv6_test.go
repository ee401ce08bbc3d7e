//go:build root

package e2e

import (
	"strings"
	"testing"
)

func TestIPv6(t *testing.T) {
	d := daemon(t)
	d.Run("docker", "network", "create", "--ipv6", "--subnet", "10.79.0.0/24", "--subnet", "fd00:79::/64", "dual")
	d.Run("docker", "network", "create", "--ipv6", "--ipv4=false", "six")
	d.Run("docker", "run", "-d", "--name", "web", "-h", "webhost", "--network", "dual", "--ip6", "fd00:79::80", "--network-alias", "www",
		"-p", "18094:80", "busybox", "sh", "-c", "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p '[::]:80' -h /www")
	check := func(t *testing.T) {
		t.Helper()
		want(t, "by loopback", fetch(t, "http://[::1]:18094/"), "webhost\n")
		want(t, "by IPv4", fetch(t, "http://127.0.0.1:18094/"), "webhost\n")
		want(t, "by the container's address", fetch(t, "http://[fd00:79::80]/"), "webhost\n")
		want(t, "by name", d.Run("docker", "run", "--rm", "--init", "--network", "dual", "busybox", "sh", "-c", "nslookup -type=aaaa www | grep -o fd00:79::80 && timeout 5 wget -qO- http://www/"), "fd00:79::80\nwebhost")
		want(t, "inspect", d.Run("docker", "inspect", "-f",
			"{{with .NetworkSettings.Networks.dual}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}} {{.IPAMConfig.IPv6Address}}{{end}}", "web"), "fd00:79::80/64 fd00:79::1 fd00:79::80")
		want(t, "ports", d.Run("docker", "port", "web", "80/tcp"), "0.0.0.0:18094\n[::]:18094")
	}
	check(t)
	want(t, "a network without IPv4", d.Run("docker", "run", "--rm", "--network", "six", "busybox", "sh", "-c", "ip -4 addr show eth0; ip -6 route show default | wc -l"), "1")
	r := d.Try("", "docker", "run", "--rm", "--init", "--network", "six", "busybox", "timeout", "1", "wget", "-qO-", "http://[fd00:79::80]/")
	if r.Code == 0 {
		t.Error("networks are not isolated from each other")
	}
	want(t, "hosts", d.Run("docker", "exec", "web", "grep", "webhost", "/etc/hosts"), "10.79.0.2\twebhost\nfd00:79::80\twebhost")

	d.Kill()
	d.Launch()
	check(t)
	d.Run("docker", "restart", "-t", "0", "web")
	check(t)
	d.Run("docker", "rm", "-f", "web")
	d.Run("docker", "network", "rm", "dual", "six")
	if out := d.Run("sh", "-c", "ip -6 addr; nft list tables; nft list table ip6 skiff || true"); strings.Contains(out, "fd00:79:") {
		t.Errorf("left:\n%s", out)
	}
}
