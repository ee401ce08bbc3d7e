package build

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// TestGuardTakesOver: what a killed daemon wrote is with the kernel, not on the
// disk. The next one must sync before it lets such a layer count, and says that
// the state is good only then.
func TestGuardTakesOver(t *testing.T) {
	root, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	open := func() (*guard, bool) {
		t.Helper()
		g, lost, err := newGuard(root, data, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return g, lost
	}
	marker := filepath.Join(root, "building")
	marked := func() bool { _, err := os.Stat(marker); return err == nil }

	killed, lost := open()
	if err := killed.settle(); lost || err != nil {
		t.Fatalf("nothing was written: lost %v, %v", lost, err)
	}
	if _, err := killed.enter(); err != nil {
		t.Fatal(err)
	}
	killed.touch()

	g, lost := open()
	if lost || !marked() {
		t.Errorf("lost %v, marked %v", lost, marked())
	}
	if err := g.settle(); err == nil { // there is nothing to sync yet: it tried to
		t.Error("what the killed daemon wrote was not synced")
	}
	if err := g.rest(); err == nil || !marked() {
		t.Errorf("rest without a sync: %v, marked %v", err, marked())
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	flushed := false
	g.flush = func() error { flushed = true; return nil }
	if err := g.settle(); err != nil || !marked() {
		t.Errorf("%v, marked %v", err, marked())
	}
	if err := g.rest(); err != nil || !flushed || marked() {
		t.Errorf("%v, flushed %v, marked %v", err, flushed, marked())
	}

	// Of another boot nothing is trusted, and nothing is left to sync.
	if err := os.WriteFile(marker, []byte("another boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if g, lost = open(); !lost {
		t.Error("a crash of the machine was not seen")
	}
	if err := g.forget(); err != nil || marked() {
		t.Errorf("%v, marked %v", err, marked())
	}
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	if err := g.settle(); err != nil {
		t.Error(err)
	}
}
