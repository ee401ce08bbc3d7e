package cdi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const file = `{"cdiVersion":"0.6.0","kind":"example.com/thing","devices":[
{"name":"one","containerEdits":{"env":["ONE=1"],"mounts":[{"hostPath":"/etc","containerPath":"/thing","options":["ro","bind"]}]}},
{"name":"two","containerEdits":{"env":["TWO=2"]}}],"containerEdits":{"env":["ALL=0"]}}`

func TestDevices(t *testing.T) {
	dir := t.TempDir()
	d := New([]string{dir})
	if got := d.List(); len(got) != 0 {
		t.Errorf("before: %v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "thing.json"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "broken.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"example.com/thing=one", "example.com/thing=two"}, d.List()); diff != "" {
		t.Error(diff)
	}
	s := &specs.Spec{Process: &specs.Process{Env: []string{"A=1"}}}
	if err := d.Inject(s, []string{"example.com/thing=one"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"A=1", "ALL=0", "ONE=1"}, s.Process.Env); diff != "" {
		t.Error(diff)
	}
	if len(s.Mounts) != 1 || s.Mounts[0].Destination != "/thing" {
		t.Errorf("mounts %+v", s.Mounts)
	}
	err := d.Inject(s, []string{"example.com/thing=none"})
	if err == nil || !strings.Contains(err.Error(), "unresolvable CDI devices example.com/thing=none") {
		t.Errorf("error %v", err)
	}
}
