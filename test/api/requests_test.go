//go:build root

package api

import (
	"fmt"
	"strings"
	"testing"
)

// ask is a request with some of its fields set, and where their effect shows.
type ask struct {
	fields string
	path   string // "" is the route
	body   string
	see    string // what to ask then: a path and keys, parted by a space, or "sh" and a script run in "up"
	is     string // a part of what is there
	refuse string
	warn   string
	note   string
}

func (a *ask) how() string {
	p := probe{refuse: a.refuse, warn: a.warn, note: a.note}
	if strings.HasPrefix(a.see, "sh ") {
		p.sh = "sh"
	}
	return p.how()
}

const upJSON = "/containers/up/json "

func fixed(field, body string) ask {
	return ask{fields: field, body: body, refuse: "of a container cannot be updated"}
}

func limitFile(v1, v2 string) string { return "sh " + cgroup(v1, v2) }

// updates are the fields of POST /containers/{id}/update.
var updates = []ask{
	{fields: "CpuShares", body: `{"CpuShares":512}`, see: "sh " + shares, is: "512"},
	{fields: "Memory", body: `{"Memory":67108864,"MemorySwap":67108864}`, see: limitFile("memory/memory.limit_in_bytes", "memory.max"), is: "67108864"},
	{fields: "MemorySwap", body: `{"MemorySwap":-1}`, see: upJSON + "HostConfig/MemorySwap", is: "-1"},
	{fields: "MemoryReservation", body: `{"MemoryReservation":16777216}`, see: limitFile("memory/memory.soft_limit_in_bytes", "memory.low"), is: "16777216"},
	{fields: "BlkioWeight", body: `{"BlkioWeight":300}`, see: upJSON + "HostConfig/BlkioWeight", is: "300", note: "honoured where the kernel has it, else a warning"},
	{fields: "BlkioWeightDevice[].Path BlkioWeightDevice[].Weight", body: `{"BlkioWeightDevice":[{"Path":"DISK","Weight":300}]}`, see: upJSON + "HostConfig/BlkioWeightDevice/0/Weight", is: "300", note: "honoured where the kernel has it, else a warning"},
	{fields: "BlkioDeviceReadBps[].Path BlkioDeviceReadBps[].Rate", body: `{"BlkioDeviceReadBps":[{"Path":"DISK","Rate":1048576}]}`, see: limitFile("blkio/blkio.throttle.read_bps_device", "io.max"), is: "1048576"},
	{fields: "BlkioDeviceWriteBps[].Path BlkioDeviceWriteBps[].Rate", body: `{"BlkioDeviceWriteBps":[{"Path":"DISK","Rate":1048576}]}`, see: limitFile("blkio/blkio.throttle.write_bps_device", "io.max"), is: "1048576"},
	{fields: "BlkioDeviceReadIOps[].Path BlkioDeviceReadIOps[].Rate", body: `{"BlkioDeviceReadIOps":[{"Path":"DISK","Rate":77}]}`, see: limitFile("blkio/blkio.throttle.read_iops_device", "io.max"), is: "77"},
	{fields: "BlkioDeviceWriteIOps[].Path BlkioDeviceWriteIOps[].Rate", body: `{"BlkioDeviceWriteIOps":[{"Path":"DISK","Rate":77}]}`, see: limitFile("blkio/blkio.throttle.write_iops_device", "io.max"), is: "77"},
	{fields: "NanoCpus", body: `{"NanoCpus":500000000}`, see: limitFile("cpu/cpu.cfs_quota_us", "cpu.max"), is: "50000"},
	{fields: "CpuPeriod", body: `{"CpuPeriod":50000}`, refuse: "CPU Period cannot be updated as NanoCPUs has already been set", note: "honoured, unless NanoCpus is set"},
	{fields: "CpuQuota", body: `{"CpuQuota":25000}`, refuse: "CPU Quota cannot be updated as NanoCPUs has already been set", note: "honoured, unless NanoCpus is set"},
	{fields: "CpuRealtimePeriod CpuRealtimeRuntime", body: `{"CpuRealtimePeriod":500000,"CpuRealtimeRuntime":600000}`, refuse: "real-time", note: "honoured on cgroup v1 where the kernel has it, else refused: see test/e2e"},
	{fields: "CpusetCpus", body: `{"CpusetCpus":"0"}`, see: "sh grep Cpus_allowed_list /proc/self/status", is: "\t0"},
	{fields: "CpusetMems", body: `{"CpusetMems":"0"}`, see: "sh grep Mems_allowed_list /proc/self/status", is: "\t0"},
	{fields: "PidsLimit", body: `{"PidsLimit":33}`, see: limitFile("pids/pids.max", "pids.max"), is: "33"},
	{fields: "RestartPolicy.Name RestartPolicy.MaximumRetryCount", body: `{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2}}`, see: upJSON + "HostConfig/RestartPolicy", is: `{"MaximumRetryCount":2,"Name":"on-failure"}`},
	{fields: "CpuCount", body: `{"CpuCount":1}`, warn: "CPU percent"},
	{fields: "CpuPercent", body: `{"CpuPercent":50}`, warn: "CPU percent"},
	{fields: "IOMaximumIOps", body: `{"IOMaximumIOps":5}`, refuse: "linux does not support Maximum IO"},
	{fields: "IOMaximumBandwidth", body: `{"IOMaximumBandwidth":5}`, refuse: "linux does not support Maximum IO"},
	fixed("CgroupParent", `{"CgroupParent":"/x"}`),
	fixed("Devices[].PathOnHost Devices[].PathInContainer Devices[].CgroupPermissions", `{"Devices":[{"PathOnHost":"/dev/null"}]}`),
	fixed("DeviceCgroupRules", `{"DeviceCgroupRules":["c 1:3 r"]}`),
	fixed("DeviceRequests[].Driver DeviceRequests[].Count DeviceRequests[].DeviceIDs DeviceRequests[].Capabilities DeviceRequests[].Options", `{"DeviceRequests":[{"Count":1}]}`),
	fixed("MemorySwappiness", `{"MemorySwappiness":5}`),
	fixed("OomKillDisable", `{"OomKillDisable":true}`),
	fixed("Init", `{"Init":true}`),
	fixed("Ulimits[].Name Ulimits[].Soft Ulimits[].Hard", `{"Ulimits":[{"Name":"nofile","Soft":1,"Hard":1}]}`),
}

