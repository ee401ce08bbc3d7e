//go:build root

package e2e

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/sys/quota"
	"github.com/skiff-containers/skiff/internal/sys/quota/quotatest"
	"github.com/skiff-containers/skiff/test/harness"
)

// mounted tells whether something is mounted at a volume's place on the host.
func mounted(t *testing.T, d *harness.Daemon, volume string) bool {
	t.Helper()
	at := filepath.Join(d.DataRoot, "volumes", volume, "_data")
	for _, line := range lines("/proc/self/mountinfo") {
		if strings.Fields(line)[4] == at {
			return true
		}
	}
	return false
}

func wantMounted(t *testing.T, d *harness.Daemon, when, volume string, want bool) {
	t.Helper()
	if got := mounted(t, d, volume); got != want {
		t.Errorf("%s: %s is mounted: %v", when, volume, got)
	}
}

func memoryVolume(d *harness.Daemon, name string) {
	d.Run("docker", "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=8m", name)
}

// copied returns the files that docker cp takes from a container, by name.
func copied(t *testing.T, d *harness.Daemon, from string) map[string]string {
	t.Helper()
	r := d.Try("", "docker", "cp", from, "-")
	if r.Code != 0 {
		t.Errorf("docker cp from %s: %s", from, r.Stderr)
	}
	out := map[string]string{}
	for in := tar.NewReader(strings.NewReader(r.Stdout)); ; {
		hdr, err := in.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out[hdr.Name] = string(data)
	}
}

func copyIn(t *testing.T, d *harness.Daemon, data, to string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	d.Run("docker", "cp", file, to)
}

// bindVolume makes a volume of a directory.
func bindVolume(t *testing.T, d *harness.Daemon, name string) (device string) {
	t.Helper()
	device = t.TempDir()
	d.Run("docker", "volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device="+device, name)
	return device
}

