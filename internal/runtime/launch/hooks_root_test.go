//go:build root

package launch

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hook writes who it is, where, and what it was told, to a file of dir.
func hook(dir, name, more string) specs.Hook {
	script := `{ cat; echo; echo "$0 $1"; readlink /proc/self/ns/net; readlink /proc/self/ns/mnt; pwd; echo "env: $(env | grep -v -e PATH= -e PWD= -e SHLVL= -e _= | tr '\n' ' ')"; } > ` + filepath.Join(dir, name) + "; " + more
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script, "zero", name}, Env: []string{"HOOK=" + name}}
}

type told struct {
	state             specs.State
	args, net, mounts string
	pwd, env          string
}

func readHook(t *testing.T, dir, name string) (h told) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) < 6 {
		t.Fatalf("%s: %q", name, data)
	}
	if err := json.Unmarshal([]byte(lines[0]), &h.state); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	h.args, h.net, h.mounts, h.pwd, h.env = lines[1], lines[2], lines[3], lines[4], lines[5]
	return h
}

func link(t *testing.T, path string) string {
	t.Helper()
	l, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHooks(t *testing.T) {
	for _, gate := range []bool{false, true} {
		dir := t.TempDir()
		b, path := gated(t, "sleep 1000")
		if !gate {
			b.o.Gate = nil
		}
		b.o.Bundle = dir
		b.l.Spec.Annotations = map[string]string{"a": "b"}
		b.l.Spec.Hooks = &specs.Hooks{
			Prestart:        []specs.Hook{hook(dir, "prestart", "")}, //nolint:staticcheck // deprecated, and still to be honoured
			CreateRuntime:   []specs.Hook{hook(dir, "one", ""), hook(dir, "two", "test -e "+dir+"/prestart -a -e "+dir+"/one")},
			CreateContainer: []specs.Hook{hook(dir, "createContainer", "test -e "+dir+"/two")},
			StartContainer:  []specs.Hook{hook("/tmp", "startContainer", "")},
			Poststart:       []specs.Hook{hook(dir, "poststart", "")},
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		if gate {
			if _, err := os.Stat(filepath.Join(b.l.Rootfs.Upper, "tmp/startContainer")); err == nil {
				t.Error("startContainer ran before the start")
			}
			if err := Release(t.Context(), path, ""); err != nil {
				t.Fatal(err)
			}
		}
		host := link(t, "/proc/self/ns/net")
		box := link(t, "/proc/"+itoa(b.child.PID)+"/ns/net")
		hostMounts, boxMounts := link(t, "/proc/self/ns/mnt"), link(t, "/proc/"+itoa(b.child.PID)+"/ns/mnt")
		kinds := []struct {
			dir, name   string
			net, mounts string
			pid         int
			status      specs.ContainerState
			pwd         string
		}{
			{dir, "prestart", host, hostMounts, b.child.PID, specs.StateCreating, dir},
			{dir, "two", host, hostMounts, b.child.PID, specs.StateCreating, dir},
			{dir, "createContainer", box, boxMounts, 1, specs.StateCreating, "/"},
			{filepath.Join(b.l.Rootfs.Upper, "tmp"), "startContainer", box, boxMounts, 1, specs.StateCreated, "/"},
			{dir, "poststart", host, hostMounts, b.child.PID, specs.StateRunning, dir},
		}
		for _, k := range kinds {
			if gate && k.name == "poststart" { // is up to who released it
				if _, err := os.Stat(filepath.Join(dir, k.name)); err == nil {
					t.Error("poststart ran")
				}
				continue
			}
			h := readHook(t, k.dir, k.name)
			want := specs.State{Version: specs.Version, ID: b.l.ID, Status: k.status, Pid: k.pid, Bundle: dir, Annotations: map[string]string{"a": "b"}}
			if h.state.Version != want.Version || h.state.ID != want.ID || h.state.Status != want.Status || h.state.Pid != want.Pid || h.state.Bundle != want.Bundle || h.state.Annotations["a"] != "b" {
				t.Errorf("%s was told %+v, want %+v", k.name, h.state, want)
			}
			if h.args != "zero "+k.name || h.net != k.net || h.mounts != k.mounts || h.pwd != k.pwd || h.env != "env: HOOK="+k.name+" " {
				t.Errorf("%s: %+v", k.name, h)
			}
		}
	}
}

func TestHookFailures(t *testing.T) {
	second := 1
	bad := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo broken; exit 3"}}
	for kind, h := range map[string]*specs.Hooks{
		"prestart":        {Prestart: []specs.Hook{bad}}, //nolint:staticcheck // deprecated, and still to be honoured
		"createRuntime":   {CreateRuntime: []specs.Hook{bad}},
		"createContainer": {CreateContainer: []specs.Hook{bad}},
		"startContainer":  {StartContainer: []specs.Hook{bad}},
		"poststart":       {Poststart: []specs.Hook{bad}},
	} {
		b := newBox(t, "true")
		b.l.Spec.Hooks = h
		b.fails("error running " + kind + " hook #0 (/bin/sh): exit status 3: broken")
		if b.out.Len() > 0 {
			t.Errorf("%s: the command ran", kind)
		}
	}
	slow := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 100"}, Timeout: &second}
	b := newBox(t, "true")
	b.l.Spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{slow}}
	b.fails("longer than 1 s")
	b = newBox(t, "true")
	b.l.Spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{slow}}
	b.fails("longer than 1 s")
	b = newBox(t, "true")
	b.l.Spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "sh"}}}
	b.fails("not absolute")
	zero := 0
	b = newBox(t, "true")
	b.l.Spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/sh", Timeout: &zero}}}
	b.fails("not positive")
}