// commits are the fields of POST /commit; those that an image does not have are
// in notOfImages.
var commits = []ask{
	{fields: "User", body: `{"User":"5"}`, see: "Config/User", is: "5"},
	{fields: "ExposedPorts", body: `{"ExposedPorts":{"80/tcp":{}}}`, see: "Config/ExposedPorts", is: "80/tcp"},
	{fields: "Env", body: `{"Env":["B=2"]}`, see: "Config/Env", is: "B=2"},
	{fields: "Cmd", body: `{"Cmd":["x"]}`, see: "Config/Cmd", is: `["x"]`},
	{fields: "Entrypoint", body: `{"Entrypoint":["x"]}`, see: "Config/Entrypoint", is: `["x"]`},
	{
		fields: "Healthcheck.Test Healthcheck.Interval Healthcheck.Timeout Healthcheck.Retries Healthcheck.StartPeriod Healthcheck.StartInterval",
		body:   `{"Healthcheck":{"Test":["CMD","x"],"Interval":2000000,"Timeout":3000000,"Retries":4,"StartPeriod":5000000,"StartInterval":6000000}}`,
		see:    "Config/Healthcheck", is: `{"Interval":2000000,"Retries":4,"StartInterval":6000000,"StartPeriod":5000000,"Test":["CMD","x"],"Timeout":3000000}`,
	},
	{fields: "Volumes", body: `{"Volumes":{"/v":{}}}`, see: "Config/Volumes", is: "/v"},
	{fields: "WorkingDir", body: `{"WorkingDir":"/w"}`, see: "Config/WorkingDir", is: "/w"},
	{fields: "OnBuild", body: `{"OnBuild":["RUN x"]}`, see: "Config/OnBuild", is: "RUN x"},
	{fields: "Labels", body: `{"Labels":{"a":"b"}}`, see: "Config/Labels", is: `"a":"b"`},
	{fields: "StopSignal", body: `{"StopSignal":"SIGINT"}`, see: "Config/StopSignal", is: "SIGINT"},
	{fields: "Shell", body: `{"Shell":["/bin/x"]}`, see: "Config/Shell", is: "/bin/x"},
}