// A volume that is a file system of its own is one for all who use it, and its
// place on the host shows it.
func TestVolumeIsMountedOnce(t *testing.T) {
	d := daemon(t)
	memoryVolume(d, "tm")
	sleeper := func(name string, args ...string) {
		d.Run("docker", append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sleep", "1000")...)
	}
	wantMounted(t, d, "unused", "tm", false)
	sleeper("one", "-v", "tm:/v")
	sleeper("two", "-v", "tm:/v:ro", "-v", "tm:/again")
	d.Run("docker", "exec", "one", "sh", "-c", "mkdir /v/sub; echo shared >/v/sub/f")
	want(t, "in the other", d.Run("docker", "exec", "two", "cat", "/v/sub/f", "/again/sub/f"), "shared\nshared")
	want(t, "read-only", fmt.Sprint(d.Try("", "docker", "exec", "two", "touch", "/v/x").Code), "1")
	place := d.Run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", "tm")
	if b, err := os.ReadFile(filepath.Join(place, "sub/f")); err != nil || string(b) != "shared\n" {
		t.Errorf("on the host: %q %v", b, err)
	}
	want(t, "a part of it", d.Run("docker", "run", "--rm", "--mount", "type=volume,src=tm,dst=/p,volume-subpath=sub", "busybox", "cat", "/p/f"), "shared")
	want(t, "from another", d.Run("docker", "run", "--rm", "--volumes-from", "one", "busybox", "cat", "/v/sub/f"), "shared")
	want(t, "its size", d.Run("docker", "exec", "one", "sh", "-c", "df -k /v | tail -n1 | awk '{print $2}'"), "8192")

	d.Run("docker", "rm", "-f", "one")
	want(t, "after one's end", d.Run("docker", "exec", "two", "cat", "/v/sub/f"), "shared")
	if r := d.Try("", "docker", "volume", "rm", "tm"); r.Code == 0 || !strings.Contains(r.Stderr, "volume is in use") {
		t.Errorf("removed in use: %d %s", r.Code, r.Stderr)
	}
	d.Run("docker", "stop", "-t", "0", "two")
	wantMounted(t, d, "stopped", "tm", false)
	d.Run("docker", "start", "two")
	want(t, "memory was given back", d.Run("docker", "exec", "two", "ls", "/v"), "")
	d.Run("docker", "rm", "-f", "two")
	wantMounted(t, d, "at the end", "tm", false)
	want(t, "prune leaves it", d.Run("docker", "volume", "prune", "-af"), "Total reclaimed space: 0B")
	d.Run("docker", "volume", "rm", "tm")
}

// Compose's volumes of directories, as driver_opts make them.
func TestVolumeOfADirectory(t *testing.T) {
	d := daemon(t)
	device := bindVolume(t, d, "conf")
	want(t, "filled", d.Run("docker", "run", "--name", "first", "-v", "conf:/etc", "busybox", "cat", "/etc/group"), "root:x:0:\nadm:x:4:root\nwww:x:33:\nextra:x:50:www\nnogroup:x:65534:")
	if _, err := os.Stat(filepath.Join(device, "passwd")); err != nil {
		t.Errorf("the device: %v", err)
	}
	if err := os.Remove(filepath.Join(device, "group")); err != nil {
		t.Fatal(err)
	}
	want(t, "filled once", fmt.Sprint(d.Try("", "docker", "run", "--rm", "-v", "conf:/etc", "busybox", "cat", "/etc/group").Code), "1")

	// To and from one that does not run.
	copyIn(t, d, "sent\n", "first:/etc/sent")
	if b, err := os.ReadFile(filepath.Join(device, "sent")); err != nil || string(b) != "sent\n" {
		t.Errorf("docker cp to a stopped container: %q %v", b, err)
	}
	want(t, "docker cp from it", copied(t, d, "first:/etc/sent")["sent"], "sent\n")
	if ents, err := os.ReadDir(filepath.Join(d.DataRoot, "volumes/conf/_data")); err != nil || len(ents) > 0 {
		t.Errorf("below the mount point: %v %v", ents, err)
	}
	wantMounted(t, d, "after the copies", "conf", false)

	d.Run("docker", "rm", "first")
	d.Run("docker", "volume", "rm", "conf")
	if _, err := os.Stat(filepath.Join(device, "sent")); err != nil {
		t.Errorf("the volume's removal took the device's files: %v", err)
	}
	want(t, "not in docker's df", d.Run("docker", "system", "df", "--format", "{{.Type}} {{.TotalCount}}"), "Images 1\nContainers 0\nLocal Volumes 0\nBuild Cache 0")
}

func TestVolumeCannotBeMounted(t *testing.T) {
	d := daemon(t)
	place := func(name string) string { return filepath.Join(d.DataRoot, "volumes", name, "_data") }
	d.Run("docker", "volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no/such", "gone")
	d.Run("docker", "volume", "create", "-o", "type=nosuchfs", "-o", "o=username=me,password=pw12", "-o", "device=//192.0.2.1/x", "secret")
	d.Run("docker", "volume", "create", "-o", "type=nfs", "-o", "o=addr=nosuch.invalid", "-o", "device=:/x", "nas")
	memoryVolume(d, "good")
	for name, text := range map[string]string{
		"gone":   "failed to mount local volume: mount /no/such:" + place("gone") + ", flags: 0x1000: no such file or directory",
		"secret": "failed to mount local volume: mount //192.0.2.1/x:" + place("secret") + ", data: username=me,password=********: no such device",
		"nas":    "error resolving passed in network volume address: lookup nosuch.invalid",
	} {
		d.Run("docker", "create", "--name", "box", "-v", "good:/g", "-v", name+":/v", "busybox", "true")
		r := d.Try("", "docker", "start", "box")
		if r.Code == 0 || !strings.Contains(r.Stderr, "error while mounting volume '"+place(name)+"': "+text) {
			t.Errorf("%s: %d %s", name, r.Code, r.Stderr)
		}
		if r := d.Try("", "docker", "cp", "box:/v", "-"); r.Code == 0 || !strings.Contains(r.Stderr, text) {
			t.Errorf("%s: cp: %d %s", name, r.Code, r.Stderr)
		}
		for _, v := range []string{name, "good"} {
			wantMounted(t, d, name, v, false)
		}
		d.Run("docker", "rm", "box")
	}
	if strings.Contains(d.LogTail(), "pw12") {
		t.Error("the password is in the log")
	}
	wantRefused(t, d, `create x1: missing required option: "device"`, "volume", "create", "-o", "type=tmpfs", "x1")
	wantRefused(t, d, "create x1: invalid size: 'big'", "volume", "create", "-o", "size=big", "x1")
}

// Daemons come and go; what is mounted is what live containers use.
func TestVolumesOutliveADaemon(t *testing.T) {
	d := daemon(t)
	memoryVolume(d, "tm")
	memoryVolume(d, "brief")
	device := bindVolume(t, d, "dir")
	d.Run("docker", "run", "-d", "--name", "one", "-v", "tm:/v", "-v", "dir:/d", "busybox", "sleep", "1000")
	d.Run("docker", "run", "-d", "--rm", "--name", "two", "-v", "tm:/v", "busybox", "sleep", "1000")
	d.Run("docker", "run", "-d", "--name", "ends", "-v", "brief:/v", "-v", "tm:/w", "busybox", "sleep", "1")
	d.Run("docker", "exec", "one", "sh", "-c", "echo kept >/v/f; echo there >/d/f")

	d.Kill()
	time.Sleep(1500 * time.Millisecond) // one ends while nobody watches
	d.Launch()
	harness.Eventually(t, 5*time.Second, func() string {
		if mounted(t, d, "brief") {
			return "what nobody uses is mounted still"
		}
		return ""
	})
	want(t, "the old and a new one", d.Run("docker", "run", "--rm", "-v", "tm:/v", "-v", "dir:/d", "busybox", "sh", "-c", "cat /v/f /d/f; echo new >/v/g"), "kept\nthere")
	want(t, "in the old ones", d.Run("docker", "exec", "one", "cat", "/v/g")+d.Run("docker", "exec", "two", "cat", "/v/g"), "newnew")

	copyIn(t, d, "in", "one:/v/in")
	want(t, "docker cp to a running one", d.Run("docker", "exec", "two", "cat", "/v/in"), "in")
	want(t, "docker cp from it", copied(t, d, "one:/v/f")["f"], "kept\n")

	d.Terminate()
	wantMounted(t, d, "without a daemon", "tm", true)
	d.Launch()
	d.Run("docker", "rm", "-f", "one", "ends")
	wantMounted(t, d, "with one left", "tm", true)
	wantMounted(t, d, "with none left", "dir", false)
	d.Run("docker", "stop", "-t", "0", "two")
	wantMounted(t, d, "with none left", "tm", false)
	d.Run("docker", "volume", "rm", "tm", "brief", "dir")
	if b, err := os.ReadFile(filepath.Join(device, "f")); err != nil || string(b) != "there\n" {
		t.Errorf("the device: %q %v", b, err)
	}
}

// The daemon is killed at many moments while volumes are mounted and unmounted.
func TestKilledOverVolumes(t *testing.T) {
	d := daemon(t)
	memoryVolume(d, "tm")
	device := bindVolume(t, d, "dir")
	if err := os.WriteFile(filepath.Join(device, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Run("docker", "create", "--name", "idle", "-v", "dir:/d", "-v", "tm:/v", "busybox")
	for i := range 8 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for j := range 4 {
				name := fmt.Sprintf("k%d-%d", i, j)
				d.Try("", "docker", "run", "-d", "--name", name, "-v", "tm:/v", "-v", "dir:/d", "busybox", "sleep", "1000")
				d.Try("", "docker", "cp", "idle:/d/f", "-")
				d.Try("", "docker", "rm", "-fv", name)
			}
		}()
		time.Sleep(time.Duration(60+i*45) * time.Millisecond)
		d.Kill()
		<-done
		d.Launch()
		live := d.Run("docker", "ps", "-q")
		if live == "" {
			wantMounted(t, d, "with nobody", "tm", false)
			wantMounted(t, d, "with nobody", "dir", false)
			continue
		}
		for _, id := range strings.Fields(live) {
			want(t, "in the living", d.Run("docker", "exec", id, "ls", "/d"), "f")
		}
		wantMounted(t, d, "with one", "tm", true)
		d.Run("docker", append([]string{"rm", "-fv"}, strings.Fields(live)...)...)
	}
	for _, id := range strings.Fields(d.Run("docker", "ps", "-aq")) {
		d.Run("docker", "rm", "-fv", id)
	}
	wantMounted(t, d, "at the end", "tm", false)
	wantMounted(t, d, "at the end", "dir", false)
	d.Run("docker", "volume", "rm", "tm", "dir")
	if _, err := os.Stat(filepath.Join(device, "f")); err != nil {
		t.Error(err)
	}
}

// Limits of volumes, where the file system has project quotas; see TestStorageOpt.
func TestVolumeSize(t *testing.T) {
	for _, kind := range quotatest.Types() {
		t.Run(kind, func(t *testing.T) {
			d := harness.StartIn(t, filepath.Join(quotatest.Mount(t, kind), "data"))
			defer d.Finish()
			d.Busybox()
			limitedVolumes(t, d)
		})
	}
	d := daemon(t)
	if new(quota.Projects).Check(d.DataRoot) != nil {
		wantRefused(t, d, "create big: quota size requested but no quota support", "volume", "create", "-o", "size=1G", "big")
	}
}

func limitedVolumes(t *testing.T, d *harness.Daemon) {
	usage := func(dir string) quota.Usage {
		t.Helper()
		u, err := new(quota.Projects).Usage(filepath.Join(d.DataRoot, dir))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	d.Run("docker", "volume", "create", "-o", "size=16m", "small")
	d.Run("docker", "volume", "create", "plain")
	d.Run("docker", "run", "-d", "--name", "box", "--storage-opt", "size=16m", "-v", "small:/s", "-v", "plain:/p", "busybox", "sleep", "1000")
	write := func(file, mb string) harness.Result {
		return d.Try("", "docker", "exec", "box", "dd", "if=/dev/zero", "of="+file, "bs=1M", "count="+mb, "conv=fsync")
	}
	full := func(when string) {
		t.Helper()
		if r := write("/s/more", "20"); r.Code == 0 || !strings.Contains(r.Stderr, "No space left") && !strings.Contains(r.Stderr, "uota exceeded") {
			t.Errorf("%s: more than the limit: %d %s", when, r.Code, r.Stderr)
		}
		d.Run("docker", "exec", "box", "rm", "/s/more")
	}
	for _, file := range []string{"/s/half", "/half"} {
		if r := write(file, "8"); r.Code != 0 {
			t.Errorf("half of the limit: %s", r.Stderr)
		}
	}
	full("at first")
	if r := write("/p/f", "20"); r.Code != 0 {
		t.Errorf("without a limit: %s", r.Stderr)
	}
	vol, layer := usage("volumes/small/_data"), usage("containers/"+d.Run("docker", "inspect", "-f", "{{.Id}}", "box")+"/upper")
	if vol.Limit != 16<<20 || layer.Limit != 16<<20 || vol.Project == layer.Project {
		t.Errorf("volume %+v, layer %+v", vol, layer)
	}
	if u := usage("volumes/plain/_data"); u.Project != 0 {
		t.Errorf("a volume without a limit has project %d", u.Project)
	}
	d.Kill()
	d.Launch()
	full("after a crash")
	d.Run("docker", "restart", "-t", "0", "box")
	full("after a restart")
	d.Run("docker", "rm", "-f", "box")
	d.Run("docker", "volume", "rm", "small", "plain")
	d.Run("docker", "volume", "create", "-o", "size=24m", "next")
	if u := usage("volumes/next/_data"); u.Limit != 24<<20 || u.Used > 1<<20 {
		t.Errorf("a new one: %+v", u)
	}
	d.Run("docker", "volume", "rm", "next")
}

// Who looks into a container that was never started sees its volumes filled, as
// where docker fills them when it makes the container.
func TestCopyFromCreated(t *testing.T) {
	d := daemon(t)
	device := bindVolume(t, d, "dir")
	d.Run("docker", "create", "--name", "made", "-v", "fresh:/etc", "-v", "dir:/var", "busybox", "cat", "/etc/passwd", "/etc/new")
	if got := copied(t, d, "made:/etc"); !strings.Contains(got["etc/passwd"], "root:x:0:0") {
		t.Errorf("a plain volume: %v", got)
	}
	copyIn(t, d, "new\n", "made:/etc/new")
	if out := d.Run("docker", "start", "-a", "made"); !strings.Contains(out, "root:x:0:0") || !strings.HasSuffix(out, "\nnew") {
		t.Errorf("after the start: %s", out)
	}
	if _, err := os.Stat(filepath.Join(device, "www")); err != nil {
		t.Errorf("the device: %v", err)
	}
}
