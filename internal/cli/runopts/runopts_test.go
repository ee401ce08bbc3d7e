package runopts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/spf13/pflag"
)

// parse runs a command line, split at spaces, up to the document.
func parse(t *testing.T, line ...string) (*Document, error) {
	t.Helper()
	var f Flags
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	fs.SetOutput(nopWriter{})
	fs.SetInterspersed(false)
	f.Register(fs)
	if err := fs.Parse(line); err != nil {
		return nil, err
	}
	return f.Parse(fs, "img", fs.Args())
}

type nopWriter struct{}

func (nopWriter) Write(p []byte) (int, error) { return len(p), nil }

func must(t *testing.T, line ...string) *Document {
	t.Helper()
	d, err := parse(t, line...)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return d
}

func TestDocumentFields(t *testing.T) {
	for _, c := range []struct {
		line string
		get  func(*Document) any
		want string // as JSON
	}{
		{"", func(d *Document) any {
			c := d.Config
			return []bool{c.AttachStdin, c.AttachStdout, c.AttachStderr, c.OpenStdin, c.StdinOnce, c.Tty}
		}, `[false,true,true,false,false,false]`},
		{"-it", func(d *Document) any {
			c := d.Config
			return []bool{c.AttachStdin, c.AttachStdout, c.AttachStderr, c.OpenStdin, c.StdinOnce, c.Tty}
		}, `[true,true,true,true,true,true]`},
		{"-a stdin -a STDERR", func(d *Document) any {
			c := d.Config
			return []bool{c.AttachStdin, c.AttachStdout, c.AttachStderr, c.OpenStdin}
		}, `[true,false,true,false]`},
		{"-e A=1 --env B= cmd -e", func(d *Document) any { return append(d.Config.Env, d.Config.Cmd...) }, `["A=1","B=","cmd","-e"]`},
		{"-l a=b --label c", func(d *Document) any { return d.Config.Labels }, `{"a":"b","c":""}`},
		{"--entrypoint /x", func(d *Document) any { return d.Config.Entrypoint }, `["/x"]`},
		{"--entrypoint=", func(d *Document) any { return d.Config.Entrypoint }, `[""]`},
		{"", func(d *Document) any { return d.Config.Entrypoint }, `null`},
		{"-u 1:2 -w /w -h host --domainname dom --stop-signal INT --stop-timeout 0", func(d *Document) any {
			c := d.Config
			return []any{c.User, c.WorkingDir, c.Hostname, c.Domainname, c.StopSignal, c.StopTimeout}
		}, `["1:2","/w","host","dom","INT",0]`},
		{"-m 32m --memory-swap -1 --memory-reservation 16k --shm-size 1g --cpus 1.5 -c 512 --pids-limit -1", func(d *Document) any {
			h := d.Host
			return []any{h.Memory, h.MemorySwap, h.MemoryReservation, h.ShmSize, h.NanoCPUs, h.CPUShares, h.PidsLimit}
		}, `[33554432,-1,16384,1073741824,1500000000,512,-1]`},
		{"", func(d *Document) any {
			return []any{d.Host.PidsLimit, d.Host.MemorySwappiness, d.Host.OomKillDisable, d.Host.Init}
		}, `[null,null,null,null]`},
		{
			"--ulimit nofile=5:10 --ulimit nofile=6 --ulimit cpu=1", func(d *Document) any { return d.Host.Ulimits },
			`[{"Name":"cpu","Hard":1,"Soft":1},{"Name":"nofile","Hard":6,"Soft":6}]`,
		},
		{"--device /dev/a --device /dev/a:/dev/b --device /dev/a:r --device /dev/a:/dev/b:rw --device vendor.com/gpu=0", func(d *Document) any {
			return []any{d.Host.Devices, d.Host.DeviceRequests}
		}, `[[{"PathOnHost":"/dev/a","PathInContainer":"/dev/a","CgroupPermissions":"rwm"},
			{"PathOnHost":"/dev/a","PathInContainer":"/dev/b","CgroupPermissions":"rwm"},
			{"PathOnHost":"/dev/a","PathInContainer":"/dev/a","CgroupPermissions":"r"},
			{"PathOnHost":"/dev/a","PathInContainer":"/dev/b","CgroupPermissions":"rw"}],
			[{"Driver":"cdi","Count":0,"DeviceIDs":["vendor.com/gpu=0"],"Capabilities":null,"Options":null}]]`},
		{
			"--gpus all", func(d *Document) any { return d.Host.DeviceRequests },
			`[{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}]`,
		},
		{"-v /data -v vol:/v -v /h:/c:ro,z --tmpfs /t:size=1m --tmpfs /u --volumes-from x:ro", func(d *Document) any {
			return []any{d.Config.Volumes, d.Host.Binds, d.Host.Tmpfs, d.Host.VolumesFrom}
		}, `[{"/data":{}},["vol:/v","/h:/c:ro,z"],{"/t":"size=1m","/u":""},["x:ro"]]`},
		{"--restart on-failure:3", func(d *Document) any { return d.Host.RestartPolicy }, `{"Name":"on-failure","MaximumRetryCount":3}`},
		{"--rm --init --runtime r --log-driver local --log-opt max-size=1m", func(d *Document) any {
			h := d.Host
			return []any{h.AutoRemove, h.Init, h.Runtime, h.LogConfig}
		}, `[true,true,"r",{"Type":"local","Config":{"max-size":"1m"}}]`},
		{"--cap-add A --cap-drop ALL --privileged --group-add 5 --read-only --security-opt no-new-privileges --security-opt label:disable --security-opt seccomp=unconfined", func(d *Document) any {
			h := d.Host
			return []any{h.CapAdd, h.CapDrop, h.Privileged, h.GroupAdd, h.ReadonlyRootfs, h.SecurityOpt}
		}, `[["A"],["ALL"],true,["5"],true,["no-new-privileges","label=disable","seccomp=unconfined"]]`},
		{"--security-opt systempaths=unconfined", func(d *Document) any { return []any{d.Host.MaskedPaths, d.Host.ReadonlyPaths} }, `[[],[]]`},
		{
			"--health-cmd true --health-interval 1s --health-retries 2", func(d *Document) any { return d.Config.Healthcheck },
			`{"Test":["CMD-SHELL","true"],"Interval":1000000000,"Retries":2}`,
		},
		{"--no-healthcheck", func(d *Document) any { return d.Config.Healthcheck }, `{"Test":["NONE"]}`},
		{"--dns 1.1.1.1 --dns-search a.b. --dns-search . --dns-option ndots:2 --add-host a:1.2.3.4 --add-host b=[::1] --add-host c:host-gateway", func(d *Document) any {
			h := d.Host
			return []any{h.DNS, h.DNSSearch, h.DNSOptions, h.ExtraHosts}
		}, `[["1.1.1.1"],["a.b","."],["ndots:2"],["a:1.2.3.4","b:::1","c:host-gateway"]]`},
		{"", func(d *Document) any { return []any{d.Host.NetworkMode, len(d.Networking.EndpointsConfig)} }, `["default",1]`},
		{"--network n1 --network-alias x --ip 10.0.0.2", func(d *Document) any {
			ep := d.Networking.EndpointsConfig["n1"]
			return []any{d.Host.NetworkMode, ep.Aliases, ep.IPAMConfig}
		}, `["n1",["x"],{"IPv4Address":"10.0.0.2"}]`},
		{"--network name=n1,alias=a,alias=b,driver-opt=K=v,gw-priority=5 --network n2", func(d *Document) any {
			ep := d.Networking.EndpointsConfig["n1"]
			return []any{d.Host.NetworkMode, ep.Aliases, ep.DriverOpts, ep.GwPriority, len(d.Networking.EndpointsConfig)}
		}, `["n1",["a","b"],{"k":"v"},5,2]`},
		{"--mac-address 02:42:ac:11:00:02", func(d *Document) any {
			return d.Networking.EndpointsConfig["default"].MacAddress.String()
		}, `"02:42:ac:11:00:02"`},
		{"--device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:10 --blkio-weight-device /dev/sda:20", func(d *Document) any {
			h := d.Host
			return []any{h.BlkioDeviceReadBps, h.BlkioDeviceWriteIOps, h.BlkioWeightDevice}
		}, `[[{"Path":"/dev/sda","Rate":1048576}],[{"Path":"/dev/sda","Rate":10}],[{"Path":"/dev/sda","Weight":20}]]`},
		{
			"--sysctl net.core.somaxconn=1 --annotation a=b", func(d *Document) any { return []any{d.Host.Sysctls, d.Host.Annotations} },
			`[{"net.core.somaxconn":"1"},{"a":"b"}]`,
		},
	} {
		t.Run(c.line, func(t *testing.T) {
			d := must(t, strings.Fields(c.line)...)
			got, err := json.Marshal(c.get(d))
			if err != nil {
				t.Fatal(err)
			}
			var x, y any
			_ = json.Unmarshal(got, &x)
			if err := json.Unmarshal([]byte(c.want), &y); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(y, x); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestDocumentErrors(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"-a foo", "valid streams"},
		{"-p abc", "invalid containerPort: abc"},
		{"-p x:80", "invalid hostPort: x"},
		{"-p 80/foo", "invalid proto: foo"},
		{"-p 8080:", "no port specified"},
		{"-p 1.2.3:80:80", "invalid IP address: 1.2.3"},
		{"-p 1-3:5-9", "invalid ranges specified for container and host Ports: 5-9 and 1-3"},
		{"-p target=80,foo=1", "invalid field key: foo"},
		{"-p published=80", "missing mandatory field 'target'"},
		{"--expose 80:90", "invalid port format for --expose"},
		{"--rm --restart always", "cannot specify both --restart and --rm"},
		{"--restart on-failure:x", "maximum retry count must be an integer"},
		{"--restart :1", "no policy provided before colon"},
		{"--memory-swappiness 101", "Valid memory swappiness range is 0-100"},
		{"-m 1x", "invalid suffix: 'x'"},
		{"--cpus foo", "failed to parse foo as a rational number"},
		{"--cpus 0.0000000001", "too precise"},
		{"--mount type=bind,src=/a", "target is required"},
		{"--mount type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix"},
		{"--mount type=bind,src=/a,dst=/b,foo=1", "unexpected key 'foo'"},
		{"--mount type=bind,src=/a,dst=/b,readonly=maybe", "invalid boolean value"},
		{"--mount type=tmpfs,dst=/b,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"},
		{"--mount dst", "must be a key=value pair"},
		{"--pid foo", "--pid: invalid PID mode"},
		{"--uts foo", "--uts: invalid UTS mode"},
		{"--userns foo", "--userns: invalid USER mode"},
		{"--cgroupns foo", "--cgroupns: invalid CGROUP mode"},
		{"--no-healthcheck --health-cmd x", "conflicts with --health-*"},
		{"--health-retries -1", "--health-retries cannot be negative"},
		{"--dns foo", "IP address is not correctly formatted: foo"},
		{"--dns-search a..b", "is not a valid domain"},
		{"--add-host foo", "bad format for add-host"},
		{"--add-host a:b", "invalid IP address in add-host"},
		{"--link a:", "bad format for links"},
		{"--network-alias a", "only supported for user-defined networks"},
		{"--network a --network a", `network "a" is specified multiple times`},
		{"--network a --network host", "cannot attach both user-defined and non-user-defined"},
		{"--network alias=b", "network name/id is not specified"},
		{"--network name=a,foo=b", "invalid field key foo"},
		{"--ip foo", "invalid IPv4 address: foo"},
		{"--mac-address foo", "foo is not a valid mac address"},
		{"--device /dev/a:/b:c", "bad mode specified: c"},
		{"--device a:b:c:d", "bad format for path"},
		{"--device /dev/a:rel/x", "is not an absolute path"},
		{"--device-cgroup-rule foo", "invalid device cgroup format 'foo'"},
		{"--device-read-bps foo", "bad format"},
		{"--blkio-weight-device /dev/a:5", "invalid weight for device"},
		{"--security-opt foo", "invalid --security-opt"},
		{"--security-opt seccomp=/no/such", "opening seccomp profile (/no/such) failed"},
		{"--sysctl kernel.core_pattern=x", "is not allowed"},
		{"--ulimit foo=1", "invalid ulimit type: foo"},
		{"--label =x", "empty name"},
		{"-e =x", "invalid environment variable"},
		{"--env-file /no/such", "--env-file: open /no/such"},
		{"--storage-opt foo", "invalid storage option"},
		{"--log-driver none --log-opt a=b", "invalid logging opts for driver none"},
		{"-v :/x", "invalid volume specification"},
		{"--gpus foo=1", "unexpected key 'foo'"},
	} {
		_, err := parse(t, strings.Fields(c.line)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.line, err, c.want)
		}
	}
}

func TestPublish(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"-p 80", "80/tcp=:"},
		{"-p 8080:80", "80/tcp=:8080"},
		{"-p 8080:80/udp", "80/udp=:8080"},
		{"-p 8080:80/UDP", "80/udp=:8080"},
		{"-p 127.0.0.1:8080:80", "80/tcp=127.0.0.1:8080"},
		{"-p 127.0.0.1::80", "80/tcp=127.0.0.1:"},
		{"-p [::1]:8080:80", "80/tcp=::1:8080"},
		{"-p ::1:8080:80", "80/tcp=::1:8080"},
		{"-p 8000-8001:80-81", "80/tcp=:8000 81/tcp=:8001"},
		{"-p 8000-8009:80", "80/tcp=:8000-8009"},
		{"-p 80-81", "80/tcp=: 81/tcp=:"},
		{"-p 1:80 -p 2:80", "80/tcp=:1,:2"},
		{"-p target=80,published=8080,protocol=udp", "80/udp=:8080"},
		{"-p target=80", "80/tcp=:"},
	} {
		d := must(t, strings.Fields(c.line)...)
		var parts []string
		for _, p := range []string{"80/tcp", "80/udp", "81/tcp"} {
			for k, bs := range d.Host.PortBindings {
				if k.String() != p {
					continue
				}
				var hosts []string
				for _, b := range bs {
					ip := ""
					if b.HostIP.IsValid() {
						ip = b.HostIP.String()
					}
					hosts = append(hosts, ip+":"+b.HostPort)
				}
				parts = append(parts, fmt.Sprintf("%s=%s", k, strings.Join(hosts, ",")))
				if _, ok := d.Config.ExposedPorts[k]; !ok {
					t.Errorf("%s: %s is not exposed", c.line, k)
				}
			}
		}
		if got := strings.Join(parts, " "); got != c.want {
			t.Errorf("%s: got %s, want %s", c.line, got, c.want)
		}
	}
}