var notOfImages = strings.Fields("Hostname Domainname AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Image NetworkDisabled StopTimeout ArgsEscaped")

// execs are the fields of POST /containers/{id}/exec; see shows what the exec
// printed.
var execs = []ask{
	{fields: "AttachStdin", body: `{"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","test -p /proc/self/fd/0 && echo pipe"]}`, is: "pipe"},
	{fields: "AttachStdout Cmd", body: `{"AttachStdout":true,"Cmd":["sh","-c","echo out; echo err >&2"]}`, is: "out"},
	{fields: "AttachStderr", body: `{"AttachStderr":true,"Cmd":["sh","-c","echo out; echo err >&2"]}`, is: "err"},
	{fields: "ConsoleSize Tty", body: `{"AttachStdout":true,"Tty":true,"ConsoleSize":[33,77],"Cmd":["stty","size"]}`, is: "33 77"},
	{fields: "DetachKeys", body: `{"AttachStdout":true,"DetachKeys":"nonsense","Cmd":["true"]}`, refuse: "nonsense"},
	{fields: "Env", body: `{"AttachStdout":true,"Env":["A=1"],"Cmd":["env"]}`, is: "A=1"},
	{fields: "Privileged", body: `{"AttachStdout":true,"Privileged":true,"Cmd":["grep","CapEff","/proc/self/status"]}`, is: "ffff"},
	{fields: "User", body: `{"AttachStdout":true,"User":"5:6","Cmd":["id"]}`, is: "uid=5 gid=6"},
	{fields: "WorkingDir", body: `{"AttachStdout":true,"WorkingDir":"/tmp","Cmd":["sh","-c","pwd"]}`, is: "/tmp"},
}

