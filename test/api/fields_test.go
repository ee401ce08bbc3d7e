//go:build root

package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// probe sets a field of a request and looks for what it does. Nothing is set in
// vain: it shows inside the container, in what inspect tells, or in a refusal.
type probe struct {
	fields string // as the description names them, without the part all of a table share
	body   string // the request
	sh     string // a script run in the container
	see    string // a part of what it prints
	path   string // of inspect's answer, see dig
	is     string // a part of what is there
	refuse string // a part of the error's text
	warn   string // a part of the warnings
	note   string // for the table, where the rest does not say it
	v      string // the API's version; "" is the newest
}

// how tells the reader of the table what the probe saw.
func (p *probe) how() string {
	switch {
	case p.note != "":
		return p.note
	case p.refuse != "":
		return "refused: “" + p.refuse + "”"
	case p.sh != "":
		return "honoured: seen in the container"
	case p.warn != "":
		return "as docker: no effect, and a warning"
	}
	return "honoured: seen in inspect"
}

// shares prints CPU shares, or 512 for the weight that version 2 makes of them.
const shares = "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || { grep -qx 59 /sys/fs/cgroup/cpu.weight && echo 512; }"

// cgroup reads a limit from inside, with either version of control groups.
func cgroup(v1, v2 string) string {
	return "cat /sys/fs/cgroup/" + v1 + " 2>/dev/null || cat /sys/fs/cgroup/" + v2
}

func device(field, text string) string {
	return fmt.Sprintf(`{"HostConfig":{"%s":[{"Path":"DISK","%s"}]}}`, field, text)
}

const endpoint = `{"HostConfig":{"NetworkMode":"net1"},"NetworkingConfig":{"EndpointsConfig":{"net1":%s}}}`

func atEndpoint(s string) string { return fmt.Sprintf(endpoint, s) }

func mounts(s string) string { return `{"HostConfig":{"Mounts":[` + s + `]}}` }

func hostConfig(s string) string { return `{"HostConfig":{` + s + `}}` }

