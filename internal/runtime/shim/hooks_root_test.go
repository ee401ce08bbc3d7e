//go:build root

package shim

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

func TestPoststopHooks(t *testing.T) {
	c, lower := shimOf(t), runtimetest.Rootfs(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	exits, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "told")
	l := runtimetest.Launch(t, lower, "hooked", "true")
	l.Spec.Annotations = map[string]string{"a": "b"}
	l.Spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{
		{Path: "/bin/false"}, // is only a warning
		{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >> " + file}},
	}}
	if _, err := c.Start(ctx, l); err != nil {
		t.Fatal(err)
	}
	<-exits
	if _, err := os.Stat(file); err == nil {
		t.Error("the hook ran before the container was deleted")
	}
	if err := c.Delete(ctx, l.ID); err != nil {
		t.Fatal(err)
	}
	want := `"id":"hooked","status":"stopped","bundle":"","annotations":{"a":"b"}}`
	if text := readFile(file); strings.Count(text, want) != 1 {
		t.Errorf("the hook was told %q", text)
	}
	// One that cannot be started has ended too.
	l = runtimetest.Launch(t, lower, "broken", "/nowhere")
	l.Spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >> " + file}}}}
	if _, err := c.Start(ctx, l); err == nil {
		t.Error("it started")
	}
	if text := readFile(file); strings.Count(text, `"id":"broken","status":"stopped"`) != 1 {
		t.Errorf("the hook was told %q", text)
	}
}