// others are the fields of the rest.
var others = map[string][]ask{
	"POST /auth": {
		{fields: "username password serveraddress", body: `{"username":"u","password":"p","serveraddress":"127.0.0.1:5000"}`, note: "honoured: see TestEveryRoute", refuse: "127.0.0.1:5000"},
	},
	"POST /exec/{id}/start": {
		{fields: "Detach", path: "/exec/EXEC/start", body: `{"Detach":true}`, see: "/exec/EXEC/json Running", is: ""},
		{fields: "Tty ConsoleSize", path: "/exec/EXEC/start", body: `{"Tty":true,"ConsoleSize":[33,77]}`, note: "honoured: see internal/apiserver", refuse: ""},
	},
	"POST /volumes/create": {
		{fields: "Name Labels", body: `{"Name":"v1","Labels":{"a":"b"}}`, see: "/volumes/v1 Labels", is: `"a":"b"`},
		{fields: "Driver", body: `{"Driver":"nosuch"}`, refuse: "nosuch"},
		{fields: "DriverOpts", body: `{"Name":"v2","DriverOpts":{"type":"tmpfs","device":"tmpfs","o":"size=1m"}}`, see: "/volumes/v2 Options", is: `"o":"size=1m"`},
		{fields: "DriverOpts", body: `{"Name":"v3","DriverOpts":{"nosuch":"1"}}`, refuse: "nosuch"},
		{fields: "ClusterVolumeSpec", body: `{"Name":"v4","ClusterVolumeSpec":{"Group":"g"}}`, refuse: noManager},
	},
	"PUT /volumes/{name}": {{fields: "Spec", path: "/volumes/v1?version=1", body: `{"Spec":{"Group":"g"}}`, refuse: "swarm is unavailable"}},
	"POST /networks/create": {
		{fields: "Name Labels", body: `{"Name":"n1","Labels":{"a":"b"}}`, see: "/networks/n1 Labels", is: `"a":"b"`},
		{fields: "Driver", body: `{"Name":"n2","Driver":"nosuch"}`, refuse: "nosuch"},
		{fields: "Scope", body: `{"Name":"n2","Scope":"swarm"}`, refuse: "not supported"},
		{fields: "Internal", body: `{"Name":"n3","Internal":true}`, see: "/networks/n3 Internal", is: "true"},
		{fields: "Attachable", body: `{"Name":"n4","Attachable":true}`, see: "/networks/n4 Attachable", is: "true", note: "kept: it means something in a swarm only"},
		{fields: "Ingress", body: `{"Name":"n5","Ingress":true}`, refuse: "networks of a swarm are not supported"},
		{fields: "ConfigOnly", body: `{"Name":"n12","ConfigOnly":true,"Labels":{"c":"d"}}`, see: "/networks/n12 ConfigOnly", is: "true"},
		{fields: "ConfigFrom.Network", body: `{"Name":"n13","ConfigFrom":{"Network":"n12"}}`, see: "/networks/n13 Labels", is: `"c":"d"`},
		{fields: "IPAM.Driver", body: `{"Name":"n5","IPAM":{"Driver":"null"}}`, refuse: "ipv4 pool is empty"},
		{fields: "IPAM.Driver", body: `{"Name":"n5","IPAM":{"Driver":"nosuch"}}`, refuse: "IPAM driver nosuch is not supported"},
		{
			fields: "IPAM.Config[].Subnet IPAM.Config[].IPRange IPAM.Config[].Gateway IPAM.Config[].AuxiliaryAddresses", body: `{"Name":"n6","IPAM":{"Config":[{"Subnet":"10.88.0.0/24","IPRange":"10.88.0.128/25","Gateway":"10.88.0.1","AuxiliaryAddresses":{"h":"10.88.0.9"}}]}}`,
			see: "/networks/n6 IPAM/Config/0", is: `{"AuxiliaryAddresses":{"h":"10.88.0.9"},"Gateway":"10.88.0.1","IPRange":"10.88.0.128/25","Subnet":"10.88.0.0/24"}`,
		},
		{fields: "IPAM.Options", body: `{"Name":"n7","IPAM":{"Options":{"a":"b"}}}`, refuse: "IPAM option a is not supported"},
		{fields: "EnableIPv4", body: `{"Name":"n8","EnableIPv4":false}`, refuse: "IPv4 or IPv6 must be enabled"},
		{fields: "EnableIPv6", body: `{"Name":"n8","EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"fd00:88::/64"}]}}`, see: "/networks/n8 IPAM/Config", is: `"Subnet":"fd00:88::/64"`},
		{fields: "EnableIPv4 EnableIPv6", body: `{"Name":"n11","EnableIPv4":false,"EnableIPv6":true}`, see: "/networks/n11 IPAM/Config/0/Subnet", is: "::/64"},
		{fields: "Options", body: `{"Name":"n9","Options":{"com.docker.network.driver.mtu":"1400"}}`, see: "/networks/n9 Options", is: `"com.docker.network.driver.mtu":"1400"`},
		{fields: "Options", body: `{"Name":"n10","Options":{"com.docker.network.bridge.nosuch":"1"}}`, refuse: "com.docker.network.bridge.nosuch"},
	},
	"POST /networks/{id}/connect": {
		{fields: "Container EndpointConfig.Aliases", path: "/networks/n1/connect", body: `{"Container":"up","EndpointConfig":{"Aliases":["other"]}}`, see: upJSON + "NetworkSettings/Networks/n1/Aliases", is: "other"},
		{fields: "EndpointConfig.IPAMConfig.IPv4Address EndpointConfig.MacAddress", path: "/networks/n6/connect", body: `{"Container":"up","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.88.0.200"},"MacAddress":"02:42:ac:11:00:78"}}`, see: "sh ip addr", is: "10.88.0.200/24"},
		{fields: "EndpointConfig.IPAMConfig.IPv6Address", path: "/networks/n3/connect", body: `{"Container":"up","EndpointConfig":{"IPAMConfig":{"IPv6Address":"fd00::9"}}}`, refuse: "user specified IP address is supported only when connecting to networks with user configured subnets"},
		{fields: "EndpointConfig.IPAMConfig.IPv6Address EndpointConfig.IPAMConfig.LinkLocalIPs", path: "/networks/n8/connect", body: `{"Container":"up","EndpointConfig":{"IPAMConfig":{"IPv6Address":"fd00:88::9","LinkLocalIPs":["169.254.1.1","fe80::99"]}}}`, see: "sh ip addr | grep -c -e fd00:88::9/64 -e 169.254.1.1/16 -e fe80::99/64", is: "3"},
		{fields: "EndpointConfig.Links EndpointConfig.DriverOpts EndpointConfig.GwPriority", path: "/networks/n4/connect", body: `{"Container":"up","EndpointConfig":{"Links":["up:me"],"GwPriority":7,"DriverOpts":{"com.docker.network.endpoint.ifname":"lan9"}}}`, see: "sh ip route show default; ip link show lan9", is: "dev lan9"},
	},
	"POST /networks/{id}/disconnect": {{fields: "Container Force", path: "/networks/n1/disconnect", body: `{"Container":"up","Force":true}`, see: upJSON + "NetworkSettings/Networks/n1", is: "-"}},
}

