//go:build root

package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// configured starts a daemon with a daemon.json.
func configured(t *testing.T, json string, args ...string) (d *harness.Daemon, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "daemon.json")
	writeFile(t, file, json)
	return daemon(t, append([]string{"--config-file", file}, args...)...), file
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSeccompProfileOfTheDaemon(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "no-chmod.json")
	writeFile(t, profile, `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
		{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}`)
	d, _ := configured(t, `{"seccomp-profile": "`+profile+`"}`)
	chmod := []string{"busybox", "sh", "-c", "chmod 700 /tmp && echo done; grep Seccomp: /proc/self/status | tr -d '\t '"}
	run := func(flags ...string) string {
		r := d.Try("", "docker", append(append([]string{"run", "--rm"}, flags...), chmod...)...)
		return r.Stdout + r.Stderr
	}
	if out := run(); !strings.Contains(out, "not permitted") || !strings.Contains(out, "Seccomp:2") {
		t.Errorf("by the daemon's profile: %s", out)
	}
	for flag, filter := range map[string]string{"seccomp=unconfined": "Seccomp:0", "seccomp=builtin": "Seccomp:2"} {
		want(t, flag, run("--security-opt", flag), "done\n"+filter+"\n")
	}
	want(t, "privileged", run("--privileged"), "done\nSeccomp:0\n")
	if o := d.Run("docker", "info", "-f", "{{json .SecurityOptions}}"); !strings.Contains(o, "name=seccomp,profile="+profile) {
		t.Errorf("info: %s", o)
	}
}

// logged waits for a line of the daemon's log.
func logged(t *testing.T, d *harness.Daemon, text string) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, func() string {
		if log := d.LogTail(); !strings.Contains(log, text) {
			return "no " + text + " in\n" + log
		}
		return ""
	})
}

func TestReload(t *testing.T) {
	d, file := configured(t, `{"labels": ["tier=one"]}`)
	hup := func(text, wait string) {
		t.Helper()
		writeFile(t, file, text)
		if err := syscall.Kill(d.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		logged(t, d, wait)
	}
	info := func(format string) string { return d.Run("docker", "info", "-f", format) }
	want(t, "labels", info("{{json .Labels}} {{.Debug}}"), `["tier=one"] false`)
	since := time.Now().Add(-time.Second).Format(time.RFC3339)
	hup(`{"labels": ["tier=two"], "debug": true, "insecure-registries": ["reg.example:5000"], "registry-mirrors": ["https://mirror.example"],
		"max-concurrent-downloads": 1, "default-stop-timeout": 0, "runtimes": {"other": {"path": "/no/such"}}, "live-restore": false, "mtu": 1300}`,
		"reloaded the configuration")
	want(t, "info", info("{{json .Labels}} {{.Debug}} {{.LiveRestoreEnabled}} {{json .RegistryConfig.Mirrors}} {{(index .Runtimes \"other\").Path}}"),
		`["tier=two"] true false ["https://mirror.example/"] /no/such`)
	if o := info("{{json .RegistryConfig.IndexConfigs}}"); !strings.Contains(o, "reg.example:5000") {
		t.Errorf("insecure registries: %s", o)
	}
	logged(t, d, "keys=[mtu]")
	if r := d.Try("", "docker", "run", "--rm", "--runtime", "other", "busybox"); !strings.Contains(r.Stderr, "/no/such is not installed") {
		t.Errorf("a new runtime: %s", r.Stderr)
	}
	until := time.Now().Add(time.Second).Format(time.RFC3339)
	event := d.Run("docker", "events", "--since", since, "--until", until, "--filter", "type=daemon", "--format", "{{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}")
	id := info("{{.ID}}")
	for _, part := range []string{"reload " + id, `"debug":"true"`, `"max-concurrent-downloads":"1"`, `"labels":"[\"tier=two\"]"`, `"name":`, `"runtimes":"other:/no/such `} {
		if !strings.Contains(event, part) {
			t.Errorf("no %s in the event: %s", part, event)
		}
	}
	// A signal that nothing handles: only the patience of 0 seconds ends it at once.
	d.Run("docker", "run", "-d", "--name", "deaf", "busybox", "sleep", "1000")
	start := time.Now()
	d.Run("docker", "stop", "deaf")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a stop took %v", took)
	}
	for text, wait := range map[string]string{
		`{"labels": [`: "unexpected EOF", `{"nosuch": 1}`: "nosuch", `{"registry-mirrors": ["ftp://x"]}`: "invalid mirror", `{"default-runtime": "gone"}`: "does not exist",
	} {
		hup(text, wait)
		want(t, "info after a bad file", info("{{json .Labels}} {{.Debug}}"), `["tier=two"] true`)
	}
	hup(`{}`, "labels:[]")
	want(t, "info at last", info("{{json .Labels}} {{.Debug}} {{.LiveRestoreEnabled}}"), `[] false true`)
	// Many at once, while others ask.
	for range 50 {
		_ = syscall.Kill(d.PID(), syscall.SIGHUP)
	}
	want(t, "output", d.Run("docker", "run", "--rm", "busybox", "echo", "hi"), "hi")
}