func TestMounts(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		in   string
		want mount.Mount
	}{
		{"type=bind,src=/a,dst=/b,readonly", mount.Mount{Type: "bind", Source: "/a", Target: "/b", ReadOnly: true}},
		{"type=bind,source=./x,target=/b,ro=false", mount.Mount{Type: "bind", Source: filepath.Join(wd, "x"), Target: "/b"}},
		{"src=v,dst=/b,volume-nocopy,volume-opt=a=b,volume-driver=d,volume-label=l=1,volume-subpath=s", mount.Mount{
			Type: "volume", Source: "v", Target: "/b", VolumeOptions: &mount.VolumeOptions{
				NoCopy: true, Subpath: "s", Labels: map[string]string{"l": "1"},
				DriverConfig: &mount.Driver{Name: "d", Options: map[string]string{"a": "b"}},
			},
		}},
		{"type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1770", mount.Mount{
			Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o1770},
		}},
		{"type=bind,src=/a,dst=/b,bind-propagation=rslave,bind-recursive=disabled", mount.Mount{
			Type: "bind", Source: "/a", Target: "/b", BindOptions: &mount.BindOptions{Propagation: "rslave", NonRecursive: true},
		}},
		{`type=volume,dst=/b,"volume-opt=o=addr=1.2.3.4,rw"`, mount.Mount{
			Type: "volume", Target: "/b", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Options: map[string]string{"o": "addr=1.2.3.4,rw"}}},
		}},
	} {
		var m Mounts
		if err := m.Set(c.in); err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if diff := cmp.Diff(c.want, m.List[0]); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.in, diff)
		}
	}
}

