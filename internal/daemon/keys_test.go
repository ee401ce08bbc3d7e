package daemon

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// key is one of dockerd's settings (of 28 and 29), and what becomes of it here.
type key struct {
	name   string // in daemon.json
	flag   string // "": the same; "-": none
	answer answer
	says   string   // in the document
	good   []string // values, or documents, that are taken
	bad    []string // and that are refused, by name
}

type answer string

const (
	honoured answer = "honoured"
	accepted answer = "accepted: already so"
	refused  answer = "refused"
	partly   answer = "one answer"
)

// dockerdKeys has them all. What is refused is so because somebody counts on it
// and would not get it.
func dockerdKeys() []key {
	return []key{
		{name: "add-runtime", flag: "add-runtime", answer: honoured, says: "the flag of `runtimes`"},
		{name: "allow-direct-routing", answer: honoured, says: "published ports, by the containers' own addresses", good: v("true", "false")},
		{name: "allow-nondistributable-artifacts", flag: "-", answer: accepted, says: "every layer is pushed; docker ignores it, too", good: v(`["reg.example"]`)},
		{name: "api-cors-header", flag: "-", answer: refused, says: "removed from docker 28, too", bad: v(`"*"`)},
		{name: "authorization-plugins", flag: "authorization-plugin", answer: partly, says: "there are no plugins; [read-only sockets](security.md) are", good: v("[]"), bad: v(`["a"]`)},
		{name: "bip", answer: honoured, says: "", good: v(`"10.9.0.1/24"`), bad: v(`"10.9.0.1"`)},
		{name: "bip6", answer: honoured, says: "", good: v(`"fd00:9::1/64"`), bad: v(`"fd00:9::/64"`, `"x"`)},
		{name: "bridge", answer: honoured, says: "the name of the default bridge's interface, `skiff0`, which is made; `none`: there is none, and containers of the network `bridge` have no network", good: v(`"br9"`, `""`, `"none"`)},
		{name: "bridge-accept-fwmark", answer: refused, says: "", good: v(`""`), bad: v(`"0x1/0x3"`)},
		{name: "builder", flag: "-", answer: honoured, says: "`gc`, and `entitlements.network-host`; `security-insecure` and `device` may be false; not `history`",
			good: v(`{"gc": {"enabled": true, "defaultKeepStorage": "20GB"}}`, `{"gc": {"enabled": false}}`, `{"entitlements": {"security-insecure": false}}`), bad: v(`{"history": {"maxEntries": 1}}`)},
		{name: "cdi-spec-dirs", flag: "cdi-spec-dir", answer: honoured, good: v(`["/etc/cdi"]`)},
		{name: "cgroup-parent", answer: honoured, says: "`/skiff`, or `system.slice`, unless given", good: v(`"/docker"`), bad: v(`"../x"`)},
		{name: "config-file", flag: "config-file", answer: honoured, says: "a flag; `/etc/skiff/daemon.json` unless given"},
		{name: "containerd", answer: accepted, says: "there is no containerd", good: v(`"/run/containerd/containerd.sock"`)},
		{name: "containerd-namespace", answer: accepted, says: "there is no containerd", good: v(`"moby"`)},
		{name: "containerd-plugins-namespace", answer: accepted, says: "there is no containerd", good: v(`"plugins.moby"`)},
		{name: "cpu-rt-period", answer: honoured, says: "with control groups of version 1", good: v("0"), bad: v("-1")},
		{name: "cpu-rt-runtime", answer: honoured, says: "with control groups of version 1", good: v("0"), bad: v("-1")},
		{name: "cri-containerd", answer: partly, says: "there is no containerd", good: v("false"), bad: v("true")},
		{name: "data-root", answer: honoured, says: "`/var/lib/skiff` unless given; dockerd's own directory is refused when the daemon starts", good: v(`"/var/lib/x"`)},
		{name: "debug", answer: honoured, good: v("true", "false")},
		{name: "default-address-pools", flag: "default-address-pool", answer: honoured, good: v(`[{"base": "10.10.0.0/16", "size": 24}]`)},
		{name: "default-cgroupns-mode", answer: honoured, good: v(`"host"`, `"private"`), bad: v(`"x"`)},
		{name: "default-gateway", answer: honoured, good: v(`"172.17.0.9"`), bad: v(`"x"`, `"fd00::1"`)},
		{name: "default-gateway-v6", answer: honoured, good: v(`"fd00::9"`), bad: v(`"10.0.0.1"`)},
		{name: "default-ipc-mode", answer: honoured, good: v(`"shareable"`, `"private"`), bad: v(`"host"`)},
		{name: "default-network-opts", flag: "default-network-opt", answer: honoured, good: v(`{"bridge": {"com.docker.network.driver.mtu": "1400"}}`)},
		{name: "default-runtime", answer: honoured, says: "`runc` is the built-in launcher", good: v(`"runc"`, `"skiff"`), bad: v(`"nosuch"`)},
		{name: "default-shm-size", answer: honoured, good: v(`"64M"`), bad: v(`"x"`)},
		{name: "default-stop-timeout", answer: honoured, good: v("0", "30"), bad: v("-1")},
		{name: "default-ulimits", flag: "default-ulimit", answer: honoured, good: v(`{"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}}`)},
		{name: "deprecated-key-path", flag: "-", answer: accepted, says: "nothing is signed with it; docker ignores it, too", good: v(`"/etc/docker/key.json"`)},
		{name: "dns", answer: honoured, good: v(`["192.0.2.1"]`), bad: v(`["x"]`)},
		{name: "dns-opts", flag: "dns-opt", answer: honoured, good: v(`["ndots:1"]`)},
		{name: "dns-search", answer: honoured, good: v(`["example.com"]`)},
		{name: "exec-opts", flag: "exec-opt", answer: honoured, says: "`native.cgroupdriver`: `cgroupfs` unless given", good: v(`["native.cgroupdriver=cgroupfs"]`), bad: v(`["isolation=hyperv"]`)},
		{name: "exec-root", answer: honoured, says: "`/run/skiff` unless given", good: v(`"/run/x"`)},
		{name: "experimental", answer: honoured, says: "shows checkpoints", good: v("true", "false")},
		{name: "features", flag: "feature", answer: honoured, says: "`cdi`; `buildkit`, `containerd-snapshotter` and others have one answer, whatever is given; `time-namespaces` may be false",
			good: v(`{"buildkit": true, "containerd-snapshotter": false, "cdi": true}`, `{"buildkit": false, "time-namespaces": false}`), bad: v(`{"nosuch": true}`, `{"time-namespaces": true}`)},
		{name: "firewall-backend", answer: partly, says: "rules are in nftables, in tables of their own; there is no chain DOCKER-USER", good: v(`"nftables"`, `""`), bad: v(`"iptables"`)},
		{name: "fixed-cidr", answer: honoured, good: v(`"172.17.5.0/24"`), bad: v(`"x"`)},
		{name: "fixed-cidr-v6", answer: honoured, good: v(`"fd00:9::/64"`), bad: v(`"10.0.0.0/8"`)},
		{name: "group", answer: honoured, says: "`skiff` unless given, if there is one", good: v(`"docker"`)},
		{name: "host-gateway-ip", answer: honoured, says: "the older name of `host-gateway-ips`", good: v(`"192.0.2.1"`), bad: v(`"x"`)},
		{name: "host-gateway-ips", flag: "host-gateway-ip", answer: honoured, good: v(`["192.0.2.1", "2001:db8::1"]`), bad: v(`["x"]`)},
		{name: "hosts", flag: "host", answer: honoured, says: "`unix://`, `fd://`, `tcp://`: this with mutual TLS, or with `insecure-tcp-without-authentication`", good: v(`["unix:///var/run/docker.sock"]`, `["fd://"]`), bad: v(`["tcp://0.0.0.0:2375"]`, `["npipe://x"]`)},
		{name: "http-proxy", answer: honoured, says: "within `proxies`, as in docker, or by itself; else the environment's", good: v(`"http://proxy.example:3128"`, `{"proxies": {"http-proxy": "http://u:p@proxy.example"}}`), bad: v(`"ftp://x"`)},
		{name: "https-proxy", answer: honoured, says: "the same", good: v(`{"proxies": {"https-proxy": "http://proxy.example"}}`)},
		{name: "icc", answer: honoured, good: v("true", "false")},
		{name: "init", answer: honoured, good: v("true", "false")},
		{name: "init-path", answer: accepted, says: "the init is a part of the launcher", good: v(`"/usr/libexec/docker-init"`)},
		{name: "insecure-registries", flag: "insecure-registry", answer: honoured, good: v(`["reg.example:5000", "10.0.0.0/8"]`)},
		{name: "ip", answer: honoured, good: v(`"127.0.0.1"`), bad: v(`"x"`)},
		{name: "ip-forward", answer: honoured, says: "false: whether the host forwards is left as it is", good: v("true", "false")},
		{name: "ip-forward-no-drop", answer: honoured, says: "what others forward is dropped only on a host that did not forward before", good: v("true", "false")},
		{name: "ip-masq", answer: honoured, good: v("true", "false")},
		{name: "ip6tables", answer: partly, says: "published ports and the separation of networks are rules of the firewall", good: v("true"), bad: v("false")},
		{name: "iptables", answer: partly, says: "the same", good: v("true"), bad: v("false")},
		{name: "ipv6", answer: honoured, good: v("true", "false")},
		{name: "labels", flag: "label", answer: honoured, good: v(`["a=b"]`), bad: v(`["a"]`)},
		{name: "live-restore", answer: honoured, says: "true unless given, other than in docker. False: a daemon that is stopped stops the containers; they outlive one that is killed", good: v("true", "false")},
		{name: "log-driver", answer: honoured, says: "`local` unless given; see [what containers print](logging.md)", good: v(`"json-file"`, `"journald"`), bad: v(`"splunk"`)},
		{name: "log-format", answer: honoured, good: v(`"text"`, `"json"`), bad: v(`"x"`)},
		{name: "log-level", answer: honoured, good: v(`"debug"`, `"info"`, `"warn"`, `"error"`, `"fatal"`), bad: v(`"loud"`)},
		{name: "log-opts", flag: "log-opt", answer: honoured, good: v(`{"max-size": "10m", "max-file": "3"}`)},
		{name: "max-concurrent-downloads", answer: honoured, says: "6 unless given", good: v("1", "0"), bad: v("-1")},
		{name: "max-concurrent-uploads", answer: honoured, good: v("1", "0"), bad: v("-1")},
		{name: "max-download-attempts", answer: honoured, says: "of each layer", good: v("1"), bad: v("-1")},
		{name: "metrics-addr", answer: honoured, says: "`/metrics`: the engine, containers by state, events; no durations", good: v(`"127.0.0.1:9323"`)},
		{name: "min-api-version", flag: "-", answer: honoured, says: "1.24 unless given", good: v(`"1.24"`, `"1.44"`), bad: v(`"1.12"`, `"v1.44"`, `"9.9"`)},
		{name: "mtu", answer: honoured, good: v("1400", "0"), bad: v("-1")},
		{name: "network-control-plane-mtu", answer: accepted, says: "of swarms, which there are none of", good: v("1500")},
		{name: "network-diagnostic-port", answer: refused, good: v("0"), bad: v("60001")},
		{name: "no-new-privileges", answer: honoured, good: v("true", "false")},
		{name: "no-proxy", answer: honoured, says: "within `proxies`, as in docker, or by itself; else the environment's", good: v(`{"proxies": {"no-proxy": "localhost,.example"}}`)},
		{name: "node-generic-resources", flag: "node-generic-resource", answer: accepted, says: "of swarms, which there are none of", good: v(`["gpu=1"]`)},
		{name: "nri-opts", answer: partly, says: "there are no plugins of NRI", good: v(`{"enable": false}`), bad: v(`{"enable": true}`)},
		{name: "pidfile", answer: honoured, says: "`EXEC-ROOT/skiffd.pid` unless given", good: v(`"/run/x.pid"`)},
		{name: "raw-logs", answer: accepted, says: "logs have full timestamps and no colours", good: v("true", "false")},
		{name: "registry-mirrors", flag: "registry-mirror", answer: honoured, good: v(`["https://mirror.example"]`)},
		{name: "restart", answer: partly, says: "containers have restart policies", good: v("true"), bad: v("false")},
		{name: "rootless", answer: partly, says: "the daemon runs as root", good: v("false"), bad: v("true")},
		{name: "runtimes", flag: "add-runtime", answer: honoured, says: "see [other runtimes](runtimes.md)", good: v(`{"crun": {"path": "/usr/bin/crun"}}`), bad: v(`{"x": {}}`)},
		{name: "seccomp-profile", answer: honoured, says: "read when the daemon starts", good: v(`"unconfined"`, `"builtin"`), bad: v(`"/no/such/file"`)},
		{name: "selinux-enabled", answer: partly, says: "containers get no labels", good: v("false"), bad: v("true")},
		{name: "shutdown-timeout", answer: honoured, says: "for requests, and for containers without `live-restore`", good: v("0", "60", "-1")},
		{name: "storage-driver", answer: partly, says: "layers are directories that overlay puts together", good: v(`"overlay2"`, `"overlayfs"`), bad: v(`"btrfs"`)},
		{name: "storage-opts", flag: "storage-opt", answer: honoured, says: "`overlay2.size`; `overlay2.override_kernel_check` means nothing, as in docker", good: v(`["overlay2.size=10G"]`, `["overlay2.override_kernel_check=true"]`), bad: v(`["dm.basesize=10G"]`)},
		{name: "swarm-default-advertise-addr", answer: accepted, says: "of swarms, which there are none of", good: v(`"192.0.2.1"`)},
		{name: "tls", answer: honoured, good: v("false", `{"tls": true, "tlscert": "/c", "tlskey": "/k"}`), bad: v("true")},
		{name: "tlscacert", answer: honoured, good: v(`"/ca"`)},
		{name: "tlscert", answer: honoured, good: v(`"/c"`)},
		{name: "tlskey", answer: honoured, good: v(`"/k"`)},
		{name: "tlsverify", answer: honoured, good: v("false", `{"tlsverify": true, "tlscacert": "/ca", "tlscert": "/c", "tlskey": "/k"}`), bad: v("true")},
		{name: "userland-proxy", answer: honoured, says: "false: ports of containers without IPv6 are not published over IPv6. There is no program for it", good: v("true", "false")},
		{name: "userland-proxy-path", answer: accepted, says: "there is no program for it", good: v(`"/usr/bin/docker-proxy"`)},
		{name: "userns-remap", answer: honoured, says: "", good: v(`""`)},
		{name: "validate", flag: "validate", answer: honoured, says: "a flag"},
	}
}

