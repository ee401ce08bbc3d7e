package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestForeignDataRoot(t *testing.T) {
	dir := t.TempDir()
	if err := checkDataRoot(dir); err != nil {
		t.Errorf("empty: %v", err)
	}
	if err := checkDataRoot(filepath.Join(dir, "none")); err != nil {
		t.Errorf("missing: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "image", "overlay2"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkDataRoot(dir); err == nil || !strings.Contains(err.Error(), "holds what dockerd keeps (image)") {
		t.Errorf("dockerd's: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkDataRoot(dir); err != nil {
		t.Errorf("ours, with something more: %v", err)
	}
}
