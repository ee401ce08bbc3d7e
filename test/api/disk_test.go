//go:build root

package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// blockDevice finds one that limits may name; nothing reads it.
func blockDevice(t *testing.T) string {
	t.Helper()
	names, _ := filepath.Glob("/sys/block/*")
	for _, n := range names {
		path := "/dev/" + filepath.Base(n)
		size, _ := os.ReadFile(n + "/size")
		if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeDevice != 0 && strings.TrimSpace(string(size)) != "0" {
			return path
		}
	}
	t.Skip("this machine has no block device")
	return ""
}
