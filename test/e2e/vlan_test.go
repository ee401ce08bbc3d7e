//go:build root

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// needsKind skips where the kernel lacks a kind of interface: one of another kind
// is made, or refused for what it lacks.
func needsKind(t *testing.T, d *harness.Daemon, kind string) {
	t.Helper()
	if r := d.Try("", "ip", "link", "add", "name", "probe", "type", kind); strings.Contains(r.Stderr, "Unknown device type") || strings.Contains(r.Stderr, "not supported") {
		t.Skipf("the kernel has no %s: %s", kind, r.Stderr)
	}
	d.Try("", "ip", "link", "del", "probe") // a dummy lacks nothing
}

// vlanParent makes an interface of the host, and a neighbour behind it that is
// the gateway 10.81.0.1.
func vlanParent(t *testing.T, d *harness.Daemon) {
	t.Helper()
	d.Run("sh", "-c", `ip link add par0 type veth peer name par1; ip addr add 10.81.0.1/24 dev par1; ip link set par0 up; ip link set par1 up`)
	t.Cleanup(func() { d.Try("", "ip", "link", "del", "par0") })
}

func TestMacvlan(t *testing.T) {
	d := daemon(t)
	needsKind(t, d, "macvlan")
	vlanParent(t, d)
	d.Run("docker", "network", "create", "--config-only", "--subnet", "10.81.0.0/24", "--gateway", "10.81.0.1", "-o", "parent=par0", "plan")
	d.Run("docker", "network", "create", "-d", "macvlan", "--config-from", "plan", "lan")
	d.Run("docker", "network", "create", "side")
	d.Run("docker", "run", "-d", "--name", "web", "-h", "webhost", "--network", "lan", "--ip", "10.81.0.80", "--mac-address", "02:81:00:00:00:80",
		"--network-alias", "www", "-p", "18095:80", "busybox", "sh", "-c", httpd)
	check := func(t *testing.T) {
		t.Helper()
		want(t, "the configuration", d.Run("docker", "network", "inspect", "-f", "{{.ConfigOnly}} {{.Driver}}", "plan"), "true null")
		want(t, "the network", d.Run("docker", "network", "inspect", "-f", `{{.ConfigFrom.Network}} {{.Driver}} {{.Options.parent}} {{(index .IPAM.Config 0).Gateway}}`, "lan"), "plan macvlan par0 10.81.0.1")
		want(t, "who is on it", d.Run("docker", "network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.MacAddress}}{{end}}", "lan"), "web 10.81.0.80/24 02:81:00:00:00:80")
		want(t, "by a name, from another container", d.Run("docker", "run", "--rm", "--init", "--network", "lan", "busybox", "timeout", "5", "wget", "-qO-", "http://www/"), "webhost")
		want(t, "by its address, from a neighbour", fetch(t, "http://10.81.0.80/"), "webhost\n")
		want(t, "its interface", d.Run("docker", "exec", "web", "sh", "-c", "cat /sys/class/net/eth0/address; ip route | grep default | xargs"), "02:81:00:00:00:80\ndefault via 10.81.0.1 dev eth0")
		want(t, "ports", d.Run("docker", "port", "web"), "")
	}
	check(t)
	d.Kill()
	d.Launch()
	check(t)
	d.Run("docker", "restart", "-t", "0", "web")
	check(t)

	d.Run("docker", "run", "-d", "--name", "guest", "--network", "side", "busybox", "sleep", "1000")
	d.Run("docker", "network", "connect", "--alias", "visitor", "lan", "guest")
	want(t, "a network more", d.Run("docker", "exec", "guest", "sh", "-c", "timeout 5 wget -qO- http://www/; ls /sys/class/net | wc -w"), "webhost\n3")
	want(t, "its alias", d.Run("docker", "exec", "web", "sh", "-c", "nslookup visitor | grep -c 10.81.0"), "1")
	d.Run("docker", "network", "disconnect", "lan", "guest")
	want(t, "after it left", d.Run("docker", "exec", "guest", "sh", "-c", "ls /sys/class/net | wc -w"), "2")

	for _, line := range []struct{ cmd, text string }{
		{"network rm plan", `configuration network "plan" is in use`},
		{"network rm lan", "has active endpoints"},
		{"run --rm --network plan busybox true", "cannot create endpoint on configuration-only network"},
		{"network create -d macvlan -o parent=par0 -o macvlan_mode=passthru second", "cannot use mode passthru, macvlan network"},
		{"network create -d macvlan -o parent=nosuch second", "invalid subinterface vlan name nosuch"},
		{"network create --config-from plan --label a=b second", "user-specified configurations are not supported"},
	} {
		if r := d.Try("", "docker", strings.Fields(line.cmd)...); r.Code == 0 || !strings.Contains(r.Stderr, line.text) {
			t.Errorf("%s: %d %s", line.cmd, r.Code, r.Stderr)
		}
	}
	d.Run("docker", "rm", "-f", "web", "guest")
	d.Run("docker", "network", "rm", "lan", "side")
	d.Run("docker", "network", "rm", "plan")
	if out := d.Run("ip", "-d", "link"); strings.Contains(out, "macvlan") {
		t.Errorf("left:\n%s", out)
	}
}

// TestParentsAreRemoved kills the daemon while it makes networks with parents of
// its own: what nobody has is gone after the next start.
func TestParentsAreRemoved(t *testing.T) {
	d := daemon(t)
	for _, kind := range []string{"macvlan", "ipvlan", "dummy", "vlan"} {
		needsKind(t, d, kind)
	}
	vlanParent(t, d)
	made := func() string {
		return d.Run("sh", "-c", `ip -o link | grep -oE ' (d[mi]-[0-9a-f]+|par0\.[0-9]+)' | sort`)
	}
	d.Run("docker", "network", "create", "-d", "ipvlan", "-o", "parent=par0.5", "-o", "ipvlan_mode=l3", "kept")
	d.Run("docker", "network", "create", "-d", "macvlan", "--internal", "alone")
	d.Run("docker", "run", "-d", "--name", "adam", "--network", "kept", "--network", "alone", "busybox", "sleep", "1000")
	before := made()
	if !strings.Contains(before, "dm-") || !strings.Contains(before, "par0.5") {
		t.Fatalf("parents: %s", before)
	}
	var making sync.WaitGroup
	for i := range 6 {
		making.Go(func() { d.Try("", "docker", "network", "create", "-d", "macvlan", fmt.Sprint("n", i)) })
	}
	harness.Eventually(t, 10*time.Second, func() string { return map[bool]string{true: "no network is being made"}[made() == before] })
	d.Kill()
	making.Wait()
	d.Launch()
	for n := range strings.FieldsSeq(d.Run("docker", "network", "ls", "--format", "{{.Name}}", "--filter", "name=^n[0-5]$")) {
		d.Run("docker", "network", "rm", n)
	}
	want(t, "parents after the restart", made(), before)
	want(t, "interfaces of the container", d.Run("docker", "exec", "adam", "sh", "-c", "ls /sys/class/net | wc -w"), "3")
	want(t, "default route", d.Run("docker", "exec", "adam", "sh", "-c", "ip route | grep -o 'default dev'"), "default dev")
	d.Run("docker", "rm", "-f", "adam")
	d.Run("docker", "network", "rm", "kept", "alone")
	want(t, "parents after the end", made(), "")
}