// wholes are objects refused as one, whatever is in them.
var wholes = []string{"ClusterVolumeSpec", "Spec"}

// requestFields are what the tests of this file try, by route.
func requestFields(sp *spec) map[string]map[string][]string {
	out := map[string]map[string][]string{}
	add := func(route string, asks []ask) {
		if out[route] == nil {
			out[route] = map[string][]string{}
		}
		for _, a := range asks {
			for f := range strings.FieldsSeq(a.fields) {
				out[route][f] = append(out[route][f], a.how())
			}
		}
	}
	add("POST /containers/{id}/update", updates)
	add("POST /commit", commits)
	add("POST /containers/{id}/exec", execs)
	for route, asks := range others {
		add(route, asks)
	}
	for _, f := range notOfImages {
		out["POST /commit"][f] = []string{"dropped, as docker does: images do not have it"}
	}
	for _, f := range told {
		out["POST /networks/{id}/connect"]["EndpointConfig."+f] = []string{"only told by inspect; dropped, as docker does"}
	}
	for route, fields := range out {
		for _, f := range sp.bodyFields(route) {
			for _, w := range wholes {
				if how, ok := fields[w]; ok && strings.HasPrefix(f, w+".") {
					fields[f] = how
				}
			}
		}
		for _, w := range wholes {
			delete(fields, w)
		}
	}
	return out
}