func v(values ...string) []string { return values }

// document is a daemon.json with the value; one that is a document already names
// the key, or what it is within.
func (k key) document(value string) string {
	if strings.HasPrefix(value, "{") && (strings.Contains(value, fmt.Sprintf("%q", k.name)) || strings.HasPrefix(value, `{"proxies"`)) {
		return value
	}
	return fmt.Sprintf("{%q: %s}", k.name, value)
}

// named reports whether an error is about the key.
func (k key) named(err error) bool {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", " ") }
	for _, name := range []string{k.name, strings.TrimSuffix(k.name, "s"), k.flagName()} {
		if strings.Contains(plain(err.Error()), plain(name)) {
			return true
		}
	}
	return false
}

func (k key) flagName() string {
	if k.flag == "" {
		return k.name
	}
	return k.flag
}

func TestDockerdKeys(t *testing.T) {
	known := map[string]bool{"help": true, "version": true}
	for _, k := range dockerdKeys() {
		known[k.flagName()] = true
		if name, renamed := fileKeys[k.name]; renamed {
			known[name] = true
		} else {
			known[k.name] = true
		}
		for _, value := range k.good {
			if _, err := load(t, k.document(value)); err != nil {
				t.Errorf("%s is refused: %v", k.document(value), err)
			}
		}
		for _, value := range k.bad {
			_, err := load(t, k.document(value))
			if err == nil || !k.named(err) {
				t.Errorf("%s: %v, want a refusal that names it", k.document(value), err)
			}
		}
		if len(k.good)+len(k.bad) == 0 && k.name != k.flag {
			t.Errorf("%s is not tried", k.name)
		}
		if (k.answer == refused || k.answer == partly) && len(k.bad) == 0 || k.answer == accepted && len(k.bad) > 0 {
			t.Errorf("%s is %s, which does not fit what is tried", k.name, k.answer)
		}
	}
	own := []string{"host-ro", "insecure-tcp-without-authentication", "registry", "registry-dir", "registry-htpasswd", "registry-tlscert", "registry-tlskey", "shim"}
	fs := pflag.NewFlagSet("skiffd", pflag.ContinueOnError)
	DefaultConfig().AddFlags(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		if !known[f.Name] && !slices.Contains(own, f.Name) {
			t.Errorf("flag %s is in no list", f.Name)
		}
	})
	for _, k := range dockerdKeys() {
		if k.flagName() != "-" && fs.Lookup(k.flagName()) == nil {
			t.Errorf("there is no flag %s", k.flagName())
		}
	}
}

// The table in the document is what the keys above say; UPDATE=1 rewrites it.
func TestKeysInTheDocument(t *testing.T) {
	const path, begin, end = "../../docs/daemon.md", "<!-- begin keys -->\n", "<!-- end keys -->\n"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	have, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no table", path)
	}
	var b strings.Builder
	b.WriteString("| key | flag, if another | answer | reload | |\n|---|---|---|---|---|\n")
	for _, k := range dockerdKeys() {
		flag, reload := k.flag, ""
		switch {
		case flag == "-":
			flag = "none"
		case flag != "":
			flag = "`--" + flag + "`"
		}
		if reloadable(k.flagName()) {
			reload = "yes"
		}
		if k.name == k.flag { // no key
			flag = "a flag only"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.name, flag, k.answer, reload, k.says)
	}
	if have == b.String() {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("the table of %s is not true: UPDATE=1 rewrites it", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
