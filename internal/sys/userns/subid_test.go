//go:build linux

package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func etc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func ids(triples ...uint32) (out []specs.LinuxIDMapping) {
	for i := 0; i < len(triples); i += 3 {
		out = append(out, specs.LinuxIDMapping{ContainerID: triples[i], HostID: triples[i+1], Size: triples[i+2]})
	}
	return out
}

func TestSubordinate(t *testing.T) {
	dir := etc(t, map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nnoname\n",
		"group":  "root:x:0:\nteam:x:500:ann\n",
		"subuid": "# ids\nann:100000:65536\n1000:300000:10\nbob:400000:65536\nzero:0:10\nempty:500000:0\n",
		"subgid": "ann:200000:65536\n500:600000:1000\nbob:400000:65536\nzero:9:10\nempty:500000:1\n",
	})
	for _, tt := range []struct {
		who  string
		want Map
		err  string
	}{
		{"ann", Map{ids(0, 100000, 65536, 65536, 300000, 10), ids(0, 200000, 65536)}, ""},
		{"1000", Map{ids(0, 100000, 65536, 65536, 300000, 10), ids(0, 200000, 65536)}, ""},
		{"bob", Map{ids(0, 400000, 65536), ids(0, 400000, 65536)}, ""},
		{"bob:team", Map{ids(0, 400000, 65536), ids(0, 600000, 1000)}, ""},
		{"bob:500", Map{ids(0, 400000, 65536), ids(0, 600000, 1000)}, ""},
		{"eve", Map{}, "no ids for eve"},
		{"empty", Map{}, "no ids for empty"},
		{"zero", Map{}, "ids from 0 on"},
		{"", Map{}, "want USER or USER:GROUP"},
		{"a:", Map{}, "want USER or USER:GROUP"},
		{"a:b:c", Map{}, "want USER or USER:GROUP"},
	} {
		m, err := Subordinate(dir, tt.who)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.who, err, tt.err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, m); err != nil || d != "" {
			t.Errorf("%q: %v\n%s", tt.who, err, d)
		}
	}
}

func TestSubordinateBadFiles(t *testing.T) {
	for _, text := range []string{"ann:1", "ann:x:1", "ann:1:x", ":1:1", "ann:-1:1", "ann:4294967295:2", "ann:99999999999:1"} {
		if m, err := Subordinate(etc(t, map[string]string{"subuid": text, "subgid": text}), "ann"); err == nil {
			t.Errorf("%q is taken: %v", text, m)
		}
	}
	var many strings.Builder
	for range maxExtents + 1 {
		many.WriteString("ann:1000:1\n")
	}
	if _, err := Subordinate(etc(t, map[string]string{"subuid": many.String()}), "ann"); err == nil {
		t.Error("more ranges than the kernel takes are taken")
	}
}

func TestSubordinateDefault(t *testing.T) {
	dir := etc(t, map[string]string{"subuid": "ann:100000:65536"}) // and its line does not end
	m, err := SubordinateDefault(dir)
	want := Map{ids(0, 165536, 65536), ids(0, 100000, 65536)}
	if d := cmp.Diff(want, m); err != nil || d != "" {
		t.Fatalf("%v\n%s", err, d)
	}
	again, err := SubordinateDefault(dir)
	if d := cmp.Diff(want, again); err != nil || d != "" {
		t.Errorf("the second time: %v\n%s", err, d)
	}
	data, err := os.ReadFile(filepath.Join(dir, "subuid"))
	if want := "ann:100000:65536\ndockremap:165536:65536\n"; err != nil || string(data) != want {
		t.Errorf("subuid is %q: %v", data, err)
	}
	full := etc(t, map[string]string{"subuid": "ann:4294900000:60000\n"})
	if _, err := SubordinateDefault(full); err == nil {
		t.Error("ids beyond the last one are allotted")
	}
}

func FuzzParseRanges(f *testing.F) {
	f.Add([]byte("ann:100000:65536\n# x\n\nbob:1:1"))
	f.Add([]byte("ann:4294967295:4294967295"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ranges, err := parseRanges(data)
		if err != nil {
			return
		}
		for _, r := range ranges {
			if r.owner == "" || r.start+r.count > 1<<32-1 {
				t.Errorf("%+v", r)
			}
		}
	})
}
