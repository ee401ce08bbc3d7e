//go:build linux

package swrk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

func TestWhatIsFromOutsideComesBackInItsPlace(t *testing.T) {
	spec := &specs.Spec{
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "data/", Source: "/srv/data", Options: []string{"rbind", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup"},
		},
		Linux: &specs.Linux{CgroupsPath: "/c1", MaskedPaths: []string{"/proc/kcore"}},
	}
	v1 := []cgroup.Mount{{Name: "memory", Host: "/sys/fs/cgroup/memory"}}
	bind, group, null := external{"/data", "/srv/data"}, external{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/c1"}, external{"/dev/null", "/dev/null"}
	for name, c := range map[string]struct {
		groups []cgroup.Mount
		ns     []specs.LinuxNamespace
		want   []external
	}{
		"version 1":                  {v1, nil, []external{bind, group, null}},
		"version 1 with a namespace": {v1, []specs.LinuxNamespace{{Type: specs.CgroupNamespace}}, []external{bind, null}},
		"version 2":                  {[]cgroup.Mount{{Host: "/sys/fs/cgroup"}}, nil, []external{bind, null}},
	} {
		spec.Linux.Namespaces = c.ns
		if diff := cmp.Diff(c.want, restoreExternals(spec, c.groups), cmp.AllowUnexported(external{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestControlGroupRoots(t *testing.T) {
	got := parseGroupRoots("5:cpu,cpuacct:/a/b\n1:name=systemd:/c\n0::/v2\nnonsense\n")
	if len(got) != 2 || got[0].GetCtrl() != "cpu,cpuacct" || got[0].GetPath() != "/a/b" || got[1].GetCtrl() != "name=systemd" {
		t.Error(got)
	}
}

func TestRefusals(t *testing.T) {
	if err := Check("/nowhere/criu"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("no program: %v", err)
	}
	old := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'Error (kerndat.c:1): too new a kernel' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Check(old); !errs.Is(err, errs.Unsupported) || err.Error() != "criu does not work on this kernel: Error (kerndat.c:1): too new a kernel" {
		t.Errorf("a criu that fails its check: %v", err)
	}
	if err := CheckCgroups("loose"); !errs.Is(err, errs.Invalid) {
		t.Errorf("cgroup mode: %v", err)
	}
	r := &Restore{Options: Options{Program: old, Images: t.TempDir()}}
	if err := r.Run(); !errs.Is(err, errs.NotFound) {
		t.Errorf("nothing saved: %v", err)
	}
}

func FuzzDescriptors(f *testing.F) {
	f.Add([]byte(`["/dev/null","pipe:[1]","pipe:[2]"]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if links, err := decodeDescriptors(text); err == nil && len(links) > 3 {
			t.Error(links)
		}
	})
}
