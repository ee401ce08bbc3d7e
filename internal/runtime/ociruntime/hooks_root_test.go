//go:build root

package ociruntime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// A poststart hook that fails stops the container; what comes after its end
// comes as ever.
func TestPoststartHookFails(t *testing.T) {
	c := newCLI(t)
	file := filepath.Join(t.TempDir(), "told")
	s := runtimetest.Spec("hooked", "sleep", "1000")
	s.Hooks = &specs.Hooks{
		Poststart: []specs.Hook{{Path: "/bin/false"}, {Path: "/bin/sh", Args: []string{"sh", "-c", "echo second >> " + file}}},
		Poststop:  []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo stopped >> " + file}}},
	}
	bundle := c.bundle(s)
	c.made("hooked", bundle)
	if out, err := c.try("start", "hooked"); err == nil || !strings.Contains(out, "poststart hook #0 (/bin/false)") {
		t.Errorf("start: %v, %s", err, out)
	}
	if st := stateOf(t, c.run("state", "hooked")); st.Status != specs.StateStopped {
		t.Errorf("it is %s", st.Status)
	}
	c.run("delete", "hooked")
	if out, err := c.try("run", "--bundle", bundle, "hooked"); err == nil || !strings.Contains(out, "poststart hook #0") {
		t.Errorf("run: %v, %s", err, out)
	}
	if left := c.run("list", "--quiet"); left != "" {
		t.Errorf("left: %s", left)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "stopped\nstopped\n" {
		t.Errorf("hooks printed %q, %v", text, err)
	}
}
