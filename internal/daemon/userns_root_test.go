//go:build root

package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// What a step is given from a file system in memory belongs to its root, also
// where the kernel cannot map owners there.
func TestStepsGetWhatIsInMemory(t *testing.T) {
	disk := t.TempDir()
	memory, err := os.MkdirTemp("/dev/shm", "skiff-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	secret := filepath.Join(memory, "secret")
	if err := os.WriteFile(secret, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	users := &userns.Map{UIDs: ids, GIDs: ids}
	for _, maps := range []bool{true, false} {
		r := &build.Run{Spec: &specs.Spec{Linux: &specs.Linux{}, Mounts: []specs.Mount{
			{Destination: "/run/secrets/a", Type: "bind", Source: secret, Options: []string{"ro"}},
			{Destination: "/cache", Type: "bind", Source: disk, Options: []string{"rbind"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		}}}
		s, err := steps{users, maps}.remapped(r)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{maps, true, false} {
			if got := slices.Contains(s.Mounts[i].Options, "idmap"); got != want {
				t.Errorf("maps %v: %s is mapped: %v", maps, s.Mounts[i].Destination, got)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(secret, &st); err != nil || (st.Uid == 100000) == maps {
			t.Errorf("maps %v: the secret is %d's: %v", maps, st.Uid, err)
		}
		if len(r.Spec.Linux.Namespaces) > 0 || slices.Contains(r.Spec.Mounts[1].Options, "idmap") {
			t.Error("the step's own specification was changed")
		}
	}
	r := &build.Run{Spec: &specs.Spec{Linux: &specs.Linux{}}, Insecure: true}
	if s, err := (steps{users, true}).remapped(r); err != nil || s != r.Spec {
		t.Errorf("a step that may do all is mapped: %v", err)
	}
}
