//go:build linux

package launch

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// rdt is a directory with what the kernel would put in its groups.
func rdt(t *testing.T, groups ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, g := range groups {
		dir := filepath.Join(root, g)
		for _, err := range []error{
			os.MkdirAll(dir, 0o755),
			os.WriteFile(filepath.Join(dir, "tasks"), nil, 0o644),
			os.WriteFile(filepath.Join(dir, "schemata"), []byte("    L3:0=7f0;1=01f\n    MB:0=100;1=100\n"), 0o644),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestRDT(t *testing.T) {
	for name, tc := range map[string]struct {
		want specs.LinuxIntelRdt
		ok   bool
		kind errs.Kind
	}{
		"a group that is there":           {specs.LinuxIntelRdt{ClosID: "gold"}, true, 0},
		"that says the same":              {specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=7f0;1=1f", MemBwSchema: "MB:0=100"}, true, 0},
		"in one list":                     {specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:1=1f"}}, true, 0},
		"the default one":                 {specs.LinuxIntelRdt{ClosID: "/"}, true, 0},
		"that says otherwise":             {specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f"}, false, errs.Conflict},
		"one that is not there":           {specs.LinuxIntelRdt{ClosID: "silver"}, false, errs.Invalid},
		"a path":                          {specs.LinuxIntelRdt{ClosID: "../x"}, false, errs.Invalid},
		"the directory of monitor groups": {specs.LinuxIntelRdt{ClosID: "mon_groups"}, false, errs.Invalid},
		"two lines in one":                {specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f\nMB:0=1"}, false, errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			root := rdt(t, "gold", "")
			tasks, _, err := joinRDT(root, "id", &tc.want)
			for _, f := range tasks {
				_ = f.Close()
			}
			if tc.ok && (err != nil || len(tasks) != 1) || !tc.ok && !errs.Is(err, tc.kind) {
				t.Errorf("error %v, %d files", err, len(tasks))
			}
			if _, err := os.Stat(filepath.Join(root, "silver")); err == nil {
				t.Error("a group is left")
			}
			if err := leaveRDT(root, "id", &tc.want); tc.ok && err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(root, "gold")); err != nil {
				t.Error("a group that was there is gone")
			}
		})
	}
}

func TestRDTMakesAndRemovesGroups(t *testing.T) {
	root := rdt(t, "")
	want := &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"}
	// The kernel would have made the files of the new group: it fails here, and
	// leaves nothing.
	if _, _, err := joinRDT(root, "id", want); err == nil {
		t.Error("it works without a kernel")
	}
	if _, err := os.Stat(filepath.Join(root, "id")); err == nil {
		t.Error("a group is left")
	}
	if err := os.Mkdir(filepath.Join(root, "id"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := leaveRDT(root, "id", want); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "id")); err == nil {
		t.Error("the group is left")
	}
	if err := leaveRDT(root, "id", want); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestRDTIsNotMounted(t *testing.T) {
	if _, _, err := joinRDT(filepath.Join(t.TempDir(), "none"), "id", &specs.LinuxIntelRdt{}); !errs.Is(err, errs.Unsupported) {
		t.Errorf("error is %v", err)
	}
	if err := LeaveRDT(&specs.Spec{Linux: &specs.Linux{}}, "id"); err != nil {
		t.Error(err)
	}
}
