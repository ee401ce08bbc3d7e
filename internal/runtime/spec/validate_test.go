package spec_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// TestValidateRefuses gives configurations as a client would send them.
func TestValidateRefuses(t *testing.T) {
	for _, tc := range []struct {
		config, host string // JSON
		kind         errs.Kind
		text         string
	}{
		{`{"WorkingDir":"srv"}`, ``, errs.Invalid, "the working directory 'srv' is invalid, it needs to be an absolute path"},
		{`{"StopSignal":"NOPE"}`, ``, errs.Invalid, "invalid signal: NOPE"},
		{`{"Env":["=x"]}`, ``, errs.Invalid, "invalid environment variable: =x"},
		{`{"Hostname":"a\n6.6.6.6 evil"}`, ``, errs.Invalid, "invalid hostname"},
		{`{"Domainname":"a b"}`, ``, errs.Invalid, "invalid domain name"},
		{``, `{"ExtraHosts":["a\n6.6.6.6 evil:1.2.3.4"]}`, errs.Invalid, "bad format for add-host"},
		{``, `{"Links":["db:x\n6.6.6.6 evil"]}`, errs.Invalid, "bad format for links"},
		{`{"Hostname":"` + strings.Repeat("h", 65) + `"}`, ``, errs.Invalid, "is too long (maximum 64 bytes)"},
		{`{"Healthcheck":{"Interval":3}}`, ``, errs.Invalid, "Interval in Healthcheck cannot be less than 1ms"},
		{`{"Healthcheck":{"Retries":-1}}`, ``, errs.Invalid, "Retries in Healthcheck cannot be negative"},
		{``, `{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}`, errs.Invalid, "can't create 'AutoRemove' container with restart policy"},
		{``, `{"RestartPolicy":{"Name":"sometimes"}}`, errs.Invalid, "unknown policy 'sometimes'"},
		{``, `{"CapAdd":["NET_ADMN"]}`, errs.Invalid, `invalid CapAdd: unknown capability: "CAP_NET_ADMN"`},
		{``, `{"CapAdd":["SYS_RESOURCE"]}`, errs.Invalid, `not available in the current environment: "CAP_SYS_RESOURCE"`},
		{``, `{"CapDrop":["X"]}`, errs.Invalid, `invalid CapDrop: unknown capability: "CAP_X"`},
		{``, `{"SecurityOpt":["foo"]}`, errs.Invalid, `invalid --security-opt 1: "foo"`},
		{``, `{"SecurityOpt":["foo=bar"]}`, errs.Invalid, `invalid --security-opt 2: "foo=bar"`},
		{``, `{"SecurityOpt":["no-new-privileges=maybe"]}`, errs.Invalid, `invalid --security-opt 2`},
		{``, `{"SecurityOpt":["seccomp={"]}`, errs.Invalid, "seccomp profile"},
		{``, `{"SecurityOpt":["apparmor=mine"]}`, errs.Invalid, "AppArmor is not enabled"},
		{``, `{"SecurityOpt":["label=type:x"]}`, errs.Unsupported, "SELinux"},
		{``, `{"Sysctls":{"kernel.core_pattern":"|x"}}`, errs.Invalid, `sysctl "kernel.core_pattern" is not in a separate kernel namespace`},
		{``, `{"Sysctls":{"net/../kernel.core_pattern":"x"}}`, errs.Invalid, "invalid sysctl"},
		{``, `{"Sysctls":{"kernel.shmmax+kernel.core_pattern":"x"}}`, errs.Invalid, "invalid sysctl"},
		{``, `{"NetworkMode":"host","Sysctls":{"net.core.somaxconn":"1"}}`, errs.Invalid, "not allowed in host network namespace"},
		{``, `{"NetworkMode":"container:x","Sysctls":{"net.core.somaxconn":"1"}}`, errs.Invalid, "joined from another container"},
		{``, `{"IpcMode":"host","Sysctls":{"kernel.shmmax":"1"}}`, errs.Invalid, "not allowed in host ipc namespace"},
		{``, `{"Ulimits":[{"Name":"nofile","Soft":30000,"Hard":30000}]}`, errs.Invalid, "ulimit nofile=30000:30000: the hard limit cannot be raised above this host's 20000"},
		{``, `{"Ulimits":[{"Name":"files","Soft":1,"Hard":1}]}`, errs.Invalid, "invalid ulimit type: files"},
		{``, `{"Ulimits":[{"Name":"core","Soft":2,"Hard":1}]}`, errs.Invalid, "must be less than or equal to hard limit: 2 > 1"},
		{``, `{"Memory":1000}`, errs.Invalid, "Minimum memory limit allowed is 6MB"},
		{``, `{"Memory":16777216,"MemorySwap":8388608}`, errs.Invalid, "Minimum memoryswap limit should be larger"},
		{``, `{"MemorySwap":8388608}`, errs.Invalid, "You should always set the Memory limit"},
		{``, `{"MemorySwappiness":101}`, errs.Invalid, "valid memory swappiness range is 0-100"},
		{``, `{"NanoCpus":3000000000}`, errs.Invalid, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"},
		{``, `{"NanoCpus":1000000000,"CpuPeriod":1000}`, errs.Invalid, "Nano CPUs and CPU Period cannot both be set"},
		{``, `{"CpuQuota":10}`, errs.Invalid, "CPU cfs quota can not be less than 1ms"},
		{``, `{"CpuRealtimeRuntime":10,"CpuRealtimePeriod":9}`, errs.Invalid, "cpu real-time runtime cannot be higher than cpu real-time period"},
		{``, `{"CpuRealtimeRuntime":-1}`, errs.Invalid, "values must be positive"},
		{``, `{"CpusetCpus":"0-5"}`, errs.Invalid, "Requested CPUs are not available - requested 0-5, available: 0-1"},
		{``, `{"CpusetCpus":"0-99999999"}`, errs.Invalid, "Invalid value 0-99999999 for cpuset cpus"},
		{``, `{"BlkioWeight":5}`, errs.Invalid, "Range of blkio weight is from 10 to 1000"},
		{``, `{"IOMaximumIOps":5}`, errs.Invalid, "Invalid QoS settings"},
		{``, `{"OomScoreAdj":2000}`, errs.Invalid, "range for oom score adj is [-1000, 1000]"},
		{``, `{"ShmSize":-1}`, errs.Invalid, "SHM size can not be less than 0"},
		{``, `{"IpcMode":"some"}`, errs.Invalid, "invalid IPC mode: some"},
		{``, `{"PidMode":"container:"}`, errs.Invalid, "invalid PID mode: container:"},
		{``, `{"UTSMode":"some"}`, errs.Invalid, "invalid UTS mode"},
		{``, `{"CgroupnsMode":"some"}`, errs.Invalid, "invalid cgroup namespace mode"},
		{``, `{"UsernsMode":"remap"}`, errs.Invalid, "invalid user namespace mode"},
		{``, `{"Runtime":"runsc"}`, errs.Invalid, "unknown or invalid runtime name: runsc"},
		{``, `{"Isolation":"hyperv"}`, errs.Invalid, "invalid isolation (hyperv): linux only supports 'default'"},
		{``, `{"StorageOpt":{"size":"1G","inodes":"9"}}`, errs.Invalid, "invalid --storage-opt: unknown option inodes"},
		{``, `{"StorageOpt":{"size":"lots"}}`, errs.Invalid, "invalid --storage-opt size=lots: invalid size: 'lots'"},
		{``, `{"StorageOpt":{"size":"-1"}}`, errs.Invalid, "invalid --storage-opt size=-1"},
		{``, `{"DeviceRequests":[{"Driver":"","Capabilities":[["gpu"]]}]}`, errs.Unsupported, `could not select device driver "" with capabilities: [[gpu]]`},
		{``, `{"DeviceCgroupRules":["c 1 rwm"]}`, errs.Invalid, "invalid device cgroup rule format: 'c 1 rwm'"},
		{``, `{"Devices":[{"PathOnHost":"/dev/fuse","CgroupPermissions":"x"}]}`, errs.Invalid, `invalid device permissions "x"`},
		{``, `{"Annotations":{"":"x"}}`, errs.Invalid, "invalid Annotations"},
		{``, `{"ExtraHosts":["web"]}`, errs.Invalid, `bad format for add-host: "web"`},
		{``, `{"ExtraHosts":["web:1.2.3"]}`, errs.Invalid, `invalid IP address in add-host: "1.2.3"`},
		{``, `{"PortBindings":{"80/tcp":[{"HostPort":"x"}]}}`, errs.Invalid, `invalid port specification: "x"`},
		{``, `{"Binds":["/a:/b:what"]}`, errs.Invalid, "invalid mode: what"},
		{``, `{"Binds":["/a:/"]}`, errs.Invalid, "destination can't be '/'"},
		{``, `{"Binds":["/a:/b","v:/b/"]}`, errs.Invalid, "Duplicate mount point: /b"},
		{``, `{"Mounts":[{"Type":"bind","Source":"/a","Target":"/x","BindOptions":{"ReadOnlyNonRecursive":true}}]}`, errs.Invalid, `mount options conflict: !ReadOnly && ReadOnlyNonRecursive`},
		{``, `{"Mounts":[{"Type":"bind","Source":"/a","Target":"/x","BindOptions":{"ReadOnlyForceRecursive":true}}]}`, errs.Invalid, `mount options conflict: !ReadOnly && ReadOnlyForceRecursive`},
		{``, `{"Mounts":[{"Type":"bind","Target":"/x"}]}`, errs.Invalid, `invalid mount config for type "bind": field Source must not be empty`},
		{``, `{"Mounts":[{"Type":"tmpfs","Source":"a","Target":"/x"}]}`, errs.Invalid, "field Source must not be specified"},
		{``, `{"Mounts":[{"Type":"volume","Source":"v","Target":"/x","VolumeOptions":{"Subpath":"../y"}}]}`, errs.Invalid, "subpath must be a relative path"},
		{``, `{"Tmpfs":{"rel":""}}`, errs.Invalid, "mount path must be absolute"},
		{``, `{"Tmpfs":{"/x":"bogus=1"}}`, errs.Invalid, "invalid tmpfs option"},
	} {
		var c container.Config
		var h container.HostConfig
		for text, v := range map[string]any{tc.config: &c, tc.host: &h} {
			if text != "" {
				if err := json.Unmarshal([]byte(text), v); err != nil {
					t.Fatal(text, err)
				}
			}
		}
		_, err := spec.Validate(&c, &h, facts())
		if !errs.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s%s: got %v (%v), want %v: %s", tc.config, tc.host, err, errs.KindOf(err), tc.kind, tc.text)
		}
	}
}

