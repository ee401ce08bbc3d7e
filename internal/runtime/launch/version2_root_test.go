//go:build root

package launch

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// onVersion2 has this program see control groups of version 2 alone, which need
// not have controllers.
const onVersion2 = "SKIFF_TEST_V2"

func hideVersion1() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if pre, post, ok := strings.Cut(lines.Text(), " - "); ok && strings.HasPrefix(post, "cgroup ") {
			err = errors.Join(err, unix.Unmount(strings.Fields(pre)[4], unix.MNT_DETACH))
		}
	}
	return err
}

// version2 runs a test once more on version 2; it goes on there.
func version2(t *testing.T) bool {
	t.Helper()
	if os.Getenv(onVersion2) != "" || host(t).Cgroups.Unified() {
		return true
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || !strings.Contains(string(mounts), " - cgroup2 ") {
		t.Skip("control groups of version 2 are not mounted")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SKIFF_TEST_ISOLATED=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, onVersion2+"=1")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "no tests to run") {
		t.Errorf("on version 2: %v\n%s", err, out)
	}
	return false
}

// In a user namespace without a namespace of control groups a container is shown
// its own group, though it may not mount them.
func TestUserNamespaceWithHostsGroups(t *testing.T) {
	if !version2(t) {
		return
	}
	b := newBox(t, "test -e /sys/fs/cgroup/cgroup.procs && echo there; grep -c '^1$' /sys/fs/cgroup/cgroup.procs; touch /sys/fs/cgroup/x 2>/dev/null || echo ro; ls -d /sys/fs/cgroup/skiff* 2>/dev/null")
	inUserNS(b)
	without(b, specs.CgroupNamespace)
	b.prints("there\n1\nro\n")
}
