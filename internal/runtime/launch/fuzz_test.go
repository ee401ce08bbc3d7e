//go:build linux

package launch

import (
	"bytes"
	"encoding/json"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// FuzzCheck takes specifications that others wrote as far as the child is told
// of them: what is refused is refused before anything is made, and what is not
// can be said and read again.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.2.0","root":{"path":"r","readonly":true},"hostname":"h","process":{"args":["true"],"cwd":"/","rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":1}],
		"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4},"scheduler":{"policy":"SCHED_BATCH","nice":1},"execCPUAffinity":{"initial":"0"},"capabilities":{"bounding":["CAP_CHOWN"]}},
		"mounts":[{"destination":"/proc","type":"proc","options":["ro","rbind","idmap"]},{"destination":"/t","type":"tmpfs","options":["tmpcopyup","size=1m"]}],
		"hooks":{"prestart":[{"path":"/bin/true","timeout":1}],"poststop":[{"path":"x"}]},
		"linux":{"namespaces":[{"type":"mount"},{"type":"user"},{"type":"time"}],"uidMappings":[{"size":1}],"gidMappings":[{"size":1}],"timeOffsets":{"monotonic":{"secs":1}},
		"personality":{"domain":"LINUX32"},"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0-1","flags":["MPOL_F_STATIC_NODES"]},"rootfsPropagation":"rshared","netDevices":{"eth0":{"name":"x"}},
		"intelRdt":{"closID":"x"},"devices":[{"path":"/dev/x","type":"c","major":1}],"sysctl":{"kernel.msgmax":"1"}}}`), false)
	f.Add([]byte(`{"process":{"args":["a"],"scheduler":{"policy":"SCHED_DEADLINE","runtime":1}},"linux":{"namespaces":[{"type":"mount","path":"/x"}],"maskedPaths":["/y"]}}`), true)
	f.Add([]byte(`{"process":null,"linux":{}}`), false)
	f.Fuzz(func(t *testing.T, data []byte, overlay bool) {
		var spec *specs.Spec
		if json.Unmarshal(data, &spec) != nil {
			return
		}
		l := &runtime.Launch{ID: "x", Spec: spec, Rootfs: &runtime.Rootfs{Bind: "/r"}}
		if overlay {
			l.Rootfs = &runtime.Rootfs{Lower: []string{"/l"}, Upper: "/u", Work: "/w"}
		}
		if Check(l) != nil {
			return
		}
		req := &request{ID: l.ID, Spec: worldOf(spec), Process: commandOf(spec.Process, spec.Linux.Personality, spec.Linux.MemoryPolicy), Rootfs: l.Rootfs, Hooks: hookWorkOf(spec.Hooks, specs.State{ID: l.ID})}
		msg, err := encode(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := decode(bytes.NewReader(msg), &request{}); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
	})
}