// creates are the fields of POST /containers/create.
var creates = []probe{
	{fields: "Hostname", body: `{"Hostname":"box"}`, sh: "hostname", see: "box"},
	{fields: "Domainname", body: `{"Domainname":"example.org"}`, sh: "cat /proc/sys/kernel/domainname", see: "example.org"},
	{fields: "User", body: `{"User":"5:6"}`, sh: "id", see: "uid=5 gid=6"},
	{fields: "AttachStdin", body: `{"AttachStdin":true}`, path: "Config/AttachStdin", is: "true"},
	{fields: "AttachStdout", body: `{"AttachStdout":true}`, path: "Config/AttachStdout", is: "true"},
	{fields: "AttachStderr", body: `{"AttachStderr":true}`, path: "Config/AttachStderr", is: "true"},
	{fields: "ExposedPorts", body: `{"ExposedPorts":{"80/tcp":{}}}`, path: "Config/ExposedPorts", is: `"80/tcp":{}`},
	{fields: "Tty", body: `{"Tty":true}`, sh: "tty", see: "/dev/pts/0"},
	{fields: "OpenStdin", body: `{"OpenStdin":true}`, sh: "test -p /proc/self/fd/0 && echo pipe", see: "pipe"},
	{fields: "StdinOnce", body: `{"OpenStdin":true,"StdinOnce":true}`, path: "Config/StdinOnce", is: "true", note: "honoured: see TestAttachOnce"},
	{fields: "Env", body: `{"Env":["A=1","PATH"]}`, sh: "echo $A; env", see: "1"},
	{fields: "Cmd", body: `{"Cmd":["echo","arg"]}`, see: "arg"},
	{fields: "Entrypoint", body: `{"Entrypoint":["echo","entry"],"Cmd":["arg"]}`, see: "entry arg"},
	{fields: "Healthcheck.Test", body: `{"Healthcheck":{"Test":["CMD","true"]}}`, path: "Config/Healthcheck/Test", is: `["CMD","true"]`, note: "honoured: see test/e2e"},
	{fields: "Healthcheck.Interval", body: `{"Healthcheck":{"Interval":2000000}}`, path: "Config/Healthcheck/Interval", is: "2000000", note: "honoured: see internal/engine/containers"},
	{fields: "Healthcheck.Interval", body: `{"Healthcheck":{"Interval":5}}`, refuse: "Interval in Healthcheck cannot be less than 1ms"},
	{fields: "Healthcheck.Timeout", body: `{"Healthcheck":{"Timeout":2000000}}`, path: "Config/Healthcheck/Timeout", is: "2000000", note: "honoured: see internal/engine/containers"},
	{fields: "Healthcheck.Retries", body: `{"Healthcheck":{"Retries":3}}`, path: "Config/Healthcheck/Retries", is: "3", note: "honoured: see internal/engine/containers"},
	{fields: "Healthcheck.StartPeriod", body: `{"Healthcheck":{"StartPeriod":2000000}}`, path: "Config/Healthcheck/StartPeriod", is: "2000000", note: "honoured: see internal/engine/containers"},
	{fields: "Healthcheck.StartInterval", body: `{"Healthcheck":{"StartInterval":2000000}}`, path: "Config/Healthcheck/StartInterval", is: "2000000", note: "honoured: see internal/engine/containers"},
	{fields: "ArgsEscaped", body: `{"ArgsEscaped":true}`, path: "Config/ArgsEscaped", is: "true", note: "kept, as docker does on Linux: it is Windows'"},
	{fields: "Image", body: `{"Image":"nosuch"}`, refuse: "No such image: nosuch", note: "honoured"},
	{fields: "Volumes", body: `{"Volumes":{"/data":{}}}`, sh: "mount", see: " on /data "},
	{fields: "WorkingDir", body: `{"WorkingDir":"/some/where"}`, sh: "pwd", see: "/some/where"},
	{fields: "NetworkDisabled", body: `{"NetworkDisabled":true}`, sh: "ip -o link | wc -l", see: "1"},
	{fields: "OnBuild", body: `{"OnBuild":["RUN true"]}`, path: "Config/OnBuild", is: "RUN true", note: "kept for commit, as docker does"},
	{fields: "Labels", body: `{"Labels":{"a":"b"}}`, path: "Config/Labels", is: `"a":"b"`},
	{fields: "StopSignal", body: `{"StopSignal":"SIGUSR1"}`, path: "Config/StopSignal", is: "SIGUSR1", note: "honoured: see test/e2e"},
	{fields: "StopSignal", body: `{"StopSignal":"NOPE"}`, refuse: "NOPE"},
	{fields: "StopTimeout", body: `{"StopTimeout":3}`, path: "Config/StopTimeout", is: "3", note: "honoured: see internal/engine/containers"},
	{fields: "Shell", body: `{"Shell":["/bin/sh","-ec"]}`, path: "Config/Shell", is: `["/bin/sh","-ec"]`, note: "honoured: runs CMD-SHELL health checks"},

	{fields: "HostConfig.CpuShares", body: hostConfig(`"CpuShares":512`), sh: shares, see: "512"},
	{fields: "HostConfig.Memory", body: hostConfig(`"Memory":33554432`), sh: cgroup("memory/memory.limit_in_bytes", "memory.max"), see: "33554432"},
	{fields: "HostConfig.CgroupParent", body: hostConfig(`"CgroupParent":"PARENT/sub","CgroupnsMode":"host"`), sh: "cat /proc/self/cgroup", see: "PARENT/sub/"},
	{fields: "HostConfig.BlkioWeight", body: hostConfig(`"BlkioWeight":300`), path: "HostConfig/BlkioWeight", is: "300", note: "honoured where the kernel has it, else a warning"},
	{fields: "HostConfig.BlkioWeightDevice[].Path HostConfig.BlkioWeightDevice[].Weight", body: device("BlkioWeightDevice", `Weight":300,"x":"`), path: "HostConfig/BlkioWeightDevice/0/Weight", is: "300", note: "honoured where the kernel has it, else a warning"},
	{fields: "HostConfig.BlkioDeviceReadBps[].Path HostConfig.BlkioDeviceReadBps[].Rate", body: device("BlkioDeviceReadBps", `Rate":1048576,"x":"`), sh: cgroup("blkio/blkio.throttle.read_bps_device", "io.max"), see: "1048576"},
	{fields: "HostConfig.BlkioDeviceWriteBps[].Path HostConfig.BlkioDeviceWriteBps[].Rate", body: device("BlkioDeviceWriteBps", `Rate":1048576,"x":"`), sh: cgroup("blkio/blkio.throttle.write_bps_device", "io.max"), see: "1048576"},
	{fields: "HostConfig.BlkioDeviceReadIOps[].Path HostConfig.BlkioDeviceReadIOps[].Rate", body: device("BlkioDeviceReadIOps", `Rate":77,"x":"`), sh: cgroup("blkio/blkio.throttle.read_iops_device", "io.max"), see: "77"},
	{fields: "HostConfig.BlkioDeviceWriteIOps[].Path HostConfig.BlkioDeviceWriteIOps[].Rate", body: device("BlkioDeviceWriteIOps", `Rate":77,"x":"`), sh: cgroup("blkio/blkio.throttle.write_iops_device", "io.max"), see: "77"},
	{fields: "HostConfig.CpuPeriod", body: hostConfig(`"CpuPeriod":50000,"CpuQuota":25000`), sh: cgroup("cpu/cpu.cfs_period_us", "cpu.max"), see: "50000"},
	{fields: "HostConfig.CpuQuota", body: hostConfig(`"CpuPeriod":50000,"CpuQuota":25000`), sh: cgroup("cpu/cpu.cfs_quota_us", "cpu.max"), see: "25000"},
	{fields: "HostConfig.CpuRealtimePeriod HostConfig.CpuRealtimeRuntime", body: hostConfig(`"CpuRealtimePeriod":500000,"CpuRealtimeRuntime":600000`), refuse: "real-time", note: "honoured on cgroup v1 where the kernel has it, else refused: see test/e2e"},
	{fields: "HostConfig.CpusetCpus", body: hostConfig(`"CpusetCpus":"0"`), sh: "grep Cpus_allowed_list /proc/self/status", see: "\t0"},
	{fields: "HostConfig.CpusetMems", body: hostConfig(`"CpusetMems":"0"`), sh: "grep Mems_allowed_list /proc/self/status", see: "\t0"},
	{fields: "HostConfig.Devices[].PathOnHost HostConfig.Devices[].PathInContainer", body: hostConfig(`"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/mine","CgroupPermissions":"rwm"}]`), sh: "ls -l /dev/mine", see: "1,   3"},
	{fields: "HostConfig.Devices[].CgroupPermissions", body: hostConfig(`"Devices":[{"PathOnHost":"DISK","PathInContainer":"/dev/mine","CgroupPermissions":"m"}]`), sh: "head -c1 /dev/mine", see: "Operation not permitted"},
	{fields: "HostConfig.Devices[].CgroupPermissions", body: hostConfig(`"Devices":[{"PathOnHost":"/dev/null","CgroupPermissions":"x"}]`), refuse: "invalid"},
	{fields: "HostConfig.DeviceCgroupRules", body: hostConfig(`"DeviceCgroupRules":["c 10:229 rwm"]`), sh: "mknod /d c 10 229 && exec 3<>/d && echo open", see: "open"},
	{fields: "HostConfig.DeviceCgroupRules", body: hostConfig(`"DeviceCgroupRules":["nonsense"]`), refuse: "nonsense"},
	{fields: "HostConfig.DeviceRequests[].Driver HostConfig.DeviceRequests[].Capabilities", body: hostConfig(`"DeviceRequests":[{"Driver":"nosuch","Capabilities":[["gpu"]]}]`), refuse: "could not select device driver"},
	{fields: "HostConfig.DeviceRequests[].Count", body: hostConfig(`"DeviceRequests":[{"Count":-1,"Capabilities":[["tpu"]]}]`), refuse: "could not select device driver"},
	{fields: "HostConfig.DeviceRequests[].Driver HostConfig.DeviceRequests[].DeviceIDs", body: hostConfig(`"DeviceRequests":[{"Driver":"cdi","DeviceIDs":["example.com/thing=one"]}]`), sh: "ls -l /dev/thing; echo $ONE", see: "yes", note: "honoured: devices of CDI"},
	{fields: "HostConfig.DeviceRequests[].Count HostConfig.DeviceRequests[].Capabilities", body: hostConfig(`"DeviceRequests":[{"Driver":"nvidia","Count":-1,"Capabilities":[["gpu"]]}]`), sh: "echo $GPU", see: "every", note: "honoured where CDI has GPUs"},
	{fields: "HostConfig.DeviceRequests[].DeviceIDs", body: hostConfig(`"DeviceRequests":[{"Driver":"cdi","DeviceIDs":["example.com/device=none"]}]`), refuse: "example.com/device=none"},
	{fields: "HostConfig.DeviceRequests[].Options", body: hostConfig(`"DeviceRequests":[{"Driver":"nvidia","Options":{"a":"b"}}]`), refuse: "options of a request for GPUs are not supported"},
	{fields: "HostConfig.MemoryReservation", body: hostConfig(`"MemoryReservation":16777216`), sh: cgroup("memory/memory.soft_limit_in_bytes", "memory.low"), see: "16777216"},
	{fields: "HostConfig.MemorySwap", body: hostConfig(`"Memory":33554432,"MemorySwap":33554432`), path: "HostConfig/MemorySwap", is: "33554432", note: "honoured where the kernel accounts swap, else a warning"},
	{fields: "HostConfig.MemorySwappiness", body: hostConfig(`"MemorySwappiness":10`), path: "HostConfig/MemorySwappiness", is: "10", note: "honoured where the kernel has it, else a warning"},
	{fields: "HostConfig.NanoCpus", body: hostConfig(`"NanoCpus":500000000`), sh: cgroup("cpu/cpu.cfs_quota_us", "cpu.max"), see: "50000"},
	{fields: "HostConfig.OomKillDisable", body: hostConfig(`"OomKillDisable":true,"Memory":33554432`), path: "HostConfig/OomKillDisable", is: "", note: "honoured where the kernel has it, else a warning"},
	{fields: "HostConfig.Init", body: hostConfig(`"Init":true`), sh: "test $$ != 1 && echo child", see: "child"},
	{fields: "HostConfig.PidsLimit", body: hostConfig(`"PidsLimit":20`), sh: cgroup("pids/pids.max", "pids.max"), see: "20"},
	{fields: "HostConfig.Ulimits[].Name HostConfig.Ulimits[].Soft HostConfig.Ulimits[].Hard", body: hostConfig(`"Ulimits":[{"Name":"nofile","Soft":512,"Hard":1024}]`), sh: "ulimit -Sn; ulimit -Hn", see: "512\n1024"},
	{fields: "HostConfig.CpuCount", body: hostConfig(`"CpuCount":1`), warn: "CPU percent"},
	{fields: "HostConfig.CpuPercent", body: hostConfig(`"CpuPercent":50`), warn: "CPU percent"},
	{fields: "HostConfig.IOMaximumIOps", body: hostConfig(`"IOMaximumIOps":5`), refuse: "linux does not support Maximum IO"},
	{fields: "HostConfig.IOMaximumBandwidth", body: hostConfig(`"IOMaximumBandwidth":5`), refuse: "linux does not support Maximum IO"},
	{fields: "HostConfig.Binds", body: hostConfig(`"Binds":["DIR:/b:ro","vol1:/v"]`), sh: "cat /b/file; touch /b/x || echo refused; touch /v/x && echo written", see: "written"},
	{fields: "HostConfig.ContainerIDFile", body: hostConfig(`"ContainerIDFile":"/tmp/cid"`), path: "HostConfig/ContainerIDFile", is: "/tmp/cid", note: "kept: it is the client who writes the file"},
	{fields: "HostConfig.LogConfig.Type", body: hostConfig(`"LogConfig":{"Type":"json-file"}`), path: "HostConfig/LogConfig/Type", is: "json-file"},
	{fields: "HostConfig.LogConfig.Type", body: hostConfig(`"LogConfig":{"Type":"nosuch"}`), refuse: "nosuch"},
	{fields: "HostConfig.LogConfig.Config", body: hostConfig(`"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}}`), path: "HostConfig/LogConfig/Config", is: `"max-size":"1m"`},
	{fields: "HostConfig.LogConfig.Config", body: hostConfig(`"LogConfig":{"Type":"json-file","Config":{"nosuch":"1"}}`), refuse: "nosuch"},
	{fields: "HostConfig.NetworkMode", body: hostConfig(`"NetworkMode":"none"`), sh: "ip -o link | wc -l", see: "1"},
	{fields: "HostConfig.PortBindings{}[].HostIp HostConfig.PortBindings{}[].HostPort", body: `{"ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"18080"}]}}}`, path: "run:NetworkSettings/Ports/80~tcp/0", is: `{"HostIp":"127.0.0.1","HostPort":"18080"}`},
	{fields: "HostConfig.RestartPolicy.Name", body: hostConfig(`"RestartPolicy":{"Name":"nosuch"}`), refuse: "unknown policy 'nosuch'"},
	{fields: "HostConfig.RestartPolicy.Name HostConfig.RestartPolicy.MaximumRetryCount", body: hostConfig(`"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}`), path: "HostConfig/RestartPolicy/MaximumRetryCount", is: "3", note: "honoured: see internal/engine/containers"},
	{fields: "HostConfig.AutoRemove", body: hostConfig(`"AutoRemove":true`), path: "HostConfig/AutoRemove", is: "true", note: "honoured: see test/e2e"},
	{fields: "HostConfig.VolumeDriver", body: hostConfig(`"VolumeDriver":"nosuch","Binds":["v9:/v"]`), refuse: "nosuch"},
	{fields: "HostConfig.VolumesFrom", body: hostConfig(`"VolumesFrom":["donor:ro"]`), sh: "ls /given; touch /given/x || echo refused", see: "refused"},
	{fields: "HostConfig.Mounts[].Type HostConfig.Mounts[].Source HostConfig.Mounts[].Target", body: mounts(`{"Type":"bind","Source":"DIR","Target":"/b"}`), sh: "cat /b/file", see: "content"},
	{fields: "HostConfig.Mounts[].Type", body: mounts(`{"Type":"nosuch","Target":"/b"}`), refuse: "mount type unknown"},
	{fields: "HostConfig.Mounts[].Type", body: mounts(`{"Type":"cluster","Source":"a","Target":"/b"}`), refuse: "not supported"},
	{fields: "HostConfig.Mounts[].ReadOnly", body: mounts(`{"Type":"bind","Source":"DIR","Target":"/b","ReadOnly":true}`), sh: "touch /b/x || echo refused", see: "refused"},
	{fields: "HostConfig.Mounts[].Consistency", body: mounts(`{"Type":"bind","Source":"DIR","Target":"/b","Consistency":"cached"}`), path: "HostConfig/Mounts/0/Consistency", is: "cached", note: "kept, as docker does on Linux: it is of file sharing with a Mac"},
	{fields: "HostConfig.Mounts[].BindOptions.Propagation", body: mounts(`{"Type":"bind","Source":"DIR","Target":"/b","BindOptions":{"Propagation":"rslave"}}`), sh: "grep ' /b ' /proc/self/mountinfo", see: "master:"},
	{fields: "HostConfig.Mounts[].BindOptions.NonRecursive", body: mounts(`{"Type":"bind","Source":"DIR","Target":"/b","BindOptions":{"NonRecursive":true}}`), sh: "grep -c ' /b[ /]' /proc/self/mountinfo", see: "1"},
	{fields: "HostConfig.Mounts[].BindOptions.CreateMountpoint", body: mounts(`{"Type":"bind","Source":"DIR/made","Target":"/b","BindOptions":{"CreateMountpoint":true}}`), sh: "ls -d /b", see: "/b"},
	{fields: "HostConfig.Mounts[].BindOptions.ReadOnlyNonRecursive", body: mounts(`{"Type":"bind","Source":"DIR","Target":"/b","ReadOnly":true,"BindOptions":{"ReadOnlyNonRecursive":true}}`), sh: "touch /b/x || echo refused; touch /b/sub/x && echo written", see: "written"},
	{fields: "HostConfig.Mounts[].BindOptions.ReadOnlyForceRecursive", body: mounts(`{"Type":"bind","Source":"DIR","Target":"/b","ReadOnly":true,"BindOptions":{"ReadOnlyForceRecursive":true,"Propagation":"rprivate"}}`), sh: "touch /b/sub/x || echo refused", see: "refused"},
	{fields: "HostConfig.Mounts[].VolumeOptions.NoCopy", body: mounts(`{"Type":"volume","Source":"fresh1","Target":"/bin2","VolumeOptions":{"NoCopy":true}}`), path: "HostConfig/Mounts/0/VolumeOptions/NoCopy", is: "true", note: "honoured: see internal/engine/containers"},
	{fields: "HostConfig.Mounts[].VolumeOptions.Labels", body: mounts(`{"Type":"volume","Source":"fresh2","Target":"/v","VolumeOptions":{"Labels":{"l":"m"}}}`), path: "volume:fresh2:Labels", is: `"l":"m"`},
	{fields: "HostConfig.Mounts[].VolumeOptions.DriverConfig.Name", body: mounts(`{"Type":"volume","Source":"fresh3","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"nosuch"}}}`), refuse: "nosuch"},
	{fields: "HostConfig.Mounts[].VolumeOptions.DriverConfig.Options", body: mounts(`{"Type":"volume","Source":"fresh4","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"tmpfs","device":"tmpfs","o":"size=1m"}}}}`), sh: "mount | grep ' /v '", see: "size=1024k"},
	{fields: "HostConfig.Mounts[].VolumeOptions.Subpath", body: mounts(`{"Type":"volume","Source":"filled","Target":"/v","VolumeOptions":{"Subpath":"deep"}}`), sh: "cat /v/file", see: "content"},
	{fields: "HostConfig.Mounts[].ImageOptions.Subpath", body: mounts(`{"Type":"image","Source":"img","Target":"/i","ImageOptions":{"Subpath":"bin"}}`), sh: "ls /i/busybox; touch /i/x || echo refused", see: "refused"},
	{fields: "HostConfig.Mounts[].ImageOptions.Subpath", body: mounts(`{"Type":"image","Source":"two","Target":"/i","ImageOptions":{"Subpath":"bin"}}`), sh: "ls /i; grep -c ' /i ' /proc/self/mountinfo", see: "more\n"},
	{fields: "HostConfig.Mounts[].ImageOptions.Subpath", body: mounts(`{"Type":"image","Source":"two","Target":"/i","ImageOptions":{"Subpath":"bin/more"}}`), sh: "cat /i", see: "content"},
	{fields: "HostConfig.Mounts[].ImageOptions.Subpath", body: mounts(`{"Type":"image","Source":"two","Target":"/i","ImageOptions":{"Subpath":"nosuch"}}`), refuse: "no such file or directory"},
	{fields: "HostConfig.Mounts[].TmpfsOptions.SizeBytes", body: mounts(`{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576}}`), sh: "mount | grep ' /t '", see: "size=1024k"},
	{fields: "HostConfig.Mounts[].TmpfsOptions.Mode", body: mounts(`{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Mode":448}}`), sh: "stat -c %a /t", see: "700"},
	{fields: "HostConfig.Mounts[].TmpfsOptions.Options", body: mounts(`{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["exec"]]}}`), sh: "mount | grep ' /t ' | grep noexec || echo exec", see: "exec\n"},
	{fields: "HostConfig.ConsoleSize", body: `{"Tty":true,"HostConfig":{"ConsoleSize":[33,77]}}`, sh: "stty size", see: "33 77"},
	{fields: "HostConfig.Annotations", body: hostConfig(`"Annotations":{"a":"b"}`), path: "HostConfig/Annotations", is: `"a":"b"`},
	{fields: "HostConfig.CapAdd", body: hostConfig(`"CapAdd":["NET_ADMIN"]`), sh: "ip link set lo down && echo done", see: "done"},
	{fields: "HostConfig.CapDrop", body: hostConfig(`"CapDrop":["ALL"]`), sh: "grep CapEff /proc/self/status", see: "0000000000000000"},
	{fields: "HostConfig.CgroupnsMode", body: hostConfig(`"CgroupnsMode":"host"`), sh: "cat /proc/self/cgroup", see: "PARENT/"},
	{fields: "HostConfig.Dns", body: hostConfig(`"Dns":["10.9.9.9"]`), sh: "cat /etc/resolv.conf", see: "nameserver 10.9.9.9"},
	{fields: "HostConfig.DnsOptions", body: hostConfig(`"DnsOptions":["ndots:3"]`), sh: "cat /etc/resolv.conf", see: "ndots:3"},
	{fields: "HostConfig.DnsSearch", body: hostConfig(`"DnsSearch":["x.example"]`), sh: "cat /etc/resolv.conf", see: "search x.example"},
	{fields: "HostConfig.ExtraHosts", body: hostConfig(`"ExtraHosts":["a.example:10.1.2.3"]`), sh: "cat /etc/hosts", see: "10.1.2.3\ta.example"},
	{fields: "HostConfig.GroupAdd", body: hostConfig(`"GroupAdd":["7"]`), sh: "id", see: "7"},
	{fields: "HostConfig.IpcMode", body: hostConfig(`"IpcMode":"none"`), sh: "grep -c /dev/shm /proc/self/mountinfo", see: "0"},
	{fields: "HostConfig.Cgroup", body: hostConfig(`"Cgroup":"container:donor"`), refuse: "joining another container's cgroup is not supported"},
	{fields: "HostConfig.Links", body: hostConfig(`"Links":["donor:peer"]`), sh: "grep -q peer /etc/hosts && env", see: "PEER_ENV_SECRET=s"},
	{fields: "HostConfig.OomScoreAdj", body: hostConfig(`"OomScoreAdj":500`), sh: "cat /proc/self/oom_score_adj", see: "500"},
	{fields: "HostConfig.PidMode", body: hostConfig(`"PidMode":"container:donor"`), sh: "cat /proc/1/cmdline", see: "sleep"},
	{fields: "HostConfig.Privileged", body: hostConfig(`"Privileged":true`), sh: "ip link set lo down && echo done", see: "done"},
	{fields: "HostConfig.PublishAllPorts", body: `{"ExposedPorts":{"80/tcp":{}},"HostConfig":{"PublishAllPorts":true}}`, path: "run:NetworkSettings/Ports/80~tcp/0/HostPort", is: "3"},
	{fields: "HostConfig.ReadonlyRootfs", body: hostConfig(`"ReadonlyRootfs":true`), sh: "touch /x || echo refused", see: "refused"},
	{fields: "HostConfig.SecurityOpt", body: hostConfig(`"SecurityOpt":["no-new-privileges"]`), sh: "grep NoNewPrivs /proc/self/status", see: "1"},
	{fields: "HostConfig.SecurityOpt", body: hostConfig(`"SecurityOpt":["nosuch=1"]`), refuse: "nosuch"},
	{fields: "HostConfig.StorageOpt", body: hostConfig(`"StorageOpt":{"inodes":"9"}`), refuse: "invalid --storage-opt", note: "honoured (`size`) where the data root has project quotas, else refused: see test/e2e"},
	{fields: "HostConfig.Tmpfs", body: hostConfig(`"Tmpfs":{"/t":"size=1m"}`), sh: "mount | grep ' /t '", see: "size=1024k"},
	{fields: "HostConfig.UTSMode", body: hostConfig(`"UTSMode":"host"`), sh: "readlink /proc/self/ns/uts", see: "UTSNS"},
	{fields: "HostConfig.UsernsMode", body: hostConfig(`"UsernsMode":"host"`), path: "HostConfig/UsernsMode", is: "host"},
	{fields: "HostConfig.UsernsMode", body: hostConfig(`"UsernsMode":"nosuch"`), refuse: "invalid user namespace mode"},
	{fields: "HostConfig.ShmSize", body: hostConfig(`"ShmSize":8388608`), sh: "mount | grep /dev/shm", see: "size=8192k"},
	{fields: "HostConfig.Sysctls", body: hostConfig(`"Sysctls":{"net.ipv4.ip_forward":"1"}`), sh: "cat /proc/sys/net/ipv4/ip_forward", see: "1"},
	{fields: "HostConfig.Sysctls", body: hostConfig(`"Sysctls":{"kernel.core_pattern":"x"}`), refuse: "kernel.core_pattern"},
	{fields: "HostConfig.Runtime", body: hostConfig(`"Runtime":"nosuch"`), refuse: "unknown or invalid runtime name: nosuch"},
	{fields: "HostConfig.Umask", body: hostConfig(`"Umask":63`), sh: "umask", see: "0077"},
	{fields: "HostConfig.Isolation", body: hostConfig(`"Isolation":"hyperv"`), refuse: "invalid isolation (hyperv): linux only supports 'default'"},
	{fields: "HostConfig.MaskedPaths", body: hostConfig(`"MaskedPaths":["/proc/uptime"]`), sh: "cat /proc/uptime; echo end", see: "end", note: "honoured: see internal/runtime/launch"},
	{fields: "HostConfig.ReadonlyPaths", body: hostConfig(`"ReadonlyPaths":["/proc/sys/net"]`), sh: "grep ' /proc/sys/net ' /proc/self/mountinfo", see: " ro,"},

	{fields: "NetworkingConfig.EndpointsConfig{}.IPAMConfig.IPv4Address", body: atEndpoint(`{"IPAMConfig":{"IPv4Address":"10.66.0.9"}}`), sh: "ip addr", see: "10.66.0.9/24"},
	{fields: "NetworkingConfig.EndpointsConfig{}.IPAMConfig.IPv6Address", body: atEndpoint(`{"IPAMConfig":{"IPv6Address":"fd00:66::9"}}`), sh: "ip addr", see: "fd00:66::9/64"},
	{fields: "NetworkingConfig.EndpointsConfig{}.IPAMConfig.LinkLocalIPs", body: atEndpoint(`{"IPAMConfig":{"LinkLocalIPs":["169.254.3.3"]}}`), sh: "ip addr", see: "169.254.3.3/16"},
	{fields: "NetworkingConfig.EndpointsConfig{}.Links", body: atEndpoint(`{"Links":["member:peer"]}`), sh: "ping -c1 -W1 peer", see: "1 packets received"},
	{fields: "NetworkingConfig.EndpointsConfig{}.MacAddress", body: atEndpoint(`{"MacAddress":"02:42:ac:11:00:77"}`), sh: "ip link", see: "02:42:ac:11:00:77"},
	{fields: "NetworkingConfig.EndpointsConfig{}.Aliases", body: atEndpoint(`{"Aliases":["other"]}`), sh: "nslookup other 127.0.0.11", see: "10.66.0."},
	{fields: "NetworkingConfig.EndpointsConfig{}.DriverOpts", body: atEndpoint(`{"DriverOpts":{"com.docker.network.endpoint.ifname":"lan0"}}`), sh: "ip link show lan0", see: "lan0"},
	{fields: "NetworkingConfig.EndpointsConfig{}.DriverOpts", body: atEndpoint(`{"DriverOpts":{"com.docker.network.endpoint.sysctls":"net.ipv4.conf.IFNAME.log_martians=1"}}`), sh: "cat /proc/sys/net/ipv4/conf/eth0/log_martians", see: "1"},
	{fields: "NetworkingConfig.EndpointsConfig{}.GwPriority", body: `{"HostConfig":{"NetworkMode":"net1"},"NetworkingConfig":{"EndpointsConfig":{"net1":{},"net2":{"GwPriority":5}}}}`, sh: "ip route", see: "default via 10.67.0.1"},
}