func TestStacksOnDemand(t *testing.T) {
	d := daemon(t)
	if err := syscall.Kill(d.PID(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	logged(t, d, "goroutine stacks written")
	files, _ := filepath.Glob(filepath.Join(d.ExecRoot, "goroutine-stacks-*.log"))
	if len(files) != 1 {
		t.Fatalf("%v", files)
	}
	if data, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(data), "goroutine 1 ") {
		t.Errorf("%v %.200s", err, data)
	}
	want(t, "output", d.Run("docker", "run", "--rm", "busybox", "echo", "hi"), "hi")
}

func TestServiceManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	d := daemon(t)
	next := func(part string) {
		t.Helper()
		buf := make([]byte, 200)
		_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := l.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), part) {
			t.Errorf("told %q, %v; want %s", buf[:n], err, part)
		}
	}
	next("READY=1")
	_ = syscall.Kill(d.PID(), syscall.SIGHUP)
	next("RELOADING=1\nMONOTONIC_USEC=")
	next("READY=1")
	d.Terminate()
	next("STOPPING=1")
}

// Without live-restore the containers end with the daemon, and come back if their
// policy says so.
func TestContainersEndWithTheDaemon(t *testing.T) {
	d, _ := configured(t, `{"live-restore": false, "default-stop-timeout": 1}`)
	for _, args := range [][]string{
		{"--name", "always", "--restart", "always"}, {"--name", "unless", "--restart", "unless-stopped"}, {"--name", "once"}, {"--name", "gone", "--rm"},
		{"--name", "paused", "--restart", "always"},
	} {
		d.Run("docker", append(append([]string{"run", "-d"}, args...), "busybox", "sh", "-c", "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.1; done")...)
	}
	d.Run("docker", "pause", "paused")
	before := d.Run("docker", "inspect", "-f", "{{.State.Pid}}", "always", "unless", "once")
	d.Terminate()
	for _, pid := range strings.Fields(before) {
		if n, _ := strconv.Atoi(pid); syscall.Kill(n, 0) == nil {
			t.Errorf("%s runs without a daemon", pid)
		}
	}
	d.Launch()
	state := func(name string) string {
		return d.Run("docker", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", name)
	}
	for _, name := range []string{"always", "unless", "paused"} {
		harness.Eventually(t, 10*time.Second, func() string {
			if got := state(name); got != "running 0 0" && got != "running 0 1" {
				return name + " is " + got
			}
			return ""
		})
	}
	want(t, "once", state("once"), "exited 3 0")
	want(t, "its log", d.Run("docker", "logs", "once"), "up\nasked")
	want(t, "with --rm", d.Run("docker", "ps", "-aq", "--filter", "name=gone"), "")
}

func TestAddressesOfTheDefaultBridge(t *testing.T) {
	d, file := configured(t, `{"bip": "10.91.0.1/16", "fixed-cidr": "10.91.7.0/24", "default-gateway": "10.91.0.9",
		"ipv6": true, "bip6": "fd00:91::1/64", "fixed-cidr-v6": "fd00:91::7:0/112", "ip-masq": false, "userland-proxy": false}`)
	ip := d.Run("docker", "run", "--rm", "busybox", "sh", "-c", "ip -o addr show dev eth0; ip route; ip -6 route")
	for _, part := range []string{"inet 10.91.7.", "/16", "default via 10.91.0.9", "inet6 fd00:91::7:", "default via fd00:91::1"} {
		if !strings.Contains(ip, part) {
			t.Errorf("no %s in\n%s", part, ip)
		}
	}
	want(t, "network", d.Run("docker", "network", "inspect", "-f", `{{index .Options "com.docker.network.bridge.enable_ip_masquerade"}} {{(index .IPAM.Config 0).IPRange}}`, "bridge"), "false 10.91.7.0/24")
	if out, err := exec.Command("nft", "list", "ruleset").CombinedOutput(); err == nil && strings.Contains(string(out), "10.91.0.0/16 oifname != ") {
		t.Errorf("masqueraded all the same:\n%s", out)
	}
	d.Terminate()
	writeFile(t, file, `{"fixed-cidr": "10.92.0.0/24"}`)
	d.Launch()
	want(t, "another time", d.Run("docker", "network", "inspect", "-f", `{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}} {{index .Options "com.docker.network.bridge.enable_ip_masquerade"}}`, "bridge"), "10.92.0.0/24 10.92.0.1 true")
	want(t, "pools", d.Run("docker", "info", "-f", "{{(index .DefaultAddressPools 0).Base}} {{(index .DefaultAddressPools 0).Size}}"), "172.17.0.0/16 16")
}

func TestProxies(t *testing.T) {
	asked := make(chan string, 100)
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
		asked <- r.Method + " " + r.Host + " " + user
		w.WriteHeader(http.StatusTeapot)
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = proxy.Serve(l) }()
	defer func() { _ = proxy.Close() }()
	url := "http://user:secret@" + l.Addr().String()
	d, _ := configured(t, `{"proxies": {"http-proxy": "`+url+`", "https-proxy": "`+url+`", "no-proxy": "direct.example"}, "min-api-version": "1.44"}`)
	d.Try("", "docker", "pull", "reg.example/a")
	select {
	case got := <-asked:
		want(t, "the proxy was asked", got, "CONNECT reg.example:443 Basic")
	case <-time.After(10 * time.Second):
		t.Error("the proxy was not asked")
	}
	if r := d.Try("", "docker", "pull", "direct.example/a"); r.Code == 0 {
		t.Error(r)
	}
	for len(asked) > 0 {
		if got := <-asked; strings.Contains(got, "direct.example") {
			t.Errorf("the proxy was asked %s", got)
		}
	}
	masked := "http://xxxxx:xxxxx@" + l.Addr().String()
	want(t, "info", d.Run("docker", "info", "-f", "{{.HTTPProxy}} {{.HTTPSProxy}} {{.NoProxy}}"), masked+" "+masked+" direct.example")
	if log := d.LogTail(); strings.Contains(log, "secret") {
		t.Errorf("the password is in the log:\n%s", log)
	}
	want(t, "oldest version", d.Run("docker", "version", "-f", "{{.Server.MinAPIVersion}}"), "1.44")
}

