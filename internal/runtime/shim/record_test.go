//go:build linux

package shim

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzRecords loads what may be in a run directory: it is refused or it is
// stored and loaded again as it is.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"id":"x","pid":1,"ticks":2,"startedAt":"2026-01-02T03:04:05Z","io":{"tty":true},"cgroup":"/x","exit":{"id":"x","code":3}}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "p-"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		recs, err := loadRecords(dir)
		if err != nil || recs[0].ExecID != "" {
			return
		}
		if err := recs[0].save(dir); err != nil {
			return // a time that JSON cannot say
		}
		again, err := loadRecords(dir)
		if err != nil || len(again) != 1 {
			t.Fatalf("saved and lost: %v", err)
		}
		a, err := json.Marshal(recs[0])
		if err != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(again[0]); err != nil || string(a) != string(b) {
			t.Errorf("%s became %s, %v", a, b, err)
		}
	})
}

// FuzzHandover parses what another program may have left.
func FuzzHandover(f *testing.F) {
	f.Add([]byte(`{"format":1,"lock":3,"listener":4,"asker":-1,"links":[5],"clients":[{"fd":6,"id":"x","output":"aGk="}],` +
		`"containers":[{"id":"x","mounts":-1,"processes":[{"pidfd":7,"child":true,"stdin":8,"output":[8]}]}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHandover(data)
		if err != nil {
			return
		}
		for _, fd := range h.descriptors() {
			if fd < 3 {
				t.Errorf("descriptor %d", fd)
			}
		}
	})
}