func TestFilesOfFlags(t *testing.T) {
	dir := t.TempDir()
	env := filepath.Join(dir, "env")
	lab := filepath.Join(dir, "labels")
	sec := filepath.Join(dir, "seccomp.json")
	for name, text := range map[string]string{
		env: "\ufeff# comment\nA=1\n\n  B=two words\nRUNOPTS_TEST\nRUNOPTS_UNSET\n", lab: "x=y\nz\n", sec: "{ \"defaultAction\" : \"x\" }\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("RUNOPTS_TEST", "from us")
	d := must(t, "--env-file", env, "-e", "C=3", "-e", "RUNOPTS_TEST", "--label-file", lab, "-l", "x=over", "--security-opt", "seccomp="+sec)
	if diff := cmp.Diff([]string{"A=1", "B=two words", "RUNOPTS_TEST=from us", "C=3", "RUNOPTS_TEST=from us"}, d.Config.Env); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"x": "over", "z": ""}, d.Config.Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`seccomp={"defaultAction":"x"}`}, d.Host.SecurityOpt); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(env, []byte("BAD NAME=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, "--env-file", env); err == nil || !strings.Contains(err.Error(), "line 1: variable 'BAD NAME' contains whitespaces") {
		t.Error(err)
	}
}

func TestRelativeVolume(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	d := must(t, "-v", "./a:/b", "-v", ".:/c:ro")
	if diff := cmp.Diff([]string{filepath.Join(wd, "a") + ":/b", wd + ":/c:ro"}, d.Host.Binds); diff != "" {
		t.Error(diff)
	}
}

func TestHealthDurations(t *testing.T) {
	d := must(t, "--health-timeout", "150ms", "--health-start-period", "1m", "--health-start-interval", "2s")
	want := &container.HealthConfig{Timeout: 150 * time.Millisecond, StartPeriod: time.Minute, StartInterval: 2 * time.Second}
	if diff := cmp.Diff(want, d.Config.Healthcheck); diff != "" {
		t.Error(diff)
	}
}

func FuzzFlags(f *testing.F) {
	for _, s := range []string{"127.0.0.1:1-2:3-4/udp", "target=1,published=2", "type=bind,src=a,dst=b", "name=n,alias=x", "/dev/a:/dev/b:rwm"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, flag := range []string{"-p", "--mount", "--network", "--device", "-v", "--add-host", "--gpus", "--ulimit", "--expose"} {
			// Whatever it says, it must not panic, and ranges must stay small.
			if strings.Count(s, "-") > 0 && (flag == "-p" || flag == "--expose") && len(s) > 40 {
				continue
			}
			_, _ = parse(t, flag, s)
		}
	})
}