func TestMetrics(t *testing.T) {
	d, _ := configured(t, `{"metrics-addr": "127.0.0.1:18323"}`)
	d.Run("docker", "run", "-d", "--name", "up", "busybox", "sleep", "1000")
	d.Run("docker", "run", "busybox", "true")
	page := fetch(t, "http://127.0.0.1:18323/metrics")
	for _, line := range []string{
		`engine_daemon_container_states_containers{state="running"} 1`, `engine_daemon_container_states_containers{state="stopped"} 1`,
		"# TYPE engine_daemon_events_total counter", "engine_daemon_engine_cpus_cpus ", `graphdriver="overlay2"`,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("no %s in\n%s", line, page)
		}
	}
}

func TestNoDefaultBridge(t *testing.T) {
	d, file := configured(t, `{}`)
	d.Run("docker", "run", "-d", "--name", "before", "--restart", "always", "busybox", "sleep", "1000")
	d.Terminate()
	writeFile(t, file, `{"bridge": "none"}`)
	d.Launch()
	want(t, "networks", d.Run("docker", "network", "ls", "--format", "{{.Name}}"), "host\nnone")
	want(t, "interfaces", d.Run("docker", "run", "--rm", "-p", "80", "busybox", "ls", "/sys/class/net"), "lo")
	d.Run("docker", "restart", "-t", "0", "before")
	want(t, "interfaces after a restart", d.Run("docker", "exec", "before", "ls", "/sys/class/net"), "lo")
	if _, err := os.Stat("/sys/class/net/skiff0"); err == nil {
		t.Error("skiff0 is there")
	}
	d.Run("docker", "network", "create", "own")
	want(t, "interfaces on a network", d.Run("docker", "run", "--rm", "--network", "own", "busybox", "ls", "/sys/class/net"), "eth0\nlo")
	if r := d.Try("", "docker", "network", "connect", "bridge", "before"); !strings.Contains(r.Stderr, "network bridge not found") {
		t.Errorf("a connection: %+v", r)
	}
	dir := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN ls /sys/class/net > /facts\n"})
	d.Run("docker", "build", "-t", "built", dir)
	want(t, "interfaces of a step", d.Run("docker", "run", "--rm", "built", "cat", "/facts"), "lo")
	d.Run("docker", "network", "rm", "own")
	d.Terminate()
	writeFile(t, file, `{}`)
	d.Launch()
	want(t, "networks again", d.Run("docker", "network", "ls", "--format", "{{.Name}}"), "bridge\nhost\nnone")
	d.Run("docker", "restart", "-t", "0", "before")
	want(t, "interfaces again", d.Run("docker", "exec", "before", "ls", "/sys/class/net"), "eth0\nlo")
}
