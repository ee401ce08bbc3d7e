package spec_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

var update = flag.Bool("update", os.Getenv("UPDATE") != "", "write the golden files")

func facts() spec.HostFacts {
	var caps []string
	for n := range 41 {
		if name := spec.CapabilityName(n); name != "CAP_SYS_RESOURCE" {
			caps = append(caps, name)
		}
	}
	return spec.HostFacts{
		CgroupNS: true, Capabilities: caps, HardLimits: map[string]uint64{"RLIMIT_NOFILE": 20000},
		Seccomp: true, CPUs: 2, CPUSet: "0-1", MemSet: "0", Cgroups: spec.AllCgroups(), RecursiveRO: true,
		MaskedPaths: []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"},
		Sysctl:      func(string) bool { return true },
		Devices: func() ([]specs.LinuxDevice, error) {
			return []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}, nil
		},
		Device: func(p string) ([]specs.LinuxDevice, error) {
			switch p {
			case "/dev/fuse":
				return []specs.LinuxDevice{{Path: p, Type: "c", Major: 10, Minor: 229}}, nil
			case "/dev/snd":
				return []specs.LinuxDevice{{Path: "/dev/snd/a", Type: "c", Major: 116, Minor: 1}, {Path: "/dev/snd/by/b", Type: "c", Major: 116, Minor: 2}}, nil
			case "/dev/sda":
				return []specs.LinuxDevice{{Path: p, Type: "b", Major: 8, Minor: 0}}, nil
			}
			return nil, os.ErrNotExist
		},
	}
}

func input() spec.Input {
	return spec.Input{
		ID: "cafe", Name: "web", Hostname: "cafe", Config: &container.Config{}, HostConfig: &container.HostConfig{},
		Path: "/bin/sh", Args: []string{"-c", "true"}, CgroupPath: "/skiff/cafe", Host: facts(),
		Mounts: []spec.Mount{
			{Destination: "/etc/hosts", Source: "/run/skiff/cafe/hosts"},
			{Destination: "/etc/resolv.conf", Source: "/run/skiff/cafe/resolv.conf"},
		},
	}
}

// cases are whole configurations; each has a golden specification.
var cases = map[string]func(*spec.Input){
	"plain": func(*spec.Input) {},
	"privileged": func(in *spec.Input) {
		in.HostConfig.Privileged = true
		in.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/fuse", PathInContainer: "/dev/other"}}
	},
	"server": func(in *spec.Input) {
		c, h := in.Config, in.HostConfig
		c.Env, c.WorkingDir, c.Tty = []string{"PATH=/bin", "A=1", "A=2", "EMPTY=", "TERM"}, "srv/../www", true
		in.Domainname = "example.org"
		h.ConsoleSize = [2]uint{24, 80}
		h.CapAdd, h.CapDrop = []string{"net_admin", "CAP_SYS_TIME"}, []string{"MKNOD", "CAP_AUDIT_WRITE"}
		h.SecurityOpt = []string{"no-new-privileges", "label=disable"}
		h.ReadonlyRootfs, h.ShmSize, h.OomScoreAdj = true, 1<<20, -5
		h.Sysctls = map[string]string{"net.core.somaxconn": "1024", "kernel.shmmax": "1"}
		h.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 1024, Hard: 2048}, {Name: "core", Soft: -1, Hard: -1}}
		in.DefaultUlimits = map[string]*container.Ulimit{"nofile": {Name: "nofile", Soft: 9, Hard: 9}, "nproc": {Name: "nproc", Soft: 5, Hard: 5}}
		h.Annotations = map[string]string{"io.skiff.a": "b"}
		h.Umask = new(uint32(0o27))
		h.Devices = []container.DeviceMapping{{PathOnHost: "/dev/fuse"}, {PathOnHost: "/dev/snd", PathInContainer: "/dev/sound", CgroupPermissions: "rw"}}
		h.DeviceCgroupRules = []string{"c 42:* rmw"}
		in.Mounts = append(in.Mounts,
			spec.Mount{Destination: "/data/deep", Source: "/srv/deep", ReadOnly: true},
			spec.Mount{Destination: "/data", Source: "/srv/data", Propagation: mount.PropagationRShared},
			spec.TmpfsMount("/tmp", "size=64m,exec"),
			spec.Mount{Destination: "/nfs", Type: "nfs", Source: ":/export", Options: []string{"addr=10.0.0.1"}, ReadOnly: true},
		)
	},
	"limits": func(in *spec.Input) {
		r := &in.HostConfig.Resources
		r.Memory, r.MemoryReservation, r.NanoCPUs, r.CPUShares = 64<<20, 32<<20, 1_500_000_000, 512
		r.CpusetCpus, r.CpusetMems = "0-1", "0"
		r.MemorySwappiness, r.OomKillDisable, r.PidsLimit = new(int64(10)), new(true), new(int64(0))
		r.BlkioWeight = 300
		r.BlkioWeightDevice = []*blkiodev.WeightDevice{{Path: "/dev/sda", Weight: 200}}
		r.BlkioDeviceReadBps = []*blkiodev.ThrottleDevice{{Path: "/dev/sda", Rate: 1 << 20}}
		r.BlkioDeviceWriteIOps = []*blkiodev.ThrottleDevice{{Path: "/dev/sda", Rate: 100}}
	},
	"host namespaces": func(in *spec.Input) {
		h := in.HostConfig
		h.NetworkMode, h.IpcMode, h.PidMode, h.UTSMode, h.CgroupnsMode = "host", "host", "host", "host", "host"
	},
	"joined namespaces": func(in *spec.Input) {
		h := in.HostConfig
		h.NetworkMode, h.IpcMode, h.PidMode = "container:a", "container:a", "container:a"
		in.JoinPID, in.JoinIPC, in.ShmPath = "/proc/7/ns/pid", "/proc/7/ns/ipc", "/run/skiff/a/shm"
	},
	"unconfined": func(in *spec.Input) {
		h := in.HostConfig
		h.CapDrop, h.IpcMode = []string{"ALL"}, "none"
		h.SecurityOpt = []string{"seccomp=unconfined", "systempaths=unconfined", "apparmor=unconfined", "writable-cgroups=true"}
	},
	"own paths": func(in *spec.Input) {
		in.HostConfig.MaskedPaths, in.HostConfig.ReadonlyPaths = []string{}, []string{"/proc/sys"}
		in.HostConfig.CapAdd, in.HostConfig.CapDrop = []string{"ALL"}, []string{"NET_RAW"}
		in.Mounts = append(in.Mounts, spec.Mount{Destination: "/dev", Source: "/dev"})
	},
}