// TestRequestFields sets every field of every other request.
func TestRequestFields(t *testing.T) {
	e := start(t)
	id := e.must("POST", "/containers/create?name=up", `{"Image":"img","Cmd":["sleep","10000"]}`, "Id")
	e.must("POST", "/containers/"+id+"/start", "", "")
	exec := func() string {
		return e.must("POST", "/containers/up/exec", `{"Cmd":["true"],"AttachStdout":true,"Tty":true}`, "Id")
	}
	fill := func(s string) string {
		if strings.Contains(s, "EXEC") {
			s = strings.ReplaceAll(s, "EXEC", exec())
		}
		return strings.ReplaceAll(s, "DISK", blockDevice(t))
	}
	for _, a := range updates {
		e.try1(t, "POST", "/containers/up/update", &a, fill)
	}
	for _, route := range []string{
		"POST /auth", "POST /exec/{id}/start", "POST /volumes/create", "PUT /volumes/{name}",
		"POST /networks/create", "POST /networks/{id}/connect", "POST /networks/{id}/disconnect",
	} {
		method, path, _ := strings.Cut(route, " ")
		for _, a := range others[route] {
			e.try1(t, method, path, &a, fill)
		}
	}
	for i, a := range commits {
		ref := fmt.Sprintf("committed%d", i)
		a.path, a.see = "/commit?container=up&repo="+ref, "/images/"+ref+"/json "+a.see
		e.try1(t, "POST", "", &a, fill)
	}
	for _, a := range execs {
		t.Run("exec "+a.fields, func(t *testing.T) {
			e.t = t
			got := e.call("POST", "/containers/up/exec", []byte(a.body))
			if a.refuse != "" {
				if got.code < 400 || !strings.Contains(got.message(), a.refuse) {
					t.Errorf("status %d %s, want a refusal with %q", got.code, got.body, a.refuse)
				}
				return
			}
			v, _ := got.value()
			if out := e.execOutput(dig(v, "Id"), strings.Contains(a.body, "Tty")); !strings.Contains(out, a.is) {
				t.Errorf("printed %q, want %q", out, a.is)
			}
		})
	}
	e.t = t
	sp := loadSpec(t)
	for route, fields := range requestFields(sp) {
		covered(t, sp, route, fields)
	}
	for path, ops := range sp.Paths {
		for method := range ops {
			route := strings.ToUpper(method) + " " + path
			if f := sp.bodyFields(route); len(f) > 0 && requestFields(sp)[route] == nil && route != "POST /containers/create" && !refusedRoute(route) {
				t.Errorf("%s: nothing tries its fields %v", route, f)
			}
		}
	}
}

// refusedRoute tells of the routes that look at no body.
func refusedRoute(route string) bool {
	for _, v := range allVisits() {
		if v.route == route {
			return v.want == 503 || v.want == 501 || v.message == noPlugin
		}
	}
	return false
}

func (e *engine) try1(t *testing.T, method, route string, a *ask, fill func(string) string) {
	t.Run(strings.ReplaceAll(method+route+" "+a.fields, "/", "_"), func(t *testing.T) {
		e.t = t
		path := a.path
		if path == "" {
			path = route
		}
		got := e.call(method, fill(path), []byte(fill(a.body)))
		if a.refuse != "" {
			if got.code < 400 || !strings.Contains(got.message(), a.refuse) {
				t.Errorf("status %d %s, want a refusal with %q", got.code, got.body, a.refuse)
			}
			return
		}
		if got.code >= 400 {
			t.Fatalf("status %d %s", got.code, got.body)
		}
		if !strings.Contains(string(got.body), a.warn) {
			t.Errorf("answer %s has no warning %q", got.body, a.warn)
		}
		if script, ok := strings.CutPrefix(a.see, "sh "); ok {
			id := e.must("POST", "/containers/up/exec", fmt.Sprintf(`{"AttachStdout":true,"Cmd":["sh","-c",%q]}`, script), "Id")
			if out := e.execOutput(id, false); !strings.Contains(out, a.is) {
				t.Errorf("the container prints %q, want %q", out, a.is)
			}
			return
		}
		if what, keys, ok := strings.Cut(a.see, " "); ok {
			if is := e.must("GET", fill(what), "", keys); !strings.Contains(is, a.is) {
				t.Errorf("%s is %s, want %s", keys, is, a.is)
			}
		}
	})
}

// execOutput starts an exec and returns what comes, frames and all.
func (e *engine) execOutput(id string, tty bool) string {
	e.t.Helper()
	return string(e.call("POST", "/exec/"+id+"/start", fmt.Appendf(nil, `{"Tty":%v}`, tty)).body)
}
