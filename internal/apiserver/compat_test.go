package apiserver

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apievents "github.com/moby/moby/api/types/events"
)

// dig follows keys and indices into a decoded answer; absent is "-".
func dig(v any, path string) string {
	for key := range strings.SplitSeq(path, "/") {
		switch at := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = at[key]; !ok {
				return "-"
			}
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(at) {
				return "-"
			}
			v = at[i]
		default:
			return "-"
		}
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	return strings.TrimSpace(b.String())
}

// TestFieldsByVersion: what each version's clients find, "-" where they do not.
func TestFieldsByVersion(t *testing.T) {
	f := newFake()
	s := New(Options{Backends: f.backends()})
	call(t, s, "POST", "/containers/create?name=web", `{"Image":"busybox","Cmd":["sleep"],"Hostname":"box"}`)
	call(t, s, "POST", "/containers/web/start", "")
	for _, tc := range []struct{ version, req, path, want string }{
		{"1.24", "/containers/web/json", "NetworkSettings/IPAddress", `"172.17.0.2"`},
		{"1.51", "/containers/web/json", "NetworkSettings/IPPrefixLen", `16`},
		{"1.51", "/containers/web/json", "NetworkSettings/Bridge", `""`},
		{"1.51", "/containers/web/json", "NetworkSettings/SecondaryIPAddresses", `null`},
		{"1.51", "/containers/web/json", "NetworkSettings/Networks/bridge/Gateway", `"172.17.0.1"`},
		{"1.51", "/containers/web/json", "Config/OnBuild", `null`},
		{"1.51", "/containers/web/json", "Config/Cmd/0", `"sleep"`},
		{"1.51", "/containers/web/json", "HostConfig/NetworkMode", `"bridge"`},
		{"1.51", "/containers/web/json", "GraphDriver/Name", `"overlayfs"`},
		{"1.51", "/containers/web/json", "Storage", `-`},
		{"1.52", "/containers/web/json", "GraphDriver", `-`},
		{"1.52", "/containers/web/json", "Storage/RootFS/Snapshot/Name", `"overlayfs"`},
		{"1.52", "/containers/web/json", "NetworkSettings/Bridge", `-`},
		{"1.52", "/containers/web/json", "NetworkSettings/IPAddress", `"172.17.0.2"`},
		{"1.52", "/containers/web/json", "Config/OnBuild", `-`},
		{"1.44", "/containers/web/json", "NetworkSettings/Networks/mine/Aliases/2", `"box"`},
		{"1.45", "/containers/web/json", "NetworkSettings/Networks/mine/Aliases", `["alias"]`},
		{"1.51", "/containers/json", "0/Health", `-`},
		{"1.52", "/containers/json", "0/Health/Status", `"healthy"`},
		{"1.42", "/images/json", "1/RepoTags/0", `"<none>:<none>"`},
		{"1.43", "/images/json", "1/RepoTags", `[]`},
		{"1.43", "/images/json", "0/VirtualSize", `4096`},
		{"1.44", "/images/json", "0/VirtualSize", `-`},
		{"1.47", "/images/json", "0/Descriptor", `-`},
		{"1.48", "/images/json", "0/Descriptor/size", `0`},
		{"1.50", "/images/json", "0/Containers", `-1`},
		{"1.51", "/images/json", "0/Containers", `2`},
		{"1.43", "/images/a/json", "VirtualSize", `4096`},
		{"1.43", "/images/a/json", "Created", `"0001-01-01T00:00:00Z"`},
		{"1.44", "/images/a/json", "Created", `-`},
		{"1.44", "/images/a/json", "ContainerConfig/Image", `""`},
		{"1.45", "/images/a/json", "ContainerConfig", `-`},
		{"1.51", "/images/a/json", "DockerVersion", `""`},
		{"1.51", "/images/a/json", "Parent", `""`},
		{"1.51", "/images/a/json", "Config/Env/0", `"A=b"`},
		{"1.51", "/images/a/json", "Config/Volumes", `null`},
		{"1.51", "/images/a/json", "Config/Hostname", `-`},
		{"1.49", "/images/a/json", "Config/Hostname", `""`},
		{"1.49", "/images/a/json", "Config/Env/0", `"A=b"`},
		{"1.52", "/images/a/json", "Config/Volumes", `-`},
		{"1.52", "/images/a/json", "Parent", `-`},
		{"1.43", "/info", "Runtimes/skiff/status", `-`},
		{"1.44", "/info", "Runtimes/skiff/status/a", `"b"`},
		{"1.48", "/info", "ContainerdCommit/Expected", `"abc"`},
		{"1.49", "/info", "ContainerdCommit/Expected", `-`},
		{"1.48", "/info", "FirewallBackend", `-`},
		{"1.49", "/info", "FirewallBackend/Driver", `"nftables"`},
		{"1.49", "/info", "BridgeNfIptables", `false`},
		{"1.50", "/info", "BridgeNfIptables", `-`},
		{"1.50", "/info", "ContainerdCommit/ID", `"abc"`},
		{"1.51", "/system/df", "LayersSize", `4097`},
		{"1.51", "/system/df", "Images/0/Containers", `2`},
		{"1.43", "/system/df", "Images/0/VirtualSize", `4096`},
		{"1.51", "/system/df", "Containers", `[]`},
		{"1.51", "/system/df", "ImageUsage", `-`},
		{"1.51", "/system/df?type=image", "Containers", `-`},
		{"1.52", "/system/df", "ImageUsage/TotalCount", `2`},
		{"1.52", "/system/df", "LayersSize", `4097`},
		{"1.52", "/system/df?verbose=1", "LayersSize", `-`},
		{"1.51", "/networks", "0/Containers", `{}`},
		{"1.52", "/networks", "0/Containers", `-`},
		{"1.52", "/networks/bridge", "Containers", `{}`},
		{"1.41", "/version", "ApiVersion", `"1.56"`},
		{"1.41", "/version", "MinAPIVersion", `"1.24"`},
		{"1.41", "/version", "Components/0/Details/ApiVersion", `"1.56"`},
		{"1.41", "/volumes", "Volumes", `[]`},
	} {
		var v any
		if err := json.Unmarshal([]byte(call(t, s, "GET", "/v"+tc.version+tc.req, "").body), &v); err != nil {
			t.Errorf("%s %s: %v", tc.version, tc.req, err)
		}
		if got := dig(v, tc.path); got != tc.want {
			t.Errorf("%s %s %s is %s, want %s", tc.version, tc.req, tc.path, got, tc.want)
		}
	}
}