func TestLayerSize(t *testing.T) {
	for _, tc := range []struct {
		opts map[string]string
		want uint64
	}{
		{nil, 0},
		{map[string]string{"size": "0"}, 0},
		{map[string]string{"size": "10G"}, 10 << 30},
		{map[string]string{"Size": "1.5mb"}, 3 << 19},
	} {
		if got, err := spec.LayerSize(tc.opts); err != nil || got != tc.want {
			t.Errorf("%v: %d, %v", tc.opts, got, err)
		}
	}
}

func TestValidateWarns(t *testing.T) {
	h := &container.HostConfig{}
	h.Memory, h.PidsLimit, h.OomKillDisable = 64<<20, new(int64(5)), new(true)
	host := facts()
	w, err := spec.Validate(&container.Config{}, h, host)
	if err != nil || len(w) != 0 {
		t.Errorf("%v %v", w, err)
	}
	host.Cgroups = spec.CgroupFacts{Memory: true}
	w, err = spec.Validate(&container.Config{}, h, host)
	if err != nil || len(w) != 3 {
		t.Errorf("%q %v", w, err)
	}
	r, err := spec.Resources(&h.Resources, host)
	if err != nil || r.Pids != nil || r.Memory.Swap != nil || *r.Memory.Limit != 64<<20 {
		t.Errorf("%+v %v: what was warned of is not left out", r, err)
	}
}

