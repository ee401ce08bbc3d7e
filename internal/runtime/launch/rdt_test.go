//go:build linux

package launch

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
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
			e, err := joinRDT(root, "id", &tc.want)
			if err == nil {
				e.close()
			}
			if tc.ok && (err != nil || len(e.tasks) != 1 || len(e.made)+len(e.own) > 0) || !tc.ok && !errs.Is(err, tc.kind) {
				t.Errorf("error %v, %+v", err, e)
			}
			if _, err := os.Stat(filepath.Join(root, "silver")); err == nil {
				t.Error("a group is left")
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
	if _, err := joinRDT(root, "id", want); err == nil {
		t.Error("it works without a kernel")
	}
	if _, err := os.Stat(filepath.Join(root, "id")); err == nil {
		t.Error("a group is left")
	}
	if err := os.Mkdir(filepath.Join(root, "id"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"made", "gone"} {
		if err := LeaveRDT([]string{filepath.Join(root, "id")}); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if _, err := os.Stat(filepath.Join(root, "id")); err == nil {
			t.Error("the group is left")
		}
	}
}

// Groups that were there are not the container's, also those of its name.
func TestRDTOfOthers(t *testing.T) {
	root := rdt(t, "", "id", "gold/mon_groups/id")
	e, err := joinRDT(root, "id", &specs.LinuxIntelRdt{})
	if err != nil {
		t.Fatal(err)
	}
	e.close()
	e.undo()
	if len(e.own) > 0 {
		t.Errorf("to be removed with the container: %v", e.own)
	}
	if _, err := os.Stat(filepath.Join(root, "id")); err != nil {
		t.Error(err)
	}
	if _, err := joinRDT(root, "id", &specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true}); err == nil {
		t.Error("somebody's monitoring group is taken for its own")
	}
	// An exec goes to where the container is.
	rdt := rdt(t, "gold", "gold/mon_groups/id")
	e, err = enterRDT(rdt, "id", &specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true})
	if err != nil || len(e.tasks) != 2 {
		t.Fatalf("%+v, %v", e, err)
	}
	e.close()
	if _, err := enterRDT(rdt, "id", &specs.LinuxIntelRdt{}); err == nil {
		t.Error("a group that is not there is entered")
	}
}

func TestUpdateRDT(t *testing.T) {
	root := rdt(t, "gold")
	got, err := updateRDT(root, "id", &specs.LinuxIntelRdt{ClosID: "gold", MemBwSchema: "MB:0=50"}, "L3:0=3", "")
	if err != nil || got.L3CacheSchema != "L3:0=3" || got.MemBwSchema != "MB:0=50" {
		t.Errorf("%+v, %v", got, err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "gold/schemata")); err != nil || string(text[:7]) != "L3:0=3\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := updateRDT(root, "id", &specs.LinuxIntelRdt{}, "L3:0=3", ""); err == nil {
		t.Error("a group that is not there is changed")
	}
}

func TestCountRDT(t *testing.T) {
	root := rdt(t, "", "gold")
	for name, text := range map[string]string{
		"info/L3/cbm_mask": "fffff\n", "info/L3/min_cbm_bits": "1\n", "info/L3/num_closids": "16\n",
		"gold/mon_groups/id/mon_data/mon_L3_00/mbm_total_bytes": "9\n", "gold/mon_groups/id/mon_data/mon_L3_00/mbm_local_bytes": "Unavailable\n",
		"gold/mon_groups/id/mon_data/mon_L3_00/llc_occupancy": "7\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := countRDT(root, "id", &specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true})
	want := RDTStats{
		L3Info: &RDTCache{"fffff", 1, 16}, L3Root: "L3:0=7f0;1=01f", L3: "L3:0=7f0;1=01f", MemBwRoot: "MB:0=100;1=100", MemBw: "MB:0=100;1=100",
		Schemata: []string{"L3:0=7f0;1=01f", "MB:0=100;1=100"}, Bandwidth: []RDTTraffic{{9, 0}}, Occupation: []RDTOccupancy{{7}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
	if _, err := countRDT(root, "id", &specs.LinuxIntelRdt{ClosID: "silver"}); err == nil {
		t.Error("a group that is not there is counted")
	}
}

func TestRDTIsNotMounted(t *testing.T) {
	if _, err := joinRDT(filepath.Join(t.TempDir(), "none"), "id", &specs.LinuxIntelRdt{}); !errs.Is(err, errs.Unsupported) {
		t.Errorf("error is %v", err)
	}
	if err := LeaveRDT(nil); err != nil {
		t.Error(err)
	}
}
