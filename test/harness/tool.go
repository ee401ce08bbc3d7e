//go:build root

package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Tool returns the executable of a client that scripts/clients.sh has built, by
// its name in test/clients/tools.txt. Where it is not there the test is
// skipped: these programs take minutes to build, and the network of the tests
// reaches nothing.
func Tool(t testing.TB, name string) string {
	t.Helper()
	list, err := os.ReadFile(filepath.Join("..", "clients", "tools.txt"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("no directory that keeps %s: %v", name, err)
	}
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != name {
			continue
		}
		bin := filepath.Join(cache, "skiff-tools", f[0]+"-"+f[2])
		if _, err := os.Stat(bin); err != nil {
			t.Skipf("%s %s is not built: scripts/clients.sh does it", f[0], f[2])
		}
		return bin
	}
	t.Fatalf("tools.txt has no %s", name)
	return ""
}
