package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWhatAReloadChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	read := func(text string) (*Config, []string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, start, err := parse([]string{"--mtu", "1400", "--config-file", "/dev/null"})
		if err != nil {
			t.Fatal(err)
		}
		c, next, err := parse([]string{"--mtu", "1400", "--config-file", file})
		if err != nil {
			t.Fatal(err)
		}
		return DefaultConfig().reloaded(c), needRestart(start, next)
	}
	all := `"debug": true, "labels": ["a=b"], "insecure-registries": ["reg:1"], "registry-mirrors": ["https://m"], "max-concurrent-downloads": 1,
		"max-concurrent-uploads": 2, "max-download-attempts": 3, "shutdown-timeout": 4, "default-stop-timeout": 5, "live-restore": false,
		"runtimes": {"other": {"path": "/o"}}, "default-runtime": "other", "features": {"buildkit": true}, "default-shm-size": "1m",
		"default-ipc-mode": "shareable", "default-cgroupns-mode": "host"`
	c, restart := read("{" + all + "}")
	want := map[string]string{
		"debug": "true", "labels": `["a=b"]`, "insecure-registries": `["reg:1"]`, "registry-mirrors": `["https://m"]`,
		"max-concurrent-downloads": "1", "max-concurrent-uploads": "2", "max-download-attempts": "3", "shutdown-timeout": "4",
		"default-stop-timeout": "5", "live-restore": "false", "runtimes": "other:/o skiff:skiff-shim", "default-runtime": "other",
		"features": "map[buildkit:true]", "default-shm-size": "1048576", "default-ipc-mode": "shareable", "default-cgroupns-mode": "host",
	}
	if diff := cmp.Diff(want, c.attributes()); diff != "" {
		t.Error(diff)
	}
	if len(restart) != 1 || restart[0] != "config-file" { // of this test alone
		t.Errorf("without need a restart is asked for, for %v", restart)
	}
	if c.level() != slog.LevelDebug {
		t.Error("debug has no effect")
	}
	_, restart = read(`{"log-opts": {"max-size": "1m"}, "dns": ["192.0.2.1"], "icc": false, "features": {"cdi": false}, "storage-opts": ["overlay2.size=1G"],
		"default-ulimits": {"nofile": {"Soft": 1, "Hard": 2}}, "default-network-opts": {"bridge": {"a": "b"}}, "builder": {"gc": {"enabled": false}},
		"proxies": {"no-proxy": "x"}, "hosts": ["unix:///x"]}`)
	wantKeys := "builder config-file default-network-opts default-ulimits dns features (cdi) hosts icc log-opts no-proxy storage-opts"
	seen := map[string]bool{}
	for _, k := range restart {
		seen[k] = true
	}
	for _, k := range strings.Split(strings.ReplaceAll(wantKeys, " (", "\x00("), " ") {
		if k = strings.ReplaceAll(k, "\x00", " "); !seen[k] {
			t.Errorf("%s is not told of: %v", k, restart)
		}
	}
}

func TestStacks(t *testing.T) {
	path, err := dumpStacks(t.TempDir(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if filepath.Base(path) != "goroutine-stacks-2026-01-02T030405Z.log" || err != nil || !strings.Contains(string(data), "goroutine ") {
		t.Errorf("%s %v %.100s", path, err, data)
	}
}

func TestProxiesOfTheEnvironment(t *testing.T) {
	for _, n := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
		t.Setenv(n, "")
	}
	t.Setenv("http_proxy", "http://low:1")
	t.Setenv("HTTPS_PROXY", "http://high:1")
	t.Setenv("https_proxy", "http://low:2")
	c, err := load(t, `{"proxies": {"no-proxy": "a,b"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.proxies(), [3]string{"http://low:1", "http://high:1", "a,b"}; got != want {
		t.Errorf("%q", got)
	}
	if err := c.exportProxies(); err != nil || os.Getenv("NO_PROXY") != "a,b" || os.Getenv("no_proxy") != "a,b" || os.Getenv("http_proxy") != "http://low:1" {
		t.Errorf("%v %q", err, os.Environ())
	}
}

func TestBuilderKey(t *testing.T) {
	c, err := load(t, `{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "10GB", "policy": [
		{"keepStorage": "1GB", "filter": ["unused-for=48h"]}, {"maxUsedSpace": "20%", "all": true}]},
		"entitlements": {"network-host": false, "security-insecure": false}}}`)
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.Builder.limits(1000)
	if err != nil || l.Disabled || l.ReservedSpace != 10<<30 || len(l.Policy) != 2 || l.Policy[0].KeepDuration != 48*time.Hour ||
		l.Policy[0].ReservedSpace != 1<<30 || l.Policy[1].MaxUsedSpace != 200 || !l.Policy[1].All || c.Builder.hostNetwork() {
		t.Errorf("%+v %v", l, err)
	}
	for file, text := range map[string]string{
		`{"builder": {"gc": {"defaultKeepStorage": "much"}}}`:         "invalid space",
		`{"builder": {"gc": {"policy": [{"filter": ["nosuch=1"]}]}}}`: "nosuch",
		`{"builder": {"nosuch": 1}}`:                                  "unknown field",
		`{"builder": {"entitlements": {"security-insecure": true}}}`:  "security-insecure is not supported",
		`{"builder": {"history": {"maxEntries": 5}}}`:                 "history is not supported",
		`{"builder": {"gc": {"policy": [{"keepStorage": "200%"}]}}}`:  "invalid space",
	} {
		if _, err := load(t, file); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s gives %v", file, err)
		}
	}
}
