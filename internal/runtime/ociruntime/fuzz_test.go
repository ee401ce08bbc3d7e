//go:build linux

package ociruntime

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// FuzzDecodeSpec reads configurations that others wrote, and takes those that are
// taken as far as their group and their seccomp program.
func FuzzDecodeSpec(f *testing.F) {
	data, _ := json.Marshal(exampleSpec(true))
	f.Add(data)
	f.Add([]byte(`{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"args":["true"],"cwd":"/"},"linux":{"cgroupsPath":"../../a/..","namespaces":[{"type":"mount"}],
		"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"op":"SCMP_CMP_GE"}]}]}}}`))
	f.Add([]byte(`{"ociVersion":"1.","root":null,"process":{"args":[""],"cwd":"/","capabilities":null,"rlimits":[{}]},"linux":{"resources":{"devices":[{}]}}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSpec(data)
		if err != nil {
			return
		}
		if s.Process == nil || s.Root == nil || s.Linux == nil || len(s.Process.Args) == 0 {
			t.Fatalf("%s is taken", data)
		}
		_, _ = compile(s.Linux.Seccomp)
		own, err := cgroup.Own()
		if err != nil {
			t.Fatal(err)
		}
		at, err := groupPath(s.Linux.CgroupsPath, "id", &cgroup.System{})
		if err == nil && (at == "/" || at == own || !path.IsAbs(at) || strings.Contains(at+"/", "/../")) {
			t.Errorf("%q becomes the group %q", s.Linux.CgroupsPath, at)
		}
	})
}