func TestBuildGolden(t *testing.T) {
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			in := input()
			change(&in)
			s, warnings, err := spec.Build(in)
			if err != nil {
				t.Fatal(err)
			}
			var filter string
			if f := s.Linux.Seccomp; f != nil {
				filter = string(f.DefaultAction) // the rest depends on kernel and processor
				s.Linux.Seccomp = nil
			}
			got, _ := json.MarshalIndent(struct {
				Seccomp  string
				Warnings []string `json:",omitempty"`
				Spec     *specs.Spec
			}{filter, warnings, s}, "", "  ")
			file := filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".json")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got)+"\n", "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSeccompFollowsCapabilities(t *testing.T) {
	in := input()
	allows := func() bool {
		s, _, err := spec.Build(in)
		if err != nil {
			t.Fatal(err)
		}
		if f := s.Linux.Seccomp; f == nil || runtime.GOARCH == "amd64" && !slices.Contains(f.Architectures, specs.ArchX86_64) {
			t.Fatalf("filter %+v", f)
		}
		return slices.ContainsFunc(s.Linux.Seccomp.Syscalls, func(c specs.LinuxSyscall) bool {
			return c.Action == specs.ActAllow && len(c.Args) == 0 && slices.Contains(c.Names, "mount")
		})
	}
	if allows() {
		t.Error("mount is allowed without CAP_SYS_ADMIN")
	}
	in.HostConfig.CapAdd = []string{"SYS_ADMIN"}
	if !allows() {
		t.Error("mount is refused with CAP_SYS_ADMIN")
	}
	in.HostConfig.SecurityOpt = []string{`seccomp={"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["mount"],"action":"SCMP_ACT_ALLOW"}]}`}
	if !allows() {
		t.Error("own profile is not taken")
	}
}

func TestExec(t *testing.T) {
	in := input()
	in.Config.Env, in.Config.User, in.Config.WorkingDir = []string{"A=1"}, "app", "/srv"
	in.HostConfig.GroupAdd = []string{"adm"}
	in.HostConfig.CapDrop = []string{"ALL"}
	s, _, err := spec.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	r := &container.ExecCreateRequest{Cmd: []string{"id"}, Tty: true, Env: []string{"B=2", "A=3"}, ConsoleSize: &[2]uint{10, 20}}
	p, err := spec.BuildExec(s, in.Config, in.HostConfig, r, in.Host)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"PATH=" + spec.DefaultPath, "HOSTNAME=cafe", "TERM=xterm", "A=3", "B=2"}; !slices.Equal(p.Env, want) {
		t.Errorf("env %q, want %q", p.Env, want)
	}
	if p.Cwd != "/srv" || !p.Terminal || p.ConsoleSize.Width != 20 || len(p.Capabilities.Bounding) != 0 {
		t.Errorf("process %+v", p)
	}
	if u := spec.ExecUser(in.Config, in.HostConfig, r); u.Spec != "app" || !slices.Equal(u.Groups, []string{"adm"}) {
		t.Errorf("user %+v", u)
	}
	r.Privileged, r.User = true, "0"
	if p, _ = spec.BuildExec(s, in.Config, in.HostConfig, r, in.Host); len(p.Capabilities.Bounding) != 40 {
		t.Errorf("privileged: %v", p.Capabilities.Bounding)
	}
	if u := spec.ExecUser(in.Config, in.HostConfig, r); u.Spec != "0" {
		t.Errorf("user %+v", u)
	}
	for _, bad := range []*container.ExecCreateRequest{{}, {Cmd: []string{"a"}, WorkingDir: "x"}, {Cmd: []string{"a"}, Env: []string{"=x"}}} {
		if _, err := spec.BuildExec(s, in.Config, in.HostConfig, bad, in.Host); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestCgroupPathStaysBelowTheRoot(t *testing.T) {
	for parent, want := range map[string]string{
		"": "/skiff/id", "/x": "/x/id", "x/y": "/x/y/id", "../../..": "/id", "/a/../../b": "/b/id",
	} {
		h := &container.HostConfig{}
		h.CgroupParent = parent
		if got := spec.CgroupPath(h, "/skiff", "id"); got != want {
			t.Errorf("%q: %s, want %s", parent, got, want)
		}
	}
	for parent, want := range map[string]string{"": "system.slice:skiff:id", "a-b.slice": "a-b.slice:skiff:id"} {
		h := &container.HostConfig{}
		h.CgroupParent = parent
		if got := spec.CgroupPath(h, "system.slice", "id"); got != want {
			t.Errorf("%q: %s, want %s", parent, got, want)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	in := input()
	for b.Loop() {
		if _, _, err := spec.Build(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshal(b *testing.B) {
	s, _, _ := spec.Build(input())
	for b.Loop() {
		data, _ := json.Marshal(s)
		b.SetBytes(int64(len(data)))
	}
}