// cdiFile describes a device of nobody's, and one that passes for all GPUs.
const cdiFile = `{"cdiVersion":"0.6.0","kind":"example.com/thing","devices":[{"name":"one","containerEdits":{"env":["ONE=yes"],
	"deviceNodes":[{"path":"/dev/thing","hostPath":"/dev/null"}]}}]}`

const cdiGPUs = `{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{"name":"all","containerEdits":{"env":["GPU=every"]}}]}`

// told are fields of an endpoint that are only reported: what a client sends
// back is dropped, as docker drops it.
var told = []string{"NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames"}

// TestCreateFields sets every field of a create request.
func TestCreateFields(t *testing.T) {
	cdi := t.TempDir()
	for name, data := range map[string]string{"thing.json": cdiFile, "gpus.json": cdiGPUs} {
		if err := os.WriteFile(filepath.Join(cdi, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := start(t, "--cdi-spec-dir", cdi)
	fill := prepareFields(e)
	for _, p := range creates {
		t.Run(strings.ReplaceAll(p.fields, " ", ","), func(t *testing.T) {
			e.t = t
			e.tryCreate(&p, fill)
		})
	}
	dropped := map[string]any{
		"NetworkID": "x", "EndpointID": "x", "Gateway": "1.2.3.4", "IPAddress": "1.2.3.4", "IPPrefixLen": 9,
		"IPv6Gateway": "fe80::9", "GlobalIPv6Address": "fe80::9", "GlobalIPv6PrefixLen": 9, "DNSNames": []string{"x"},
	}
	b, _ := json.Marshal(dropped)
	e.t = t
	id := e.must("POST", "/containers/create", `{"Image":"img",`+strings.TrimPrefix(atEndpoint(string(b)), "{"), "Id")
	at := e.must("GET", "/containers/"+id+"/json", "", "NetworkSettings/Networks/net1")
	var got map[string]any
	_ = json.Unmarshal([]byte(at), &got)
	for _, name := range told {
		if v := fmt.Sprint(got[name]); v == fmt.Sprint(dropped[name]) {
			t.Errorf("%s is %s, as the client sent it", name, v)
		}
	}
	covered(t, loadSpec(t), "POST /containers/create", createdFields())
}

// createdFields are all that the probes above try.
func createdFields() map[string][]string {
	out := map[string][]string{}
	for _, p := range creates {
		for f := range strings.FieldsSeq(p.fields) {
			out[f] = append(out[f], p.how())
		}
	}
	for _, f := range told {
		out["NetworkingConfig.EndpointsConfig{}."+f] = []string{"only told by inspect; dropped, as docker does"}
	}
	return out
}

// covered fails for a field of the request that has no probe, and for a probe
// of none.
func covered(t *testing.T, sp *spec, route string, have map[string][]string) {
	t.Helper()
	want := sp.bodyFields(route)
	for _, f := range want {
		if have[f] == nil {
			t.Errorf("%s: nothing tries %s", route, f)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(have)) {
		if !slices.Contains(want, f) {
			t.Errorf("%s: the description has no %s", route, f)
		}
	}
}

// bodyFields are the fields of a route's request body.
func (s *spec) bodyFields(route string) []string {
	method, path, _ := strings.Cut(route, " ")
	for _, p := range s.Paths[path][strings.ToLower(method)].Parameters {
		if p.In == "body" {
			return s.leaves(p.Schema, "")
		}
	}
	return nil
}

// prepareFields makes what the probes refer to.
func prepareFields(e *engine) func(string) string {
	t := e.t
	dir := e.Dir + "/shared"
	e.Run("sh", "-c", "mkdir -p "+dir+"/sub && echo content > "+dir+"/file && mount -t tmpfs tmpfs "+dir+"/sub && mount --make-rshared /")
	t.Cleanup(func() { e.Run("umount", dir+"/sub") })
	for i, name := range []string{"net1", "net2"} {
		e.must("POST", "/networks/create", fmt.Sprintf(`{"Name":%q,"EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"10.%d.0.0/24"},{"Subnet":"fd00:%d::/64"}]}}`, name, 66+i, 66+i), "")
	}
	run := func(name, body string) {
		id := e.must("POST", "/containers/create?name="+name, body, "Id")
		e.must("POST", "/containers/"+id+"/start", "", "")
	}
	run("donor", `{"Image":"img","Cmd":["sleep","10000"],"ExposedPorts":{"80/tcp":{}},"Env":["SECRET=s"],"Volumes":{"/given":{}}}`)
	run("member", `{"Image":"img","Cmd":["sleep","10000"],"HostConfig":{"NetworkMode":"net1"}}`)
	run("filler", `{"Image":"img","Cmd":["sh","-c","mkdir /v/deep; echo content > /v/deep/file"],"HostConfig":{"Binds":["filled:/v"]}}`)
	e.must("POST", "/containers/filler/wait", "", "")
	run("layer", `{"Image":"img","Cmd":["sh","-c","echo content > /bin/more"]}`)
	e.must("POST", "/containers/layer/wait", "", "")
	e.must("POST", "/commit?container=layer&repo=two", "", "")
	utsns := e.Run("readlink", "/proc/self/ns/uts")
	return strings.NewReplacer("DIR", dir, "DISK", blockDevice(t),
		"PARENT", e.CgroupParent, "UTSNS", utsns).Replace
}

// tryCreate makes a container, and looks for the probe's effect.
func (e *engine) tryCreate(p *probe, fill func(string) string) {
	t := e.t
	body := map[string]any{"Image": "img"}
	if err := json.Unmarshal([]byte(fill(p.body)), &body); err != nil {
		t.Fatalf("%s: %v", p.body, err)
	}
	if p.sh != "" {
		body["Cmd"] = []string{"sh", "-c", fill(p.sh)}
	} else if body["Cmd"] == nil {
		body["Cmd"] = []string{"sleep", "1000"}
	}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	version := ""
	if p.v != "" {
		version = "/v" + p.v
	}
	a := e.call("POST", version+"/containers/create", b)
	v, _ := a.value()
	id := dig(v, "Id")
	if a.code == 201 {
		defer func() { e.must("DELETE", "/containers/"+id+"?force=1&v=1", "", "") }()
	}
	if p.refuse != "" {
		if a.code == 201 {
			a = e.call("POST", "/containers/"+id+"/start", nil)
		}
		if a.code < 400 || !strings.Contains(a.message(), p.refuse) {
			t.Errorf("status %d %s, want a refusal with %q", a.code, a.body, p.refuse)
		}
		return
	}
	if a.code != 201 {
		t.Fatalf("status %d %s", a.code, a.body)
	}
	if got := dig(v, "Warnings"); !strings.Contains(got, p.warn) {
		t.Errorf("warnings %s, want %q", got, p.warn)
	}
	if p.see != "" {
		got, err := e.output(id)
		if err != nil || !strings.Contains(got, fill(p.see)) {
			t.Errorf("printed %q, want %q (%v)", got, fill(p.see), err)
		}
	}
	if path, ok := strings.CutPrefix(p.path, "run:"); ok {
		e.must("POST", "/containers/"+id+"/start", "", "")
		p.path = path
	}
	what := "/containers/" + id + "/json"
	path := p.path
	if rest, ok := strings.CutPrefix(p.path, "volume:"); ok {
		what, path, _ = strings.Cut(rest, ":")
		what = "/volumes/" + what
	}
	if got := e.must("GET", what, "", path); path != "" && !strings.Contains(got, p.is) {
		t.Errorf("%s is %s, want %s", p.path, got, p.is)
	}
}