// TestCreateByVersion: what the engine is asked for by requests of old.
func TestCreateByVersion(t *testing.T) {
	for _, tc := range []struct{ name, version, body, path, want string }{
		{"a command may be a string", "1.41", `{"Image":"busybox","Cmd":"date","Entrypoint":""}`, "Cmd", `["date"]`},
		{"default network is bridge", "1.50", `{"Image":"busybox","HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["a"]}}}}`, "NetworkingConfig/EndpointsConfig/bridge/Aliases", `["a"]`},
		{"default network is bridge", "1.50", `{"Image":"busybox"}`, "HostConfig/NetworkMode", `"bridge"`},
		{"address of the container moves", "1.43", `{"Image":"busybox","MacAddress":"02:42:ac:11:00:02"}`, "NetworkingConfig/EndpointsConfig/bridge/MacAddress", `"02:42:ac:11:00:02"`},
		{"address of the container moves", "1.50", `{"Image":"busybox","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"n"},"NetworkingConfig":{"EndpointsConfig":{"n":null}}}`, "NetworkingConfig/EndpointsConfig/n/MacAddress", `"02:42:ac:11:00:02"`},
		{"endpoints had no address", "1.43", `{"Image":"busybox","NetworkingConfig":{"EndpointsConfig":{"n":{"MacAddress":"02:42:ac:11:00:02"}}}}`, "NetworkingConfig/EndpointsConfig/n/MacAddress", `""`},
		{"endpoints have one", "1.44", `{"Image":"busybox","NetworkingConfig":{"EndpointsConfig":{"n":{"MacAddress":"02:42:ac:11:00:02"}}}}`, "NetworkingConfig/EndpointsConfig/n/MacAddress", `"02:42:ac:11:00:02"`},
		{"sysctls of eth0 move", "1.47", `{"Image":"busybox","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1","kernel.x":"2"}}}`, "NetworkingConfig/EndpointsConfig/bridge/DriverOpts/com.docker.network.endpoint.sysctls", `"net.ipv4.conf.IFNAME.log_martians=1"`},
		{"other sysctls stay", "1.47", `{"Image":"busybox","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1","kernel.x":"2"}}}`, "HostConfig/Sysctls", `{"kernel.x":"2"}`},
		{"ports get a binding", "1.41", `{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":null}}}`, "HostConfig/PortBindings/80~1tcp", `[{"HostIp":"","HostPort":""}]`},
		{"no annotations", "1.42", `{"Image":"busybox","HostConfig":{"Annotations":{"a":"b"}}}`, "HostConfig/Annotations", `-`},
		{"unlimited processes", "1.50", `{"Image":"busybox","HostConfig":{"PidsLimit":-1}}`, "HostConfig/PidsLimit", `null`},
		{"shared memory of others", "1.39", `{"Image":"busybox"}`, "HostConfig/IpcMode", `"shareable"`},
		{"submounts stay writable", "1.43", `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]}}`, "HostConfig/Mounts/0/BindOptions/ReadOnlyNonRecursive", `true`},
		{"submounts do not", "1.44", `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]}}`, "HostConfig/Mounts/0/BindOptions", `-`},
	} {
		t.Run(tc.name+" "+tc.version, func(t *testing.T) {
			f := newFake()
			got := call(t, New(Options{Backends: f.backends()}), "POST", "/v"+tc.version+"/containers/create", tc.body)
			if got.code != 201 {
				t.Fatalf("%d %s", got.code, got.body)
			}
			b, err := json.Marshal(f.all[0].opts.Request)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			_ = json.Unmarshal([]byte(strings.ReplaceAll(string(b), "80/tcp", "80~1tcp")), &v)
			if got := dig(v, tc.path); got != tc.want {
				t.Errorf("%s is %s, want %s\n%s", tc.path, got, tc.want, b)
			}
		})
	}
}

