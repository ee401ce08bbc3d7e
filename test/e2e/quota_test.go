//go:build root

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/internal/sys/quota"
	"github.com/skiff-containers/skiff/internal/sys/quota/quotatest"
	"github.com/skiff-containers/skiff/test/harness"
)

// Limits of writable layers, on file systems that have project quotas: those
// that the kernel has, and `make test-vm` both.
func TestStorageOpt(t *testing.T) {
	for _, kind := range quotatest.Types() {
		t.Run(kind, func(t *testing.T) {
			data := filepath.Join(quotatest.Mount(t, kind), "data")
			on := func(name string, test func(*testing.T, *harness.Daemon), args ...string) {
				t.Run(name, func(t *testing.T) {
					d := harness.StartIn(t, data, args...)
					defer d.Finish()
					d.Busybox()
					test(t, d)
				})
			}
			on("asked for", limitedLayers)
			on("of the daemon", defaultLimit, "--storage-opt", "overlay2.size=12M")
		})
	}
}

func limitedLayers(t *testing.T, d *harness.Daemon) {
	fill := func(mb string) harness.Result {
		return d.Try("", "docker", "exec", "small", "dd", "if=/dev/zero", "of=/data"+mb, "bs=1M", "count="+mb, "conv=fsync")
	}
	layer := func(name string) string {
		return filepath.Join(d.DataRoot, "containers", d.Run("docker", "inspect", "-f", "{{.Id}}", name), "upper")
	}
	usage := func(dir string) quota.Usage {
		t.Helper()
		u, err := new(quota.Projects).Usage(dir)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	full := func(what string) {
		t.Helper()
		if r := fill("20"); r.Code == 0 || !strings.Contains(r.Stderr, "No space left") && !strings.Contains(r.Stderr, "uota exceeded") {
			t.Errorf("%s: more than the limit: %d %s", what, r.Code, r.Stderr)
		}
		d.Run("docker", "exec", "small", "rm", "/data20")
	}
	const size = "{{.HostConfig.StorageOpt.size}}"

	d.Run("docker", "run", "-d", "--name", "small", "--storage-opt", "size=16m", "--restart", "always", "busybox", "sleep", "1000")
	d.Run("docker", "run", "-d", "--name", "plain", "busybox", "sleep", "1000")
	want(t, "inspect", d.Run("docker", "inspect", "-f", size, "small"), "16m")
	want(t, "df", d.Run("docker", "exec", "small", "sh", "-c", "df -k / | tail -n1 | awk '{print $2}'"), "16384")
	if r := fill("8"); r.Code != 0 {
		t.Errorf("half of the limit: %s", r.Stderr)
	}
	full("at first")
	d.Run("docker", "exec", "plain", "dd", "if=/dev/zero", "of=/data", "bs=1M", "count=20")
	if u := usage(layer("plain")); u.Project != 0 {
		t.Errorf("a container without a limit has project %d", u.Project)
	}
	before := usage(layer("small"))
	if before.Limit != 16<<20 || before.Used < 8<<20 {
		t.Errorf("%+v", before)
	}

	d.Kill()
	d.Launch()
	full("after a crash")
	d.Run("docker", "restart", "-t", "0", "small")
	full("after a restart")
	if u := usage(layer("small")); u.Project != before.Project || u.Limit != before.Limit {
		t.Errorf("%+v, %+v before", u, before)
	}
	// Made with --rm it is recorded elsewhere.
	want(t, "--rm", d.Run("docker", "run", "--rm", "--storage-opt", "size=16m", "busybox", "sh", "-c",
		"dd if=/dev/zero of=/x bs=1M count=20 2>/dev/null; echo $?"), "1")

	dir := layer("small")
	d.Run("docker", "rm", "-f", "small", "plain")
	if _, err := os.Stat(dir); err == nil {
		t.Error("the layer is still there")
	}
	d.Run("docker", "create", "--name", "next", "--storage-opt", "size=16m", "busybox")
	if u := usage(layer("next")); u.Limit != 16<<20 || u.Used > 1<<20 {
		t.Errorf("a new layer: %+v", u)
	}
	d.Run("docker", "rm", "next")
	wantRefused(t, d, "unknown option inodes", "create", "--storage-opt", "inodes=9", "busybox")
}

// defaultLimit is of a daemon that limits the layers of all.
func defaultLimit(t *testing.T, d *harness.Daemon) {
	d.Run("docker", "create", "--name", "ours", "busybox")
	d.Run("docker", "create", "--name", "own", "--storage-opt", "size=24M", "busybox")
	for name, want := range map[string]uint64{"ours": 12 << 20, "own": 24 << 20} {
		dir := filepath.Join(d.DataRoot, "containers", d.Run("docker", "inspect", "-f", "{{.Id}}", name), "upper")
		if u, err := new(quota.Projects).Usage(dir); err != nil || u.Limit != want {
			t.Errorf("%s: %+v %v", name, u, err)
		}
	}
	d.Run("docker", "rm", "ours", "own")
}

func wantRefused(t *testing.T, d *harness.Daemon, text string, args ...string) {
	t.Helper()
	if r := d.Try("", "docker", args...); r.Code == 0 || !strings.Contains(r.Stderr, text) {
		t.Errorf("%v: %d %s", args, r.Code, r.Stderr)
	}
}
