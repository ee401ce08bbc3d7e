package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func load(t *testing.T, file string, args ...string) (*Config, error) {
	t.Helper()
	c := DefaultConfig()
	fs := pflag.NewFlagSet("skiffd", pflag.ContinueOnError)
	c.AddFlags(fs)
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fs.Parse(append(args, "--config-file", path)); err != nil {
		return nil, err
	}
	if err := LoadFile(c.ConfigFile, fs); err != nil {
		return nil, err
	}
	return c, c.Finish()
}

func TestFileAndFlagsMeet(t *testing.T) {
	c, err := load(t, `{
		"hosts": ["unix:///tmp/a.sock", "unix:///tmp/b.sock"],
		"insecure-registries": ["reg:5000"],
		"log-driver": "json-file",
		"log-opts": {"max-size": "1m", "max-file": "2"},
		"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 2048, "Soft": 1024}},
		"default-address-pools": [{"base": "10.10.0.0/16", "size": 24}, {"base": "fd00:10::/48", "size": 64}],
		"ipv6": true, "fixed-cidr-v6": "fd00:9::/64",
		"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1234"}},
		"default-shm-size": "32m", "default-ipc-mode": "shareable", "default-cgroupns-mode": "host",
		"host-gateway-ips": ["192.0.2.1", "2001:db8::1"], "cdi-spec-dirs": [],
		"features": {"buildkit": true, "containerd-snapshotter": true, "cdi": true},
		"debug": true, "mtu": 1400,
		"storage-driver": "overlay2", "storage-opts": ["overlay2.size=1G"], "live-restore": true, "exec-opts": ["native.cgroupdriver=cgroupfs"]
	}`, "--data-root", "/tmp/x", "--bip", "10.9.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"unix:///tmp/a.sock", "unix:///tmp/b.sock"}
	if diff := cmp.Diff(want, c.Hosts); diff != "" {
		t.Error(diff)
	}
	if c.LogOpts["max-size"] != "1m" || c.LogOpts["max-file"] != "2" || c.LogDriver != "json-file" {
		t.Errorf("log: %v %v", c.LogDriver, c.LogOpts)
	}
	if u := c.Ulimits["nofile"]; u == nil || u.Soft != 1024 || u.Hard != 2048 {
		t.Errorf("ulimit: %v", u)
	}
	if !c.IPv6 || c.FixedCIDR6 != "fd00:9::/64" || c.NetworkOpts["bridge"]["com.docker.network.driver.mtu"] != "1234" {
		t.Errorf("networks: %v %v %v", c.IPv6, c.FixedCIDR6, c.NetworkOpts)
	}
	if c.IpcMode != "shareable" || c.CgroupnsMode != "host" || len(c.hostGateways()) != 2 || len(c.CDISpecDirs) != 0 {
		t.Errorf("%q %q %v %q", c.IpcMode, c.CgroupnsMode, c.hostGateways(), c.CDISpecDirs)
	}
	if c.ShmSize != 32<<20 || c.level() != slog.LevelDebug || c.MTU != 1400 || c.DataRoot != "/tmp/x" {
		t.Errorf("%+v", c)
	}
	if size, err := c.layerSize(); err != nil || size != 1<<30 {
		t.Errorf("size %d, %v", size, err)
	}
	if diff := cmp.Diff([]string{"base=10.10.0.0/16,size=24", "base=fd00:10::/48,size=64"}, c.Pools); diff != "" {
		t.Error(diff)
	}
}

func TestCDIDirs(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		args []string
		want int
	}{
		"defaults":                 {`{}`, nil, 2},
		"on":                       {`{"features": {"cdi": true}}`, nil, 2},
		"off":                      {`{"features": {"cdi": false}}`, []string{"--cdi-spec-dir", "/a"}, 0},
		"none":                     {`{"cdi-spec-dirs": []}`, nil, 0},
		"none on the command line": {``, []string{"--cdi-spec-dir", "", "--feature", "cdi"}, 0},
		"one":                      {`{"cdi-spec-dirs": ["/a"]}`, nil, 1},
	} {
		c, err := load(t, tc.file, tc.args...)
		if err != nil || len(c.CDISpecDirs) != tc.want {
			t.Errorf("%s: %q %v", name, c.CDISpecDirs, err)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		args []string
		want string
	}{
		"unknown key":          {`{"nosuch": false}`, nil, "don't match any configuration option: nosuch"},
		"singular key":         {`{"host": "unix:///x"}`, nil, "don't match any configuration option: host"},
		"both places":          {`{"hosts": ["unix:///x"]}`, []string{"-H", "unix:///y"}, "specified both as a flag and in the configuration file: hosts"},
		"bad JSON":             {`{"hosts": `, nil, "unexpected EOF"},
		"wrong shape":          {`{"debug": {"a": []}}`, nil, "unexpected value"},
		"tcp without TLS":      {``, []string{"-H", "tcp://127.0.0.1:2375"}, "refusing to serve TCP without mutual TLS"},
		"read-only tcp":        {``, []string{"--host-ro", "tcp://127.0.0.1:2375"}, "refusing to serve TCP without mutual TLS"},
		"both kinds of socket": {``, []string{"-H", "unix:///x", "--host-ro", "unix:///x"}, "unix:///x is both --host and --host-ro"},
		"read-only fd":         {``, []string{"--host-ro", "fd://"}, "invalid --host-ro"},
		"unknown scheme":       {``, []string{"-H", "npipe://x"}, `invalid --host "npipe://x"`},
		"bip is not a prefix":  {``, []string{"--bip", "10.0.0.1"}, "invalid --bip"},
		"a subnet of IPv4":     {``, []string{"--fixed-cidr-v6", "10.0.0.0/24"}, "invalid --fixed-cidr-v6"},
		"log level":            {``, []string{"-l", "loud"}, "invalid --log-level"},
		"cgroup parent":        {``, []string{"--cgroup-parent", "../x"}, "invalid --cgroup-parent"},
		"more real time":       {``, []string{"--cpu-rt-period", "1000", "--cpu-rt-runtime", "1001"}, "invalid --cpu-rt-period 1000"},
		"a cgroup driver":      {``, []string{"--exec-opt", "native.cgroupdriver=none"}, "is not supported"},
		"not a slice":          {``, []string{"--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", "/x"}, "should be a valid slice named as"},
		"half of a key pair":   {``, []string{"--registry-tlscert", "x"}, "go together"},
		"other storage":        {`{"storage-driver": "zfs"}`, nil, "--storage-driver zfs is not supported"},
		"a storage option":     {`{"storage-opts": ["overlay2.nosuch=true"]}`, nil, "--storage-opt overlay2.nosuch=true is not supported"},
		"a size of layers":     {``, []string{"--storage-opt", "skiff.size=much"}, "invalid --storage-opt size=much"},
		"an IPC mode":          {``, []string{"--default-ipc-mode", "host"}, "invalid --default-ipc-mode"},
		"a cgroupns mode":      {`{"default-cgroupns-mode": "x"}`, nil, "invalid --default-cgroupns-mode"},
		"no gateway":           {`{"host-gateway-ip": "x"}`, nil, "invalid --host-gateway-ip"},
		"two gateways":         {``, []string{"--host-gateway-ip", "192.0.2.1", "--host-gateway-ip", "192.0.2.2"}, "only one IPv4 and one IPv6"},
		"unknown feature":      {`{"features": {"x": true}}`, nil, `feature "x" is not supported`},
		"twice":                {`{"proxies": {"http-proxy": "http://u:secret@p"}}`, []string{"--http-proxy", "http://u:x@p"}, "http-proxy: (from flag: http://xxxxx:xxxxx@p, from file: http://xxxxx:xxxxx@p)"},
		"another proxy":        {`{"proxies": {"ftp-proxy": "x"}}`, nil, "don't match any configuration option: ftp-proxy"},
		"a range outside":      {`{"bip": "10.9.0.1/24", "fixed-cidr": "10.8.0.0/25"}`, nil, "--fixed-cidr 10.8.0.0/25: it is not within"},
		"missing explicit dns": {``, []string{"--dns", "nope"}, "invalid --dns"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.file, tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && !errs.Is(err, errs.Invalid) {
				t.Errorf("kind %v", errs.KindOf(err))
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	fs := pflag.NewFlagSet("skiffd", pflag.ContinueOnError)
	c := DefaultConfig()
	c.AddFlags(fs)
	missing := filepath.Join(t.TempDir(), "none.json")
	if err := LoadFile(missing, fs); err != nil {
		t.Errorf("the default file may be missing: %v", err)
	}
	if err := fs.Parse([]string{"--config-file", missing}); err != nil {
		t.Fatal(err)
	}
	if err := LoadFile(missing, fs); err == nil {
		t.Error("a file that was asked for may not")
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add([]byte(`{"hosts":["unix:///a"],"default-ulimits":{"nofile":{"Soft":1}}}`))
	f.Add([]byte(`{"log-opts":{"a":1}}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		fs := pflag.NewFlagSet("skiffd", pflag.ContinueOnError)
		DefaultConfig().AddFlags(fs)
		_ = applyFile(data, fs)
	})
}

func TestRuntimes(t *testing.T) {
	c, err := load(t, `{"runtimes": {
		"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]},
		"gvisor": {"runtimeType": "io.containerd.runsc.v1", "options": {"TypeUrl": "io.containerd.runsc.v1.options"}},
		"other": {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/opt/runc"}}
	}, "default-runtime": "crun", "experimental": true}`)
	if err != nil {
		t.Fatal(err)
	}
	all := c.externals()
	want := map[string]runtime.External{
		"crun":   {Name: "crun", Path: "/usr/bin/crun", Args: []string{"--debug"}},
		"gvisor": {Name: "gvisor", Path: "runsc"}, "other": {Name: "other", Path: "/opt/runc"},
		"io.containerd.runsc.v1": {Name: "io.containerd.runsc.v1", Path: "runsc"},
	}
	for name, e := range want {
		if diff := cmp.Diff(e, all[name]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if c.defaultRuntime() != "crun" || !c.Experimental {
		t.Errorf("default %q, experimental %v", c.defaultRuntime(), c.Experimental)
	}
	if c, err = load(t, `{}`, "--add-runtime", "crun=/usr/bin/crun", "--default-runtime", "runc"); err != nil || c.defaultRuntime() != "skiff" || c.Runtimes["crun"].Path != "/usr/bin/crun" {
		t.Errorf("%+v, %v", c, err)
	}
	for text, file := range map[string]string{
		"specified default runtime 'nosuch' does not exist": `{"default-runtime": "nosuch"}`,
		"runtime name 'skiff' is reserved":                  `{"runtimes": {"skiff": {"path": "/x"}}}`,
		"invalid runtime name":                              `{"runtimes": {"../x": {"path": "/x"}}}`,
		"must be given":                                     `{"runtimes": {"x": {}}}`,
		"exclude each other":                                `{"runtimes": {"x": {"path": "/x", "runtimeType": "io.containerd.runc.v2"}}}`,
		`type "io.containerd.kata.v2" is not known`:         `{"runtimes": {"kata": {"runtimeType": "io.containerd.kata.v2"}}}`,
		"is a shim of containerd's":                         `{"runtimes": {"x": {"runtimeType": "/usr/bin/containerd-shim-x"}}}`,
		"option SystemdCgroup is not supported":             `{"runtimes": {"x": {"runtimeType": "io.containerd.runc.v2", "options": {"SystemdCgroup": true}}}}`,
		"cannot unmarshal":                                  `{"runtimes": "x"}`,
		"unknown field":                                     `{"runtimes": {"x": {"path": "/x", "nosuch": 1}}}`,
	} {
		if _, err := load(t, file); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s gives %v", file, err)
		}
	}
	if _, err := load(t, `{"runtimes": {"x": {"path": "/x"}}}`, "--add-runtime", "y=/y"); err == nil || !strings.Contains(err.Error(), "both as a flag") {
		t.Errorf("both ways give %v", err)
	}
}