func TestCreateRefusals(t *testing.T) {
	s := New(Options{Backends: newFake().backends()})
	for _, tc := range []struct{ version, body, want string }{
		{"1.43", `{"Image":"busybox","NetworkingConfig":{"EndpointsConfig":{"b":{},"a":{}}}}`, "multiple network endpoints: a, b"},
		{"1.52", `{"Image":"busybox","MacAddress":"02:42:ac:11:00:02"}`, "container-wide MAC address no longer supported"},
		{"1.43", `{"Image":"busybox","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"host"}}`, "conflicting options"},
		{"1.50", `{"Image":"busybox","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"n"},"NetworkingConfig":{"EndpointsConfig":{"m":{}}}}`, "must match the identity of a network"},
		{"1.48", `{"Image":"busybox","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.x":"1"}}}`, "must be supplied using driver option"},
		{"1.47", `{"Image":"busybox","HostConfig":{"Sysctls":{"net.ipv4.conf.eth1.x":"1"}}}`, "unable to determine network endpoint"},
		{"1.42", `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"bind","VolumeOptions":{}}]}}`, "VolumeOptions must not be specified"},
		{"1.44", `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"a"}}]}}`, "needs API v1.45"},
		{"1.47", `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"image"}]}}`, "needs API v1.48"},
		{"1.40", `{"Image":"busybox","HostConfig":{"Capabilities":["A"]}}`, "use CapAdd and CapDrop"},
	} {
		got := call(t, s, "POST", "/v"+tc.version+"/containers/create", tc.body)
		if got.code != 400 || !strings.Contains(errorText(got), tc.want) {
			t.Errorf("%s %s: %d %s, want %q", tc.version, tc.body, got.code, got.body, tc.want)
		}
	}
}

func TestCreateWarnings(t *testing.T) {
	s := New(Options{Backends: newFake().backends()})
	for _, tc := range []struct{ version, body, want string }{
		{"1.50", `{"Image":"busybox","MacAddress":"02:42:ac:11:00:02"}`, "MacAddress field is now deprecated"},
		{"1.52", `{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[]}}}`, "empty list of port-bindings: 80/tcp"},
		{"1.47", `{"Image":"busybox","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.x":"1"}}}`, "Migrated sysctl"},
		{"1.48", `{"Image":"busybox","HostConfig":{"VolumeDriver":"x","Mounts":[{"Type":"volume"}]}}`, "volume-driver configuration is ignored"},
		{"1.41", `{"Image":"busybox","HostConfig":{"KernelMemory":5}}`, "kernel memory"},
	} {
		got := call(t, s, "POST", "/v"+tc.version+"/containers/create", tc.body)
		if w := dig(any(got.json), "Warnings/0"); got.code != 201 || !strings.Contains(w, tc.want) {
			t.Errorf("%s %s: %d %s, want %q", tc.version, tc.body, got.code, got.body, tc.want)
		}
	}
}

