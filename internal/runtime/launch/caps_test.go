//go:build linux

package launch

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestUngrantable(t *testing.T) {
	c := &specs.LinuxCapabilities{Bounding: []string{"CAP_FLY", "CAP_CHOWN"}, Effective: []string{"cap_chown", "CAP_FLY", "CHOWN"}}
	if got := Ungrantable(c, true); !slices.Equal(got, []string{"CAP_FLY", "CHOWN"}) {
		t.Errorf("%q", got)
	}
	if got := parseCaps(c); got.bounding&1 != bounding()&1 || got.bounding&^1 != 0 {
		t.Errorf("%+v", got)
	}
	if Ungrantable(nil, false) != nil {
		t.Error("of none some")
	}
	have, known := bounding(), KnownCapabilities()
	for i, n := range known {
		lacks := len(Ungrantable(&specs.LinuxCapabilities{Ambient: []string{n}}, false)) > 0
		if lacks != (have&(1<<i) == 0) {
			t.Errorf("%s: cannot be given: %v", n, lacks)
		}
	}
}