func TestDefaultsAreWhatDockerShows(t *testing.T) {
	h := &container.HostConfig{}
	h.Memory = 8 << 20
	spec.Defaults(h, facts(), 0)
	if h.MemorySwap != 16<<20 || h.ShmSize != 64<<20 || h.IpcMode != "private" || h.CgroupnsMode != "private" || h.RestartPolicy.Name != "no" {
		t.Errorf("%+v", h)
	}
	if _, err := spec.Validate(&container.Config{}, h, facts()); err != nil {
		t.Error(err)
	}
}

func TestDefaultUlimitIsLowered(t *testing.T) {
	in := input()
	in.DefaultUlimits = map[string]*container.Ulimit{"nofile": {Name: "nofile", Soft: 65536, Hard: 1048576}}
	s, _, err := spec.Build(in)
	if err != nil || s.Process.Rlimits[0].Hard != 20000 || s.Process.Rlimits[0].Soft != 20000 {
		t.Errorf("%+v %v", s.Process.Rlimits, err)
	}
}

func TestMountPoints(t *testing.T) {
	c := &container.Config{Volumes: map[string]struct{}{"/var/lib/data": {}, "/b": {}}}
	h := &container.HostConfig{
		Binds: []string{"/a:/b:ro,rslave", "vol:/c:nocopy,z", "/anon"},
		Mounts: []mount.Mount{
			{Type: "tmpfs", Target: "/t", ReadOnly: true, TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o700}},
			{Type: "volume", Source: "v2", Target: "/v", VolumeOptions: &mount.VolumeOptions{Subpath: "a/b", DriverConfig: &mount.Driver{Name: "local", Options: map[string]string{"type": "tmpfs"}}}},
		},
		Tmpfs: map[string]string{"/run": "size=1m"},
	}
	got, err := spec.MountPoints(c, h)
	if err != nil {
		t.Fatal(err)
	}
	want := []spec.MountPoint{
		{Type: "bind", Target: "/b", Source: "/a", Raw: true, Mode: "ro,rslave", ReadOnly: true, Propagation: "rslave", Propagates: true, CreateSource: true},
		{Type: "volume", Target: "/c", Name: "vol", NoCopy: true, Raw: true, Mode: "nocopy,z"},
		{Type: "volume", Target: "/anon", Raw: true},
		{Type: "tmpfs", Target: "/t", ReadOnly: true, TmpfsOptions: "ro,mode=700,size=1048576"},
		{Type: "volume", Target: "/v", Name: "v2", Subpath: "a/b", Driver: "local", DriverOpts: map[string]string{"type": "tmpfs"}},
		{Type: "tmpfs", Target: "/run", TmpfsOptions: "size=1m"},
		{Type: "volume", Target: "/var/lib/data"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if id, ro, err := spec.ParseVolumesFrom("db:ro"); id != "db" || !ro || err != nil {
		t.Error(id, ro, err)
	}
	if _, _, err := spec.ParseVolumesFrom("db:rshared"); err == nil {
		t.Error("volumes-from took a propagation")
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "v:/x", "/x", "::", "a:b:c:d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := spec.ParseBind(s, "")
		if err == nil && (!strings.HasPrefix(p.Target, "/") || p.Target == "/") {
			t.Errorf("%q gives target %q", s, p.Target)
		}
	})
}

func FuzzSecurityOpt(f *testing.F) {
	f.Add("seccomp={}", "net.ipv4.x", "1")
	f.Fuzz(func(t *testing.T, opt, sysctl, value string) {
		in := input()
		in.HostConfig.SecurityOpt = []string{opt}
		in.HostConfig.Sysctls = map[string]string{sysctl: value}
		s, _, err := spec.Build(in)
		if err == nil && strings.Contains(sysctl, "..") {
			t.Errorf("accepted %q as %v", sysctl, s.Linux.Sysctl)
		}
	})
}