func TestEventForms(t *testing.T) {
	f := newFake()
	s := New(Options{Backends: f.backends()})
	f.bus.Publish(apievents.ContainerEventType, apievents.ActionStart, "id", map[string]string{"image": "busybox"})
	f.bus.Publish(apievents.ImageEventType, apievents.ActionCreate, "img", nil)
	path := fmt.Sprintf("/events?since=1&until=%d.999999999", time.Now().Unix()-0)
	for _, tc := range []struct {
		version, accept, ctype string
		lines                  int
		prefix                 string
	}{
		{"1.45", "", "application/json", 1, `{"status":"start","id":"id","from":"busybox","Type":"container"`},
		{"1.46", "", "application/json", 2, `{"status"`},
		{"1.52", "", "application/jsonl", 2, `{"status"`},
		{"1.52", "*/*", "application/jsonl", 2, `{"status"`},
		{"1.52", "text/html, application/x-ndjson;q=0.5", "application/x-ndjson", 2, `{"status"`},
		{"1.52", "application/json-seq", "application/json-seq", 2, "\x1e{"},
		{"1.52", "application/json-seq;q=0", "application/jsonl", 2, `{"status"`},
	} {
		got := call(t, s, "GET", "/v"+tc.version+path, "", "Accept", tc.accept)
		if ct := got.header.Get("Content-Type"); ct != tc.ctype || strings.Count(got.body, "\n") != tc.lines || !strings.HasPrefix(got.body, tc.prefix) {
			t.Errorf("%s accepting %q: %s\n%q", tc.version, tc.accept, ct, got.body)
		}
	}
}

func TestProgressForms(t *testing.T) {
	s := New(Options{Backends: newFake().backends()})
	old := call(t, s, "POST", "/v1.41/images/create?fromImage=broken", "")
	if !strings.Contains(old.body, `"progress":"[=====`) || !strings.Contains(old.body, `"error":"the registry went away"`) || !strings.Contains(old.body, "\r\n") {
		t.Errorf("1.41: %s", old.body)
	}
	now := call(t, s, "POST", "/images/create?fromImage=broken", "")
	if strings.Contains(now.body, `"progress":`) || !strings.Contains(now.body, `"errorDetail":{"message":"the registry went away"},"error":"the registry went away"}`) {
		t.Errorf("newest: %s", now.body)
	}
	first, _, _ := strings.Cut(now.body, "\r\n")
	if diff := cmp.Diff(`{"status":"Pulling from library/busybox","id":"latest"}`, first); diff != "" {
		t.Error(diff)
	}
	if got := call(t, s, "POST", "/images/create?fromImage=missing", ""); got.code != 404 {
		t.Errorf("an error before the first report: %d %s", got.code, got.body)
	}
	if got := call(t, s, "POST", "/build?target=broken", "x"); !strings.Contains(got.body, `"errorDetail":{"code":42,`) {
		t.Errorf("a failed step: %s", got.body)
	}
	if got := call(t, s, "POST", "/build?target=broken&q=1", "x"); !strings.Contains(got.body, "Step 1/1") {
		t.Errorf("a quiet build's failure is not explained: %s", got.body)
	}
	if got := call(t, s, "POST", "/images/load", "x"); strings.Contains(got.body, "Loading layer") || !strings.Contains(got.body, "Loaded image") {
		t.Errorf("quiet load: %s", got.body)
	}
	if got := call(t, s, "POST", "/images/load?quiet=0", "x"); !strings.Contains(got.body, "Loading layer") {
		t.Errorf("load: %s", got.body)
	}
}

// TestAgents: clients that talk to the newest version and miss what it dropped.
func TestAgents(t *testing.T) {
	s := New(Options{Backends: newFake().backends()})
	for _, tc := range []struct{ agent, path, field, want string }{
		{"docker-compose/1.29.2 docker-py/5.0.3", "/images/a/json", "ContainerConfig/Image", `""`},
		{"Docker-Client/28.2.2", "/images/a/json", "ContainerConfig", "-"},
	} {
		if got := dig(call(t, s, "GET", tc.path, "", "User-Agent", tc.agent).json, tc.field); got != tc.want {
			t.Errorf("%s: %s of %s is %s, want %s", tc.agent, tc.field, tc.path, got, tc.want)
		}
	}
	for agent, want := range map[string]bool{"Docker-Client/28.2.2 (linux)": false, "skiff/1.0": false, "docker-sdk-python/7.1.0": true, "": true} {
		if framesAreLines(agent) != want {
			t.Errorf("%q: frames are lines: %t", agent, !want)
		}
	}
}
