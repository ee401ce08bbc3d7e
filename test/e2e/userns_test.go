//go:build root

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

const (
	remappedRoot = 1000000
	usersFlag    = "--userns-remap=dockremap"
)

func remapped(t *testing.T) *harness.Daemon {
	t.Helper()
	harness.Subordinate(t, fmt.Sprintf("dockremap:%d:65536\n", remappedRoot))
	d := harness.Start(t, usersFlag)
	d.Busybox()
	return d
}

func TestUsernsRemap(t *testing.T) {
	d := remapped(t)
	for name, test := range map[string]func(*testing.T, *harness.Daemon){
		"ids": remapIDs, "files": remapFiles, "copies": remapCopies, "networks": remapNetworks,
		"shared namespaces": remapShared, "refusals": remapRefusals, "builds": remapBuilds, "builds on networks": buildOnNetwork,
		"images as mounts": remapImageMounts, "mounted volumes": remapMountedVolumes,
	} {
		t.Run(name, func(t *testing.T) { test(t, d) })
	}
	t.Run("crash", func(t *testing.T) { remapCrash(t, d) })
}

func remapIDs(t *testing.T, d *harness.Daemon) {
	want(t, "map", d.Run("docker", "run", "--rm", "busybox", "sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '"),
		fmt.Sprintf("0 %d 65536\n 0 %[1]d 65536", remappedRoot))
	want(t, "owners", d.Run("docker", "run", "--rm", "--init", "-u", "www", "busybox", "sh", "-c", "id -u; id -G; stat -c %u /bin/busybox /dev/null /etc/hosts /proc/1"), "33\n33 50\n0\n0\n0\n33")
	d.Run("docker", "run", "-d", "--name", "who", "busybox", "sleep", "1000")
	defer d.Run("docker", "rm", "-f", "who")
	st, err := os.Stat("/proc/" + d.Run("docker", "inspect", "-f", "{{.State.Pid}}", "who"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != remappedRoot {
		t.Errorf("root of the container is %d on the host", uid)
	}
	want(t, "exec", d.Run("docker", "exec", "-u", "33:50", "who", "id"), "uid=33(www) gid=50(extra) groups=50(extra)")
	if got := d.Run("docker", "info", "-f", "{{.SecurityOptions}}"); !strings.Contains(got, "name=userns") {
		t.Errorf("info: %s", got)
	}
	want(t, "host's", d.Run("docker", "run", "--rm", "--userns", "host", "--privileged", "--pid", "host", "busybox", "sh", "-c", "cat /proc/self/uid_map | tr -s ' '"), "0 0 4294967295")
	if r := d.Try("", "docker", "run", "--rm", "-u", "70000", "busybox", "true"); r.Code == 0 {
		t.Error("a user that is not mapped runs")
	}
}

// Layers and volumes hold the owners that containers see, whatever these are on
// the host: they are the same with another map, or none.
func remapFiles(t *testing.T, d *harness.Daemon) {
	d.Run("docker", "volume", "create", "vol")
	host := t.TempDir()
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	want(t, "mounts", d.Run("docker", "run", "--name", "maker", "-v", "vol:/home", "-v", host+":/host", "--tmpfs", "/t", "--shm-size", "1m", "busybox", "sh", "-c", `
touch /made /home/kept /t/x /dev/shm/x && chown 33:50 /made /home/kept && stat -c %u:%g /made /home/kept
touch /host/x 2>/dev/null || echo refused; stat -c %u /host
echo 10.1.1.1 added >> /etc/hosts && grep -c added /etc/hosts
chmod 666 /dev/null 2>/dev/null; mknod /disk b 8 0 2>/dev/null || echo no device`), "33:50\n33:50\nrefused\n65534\n1\nno device")
	want(t, "diff", d.Run("docker", "diff", "maker"), "A /host\nA /made\nA /t")
	d.Run("docker", "commit", "maker", "made")
	for _, userns := range []string{"", "host"} {
		want(t, "commit", d.Run("docker", "run", "--rm", "--userns="+userns, "-v", "vol:/home", "made", "stat", "-c", "%u:%g", "/made", "/home/kept", "/home"), "33:50\n33:50\n0:0")
	}
	want(t, "read-only", d.Run("docker", "run", "--rm", "--read-only", "-v", "vol:/home:ro", "busybox", "sh", "-c", "touch /x 2>/dev/null || touch /home/x 2>/dev/null || echo refused"), "refused")
	d.Run("docker", "rm", "maker")
	d.Run("docker", "volume", "rm", "vol")
	d.Run("docker", "rmi", "made")
}

// Volumes with options of mount are the host's; what is in memory is nobody's else.
func remapMountedVolumes(t *testing.T, d *harness.Daemon) {
	device := bindVolume(t, d, "dir")
	memoryVolume(d, "tm")
	want(t, "filled and used", d.Run("docker", "run", "--name", "one", "-v", "dir:/var", "-v", "tm:/v", "busybox", "sh", "-c",
		"touch /var/new /v/new && chown 33:50 /var/new /v/new && stat -c %u:%g /var /var/www /var/new /v/new"), "0:0\n0:0\n33:50\n33:50")
	for name, uid := range map[string]uint32{"": remappedRoot, "www": remappedRoot, "new": remappedRoot + 33} {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(device, name), &st); err != nil || st.Uid != uid {
			t.Errorf("on the host %q is owned by %d: %v", name, st.Uid, err)
		}
	}
	d.Run("docker", "rm", "one")
	d.Run("docker", "volume", "rm", "dir", "tm")
}

func remapCopies(t *testing.T, d *harness.Daemon) {
	d.Run("docker", "run", "-d", "--name", "copies", "-v", "/vol", "busybox", "sleep", "1000")
	d.Run("docker", "exec", "copies", "sh", "-c", "echo hi > /tmp/file; chown 33:50 /tmp/file")
	defer d.Run("docker", "rm", "-fv", "copies")
	check := func(state string) {
		t.Helper()
		r := d.Try("", "docker", "cp", "copies:/tmp/file", "-")
		hdr, err := tar.NewReader(strings.NewReader(r.Stdout)).Next()
		if err != nil || hdr.Uid != 33 || hdr.Gid != 50 {
			t.Errorf("%s: copied out as %+v: %v %s", state, hdr, err, r.Stderr)
		}
		for _, dest := range []string{"/tmp", "/vol"} {
			var up bytes.Buffer
			w := tar.NewWriter(&up)
			for _, h := range []tar.Header{
				{Name: "dir-" + state + "/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7, Gid: 8},
				{Name: "deep/er/link-" + state, Typeflag: tar.TypeSymlink, Linkname: "x", Uid: 9, Gid: 10, Mode: 0o777},
				{Name: "file-" + state, Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 33, Gid: 50},
			} {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			_ = w.Close()
			if r := d.Try(up.String(), "docker", "cp", "-", "copies:"+dest); r.Code != 0 {
				t.Errorf("%s: copy to %s: %s", state, dest, r.Stderr)
			}
		}
	}
	check("running")
	d.Run("docker", "stop", "-t", "0", "copies")
	check("stopped")
	d.Run("docker", "start", "copies")
	for _, state := range []string{"running", "stopped"} {
		for _, dest := range []string{"/tmp/", "/vol/"} {
			got := d.Run("docker", "exec", "copies", "stat", "-c", "%u:%g:%a", dest+"dir-"+state, dest+"deep/er", dest+"deep/er/link-"+state, dest+"file-"+state)
			want(t, state+" "+dest, got, "7:8:750\n0:0:755\n9:10:777\n33:50:4711")
		}
	}
	var up bytes.Buffer
	w := tar.NewWriter(&up)
	_ = w.WriteHeader(&tar.Header{Name: "far", Typeflag: tar.TypeReg, Uid: 70000, Mode: 0o600})
	_ = w.Close()
	if r := d.Try(up.String(), "docker", "cp", "-", "copies:/tmp"); r.Code == 0 || !strings.Contains(r.Stderr, "70000:0 is not mapped") {
		t.Errorf("an owner that is not mapped: %d %s", r.Code, r.Stderr)
	}
	r := d.Try("", "docker", "export", "copies")
	for in := tar.NewReader(strings.NewReader(r.Stdout)); ; {
		hdr, err := in.Next()
		if err != nil {
			t.Fatalf("export: no tmp/file: %v %s", err, r.Stderr)
		}
		if hdr.Name == "tmp/file" {
			if hdr.Uid != 33 || hdr.Gid != 50 {
				t.Errorf("exported as %d:%d", hdr.Uid, hdr.Gid)
			}
			break
		}
	}
}

func remapNetworks(t *testing.T, d *harness.Daemon) {
	want(t, "its own", d.Run("docker", "run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", "ip addr add 10.99.0.1/24 dev eth0 && ip addr show eth0 | grep -c 10.99.0.1"), "1")
	if r := d.Try("", "docker", "run", "--rm", "busybox", "ip", "addr", "add", "10.99.0.1/24", "dev", "eth0"); r.Code == 0 {
		t.Error("changed without a capability")
	}
	d.Run("docker", "network", "create", "back")
	defer d.Run("docker", "network", "rm", "back")
	port := freePort(t)
	d.Run("docker", "run", "-d", "--name", "web", "--network", "back", "-p", "127.0.0.1:"+port+":80", "busybox", "sh", "-c", "echo hello > /var/www/index.html; exec httpd -f -p 80 -h /var/www")
	defer d.Run("docker", "rm", "-f", "web")
	harness.Eventually(t, 20*time.Second, func() string { // it has to listen first
		if r := d.Try("", "/bin/busybox", "wget", "-qO-", "http://127.0.0.1:"+port+"/index.html"); r.Out() != "hello" {
			return "published: " + r.Stdout + r.Stderr
		}
		return ""
	})
	want(t, "by name", d.Run("docker", "run", "--rm", "--network", "back", "busybox", "wget", "-qO-", "http://web/index.html"), "hello")
	want(t, "ping", d.Run("docker", "run", "--rm", "--network", "back", "busybox", "sh", "-c", "ping -c1 web >/dev/null && echo pong"), "pong")
	want(t, "none", d.Run("docker", "run", "--rm", "--network", "none", "--sysctl", "net.ipv4.ip_forward=1", "busybox", "sh", "-c", "cat /proc/sys/net/ipv4/ip_forward; ls /sys/class/net"), "1\nlo")
}

func remapShared(t *testing.T, d *harness.Daemon) {
	d.Run("docker", "run", "-d", "--name", "first", "--ipc", "shareable", "busybox", "sh", "-c", "touch /dev/shm/theirs; exec sleep 1000")
	defer d.Run("docker", "rm", "-f", "first")
	want(t, "shared", d.Run("docker", "run", "--rm", "--network", "container:first", "--pid", "container:first", "--ipc", "container:first", "--cap-add", "NET_ADMIN", "busybox",
		"sh", "-c", "ls /dev/shm; cat /proc/1/comm; id -u; ip link set lo down && echo down; touch /made && stat -c %u /made"), "theirs\nsleep\n0\ndown\n0")
	d.Run("docker", "run", "-d", "--name", "plain", "--userns", "host", "busybox", "sleep", "1000")
	defer d.Run("docker", "rm", "-f", "plain")
	if r := d.Try("", "docker", "run", "--rm", "--pid", "container:plain", "busybox", "true"); r.Code == 0 || !strings.Contains(r.Stderr, "run this one with --userns=host, too") {
		t.Errorf("a container in the host's user namespace: %d %s", r.Code, r.Stderr)
	}
	want(t, "the host's joins", d.Run("docker", "run", "--rm", "--userns", "host", "--pid", "container:first", "--network", "container:first", "busybox", "cat", "/proc/1/comm"), "sleep")
}

func remapRefusals(t *testing.T, d *harness.Daemon) {
	for _, tt := range []struct {
		flag []string
		says string
	}{
		{[]string{"--privileged"}, "privileged mode is incompatible with user namespaces"},
		{[]string{"--network", "host"}, "cannot share the host's network namespace when user namespaces are enabled"},
		{[]string{"--pid", "host"}, "cannot share the host PID namespace when user namespaces are enabled"},
	} {
		r := d.Try("", "docker", append(append([]string{"run", "--rm"}, tt.flag...), "busybox", "true")...)
		if r.Code != 125 || !strings.Contains(r.Stderr, tt.says) {
			t.Errorf("%v: %d %s", tt.flag, r.Code, r.Stderr)
		}
	}
}

func remapBuilds(t *testing.T, d *harness.Daemon) {
	dir := t.TempDir()
	dockerfile := `FROM busybox AS base
RUN cat /proc/self/uid_map | tr -s ' ' > /map && touch /made && chown 33:50 /made
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t touch /cache/x /t/x && stat -c %u /cache/x /bin/busybox > /owners
RUN --mount=type=secret,id=word cat /run/secrets/word > /word
RUN ping -c1 127.0.0.1 > /dev/null && grep -c localhost /etc/hosts
COPY --chown=7:8 Dockerfile /copied
FROM scratch
COPY --from=base / /
RUN touch /more
`
	for name, text := range map[string]string{"Dockerfile": dockerfile, "word": "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if r := d.Try("", harness.Bin(t, "skiff"), "build", "--secret", "id=word,src="+filepath.Join(dir, "word"), "-t", "built", dir); r.Code != 0 {
		t.Fatalf("build: %s%s", r.Stdout, r.Stderr)
	}
	for _, userns := range []string{"", "host"} {
		want(t, "built", d.Run("docker", "run", "--rm", "--userns="+userns, "built", "sh", "-c", "cat /map /owners /word; echo; stat -c %u:%g /made /copied /more"),
			fmt.Sprintf(" 0 %d 65536\n0\n0\nsecret\n33:50\n7:8\n0:0", remappedRoot)[1:])
	}
	d.Run("docker", "rmi", "built")

	// From nothing: there is no layer to lie over.
	if err := os.WriteFile(filepath.Join(dir, "Empty"), []byte("FROM scratch\nLABEL a=b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.Run(harness.Bin(t, "skiff"), "build", "-q", "-f", filepath.Join(dir, "Empty"), "-t", "empty", dir)
	d.Run("docker", "create", "--name", "empty", "empty", "/busybox", "sh", "-c", "/busybox touch /x && /busybox stat -c %u /x /busybox")
	d.Run("docker", "cp", "/bin/busybox", "empty:/busybox")
	want(t, "from nothing", d.Run("docker", "start", "-a", "empty"), "0\n0")
	d.Run("docker", "rm", "empty")
	d.Run("docker", "rmi", "empty")
}

func remapImageMounts(t *testing.T, d *harness.Daemon) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox\nRUN mkdir /sub && touch /sub/file && chown 33 /sub/file\nRUN touch /two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.Run(harness.Bin(t, "skiff"), "build", "-q", "-t", "layered", dir)
	want(t, "image", d.Run("docker", "run", "--rm", "--mount", "type=image,src=layered,dst=/i", "--mount", "type=image,src=busybox,dst=/b", "busybox",
		"sh", "-c", "stat -c %u /i/sub/file /i/two /b/bin/busybox; touch /i/x 2>/dev/null || echo refused"), "33\n0\n0\nrefused")
	want(t, "a part of it", d.Run("docker", "run", "--rm", "--mount", "type=image,src=layered,dst=/i,image-subpath=sub", "busybox", "stat", "-c", "%u", "/i/file"), "33")
	d.Run("docker", "rmi", "layered")
}

func remapCrash(t *testing.T, d *harness.Daemon) {
	d.Run("docker", "run", "-d", "--name", "stays", "--health-cmd", "true", "busybox", "sh", "-c", "touch /kept; chown 33 /kept; exec sleep 1000")
	d.Kill()
	d.Launch()
	want(t, "exec", d.Run("docker", "exec", "stays", "stat", "-c", "%u", "/kept", "/bin/busybox"), "33\n0")
	d.Run("docker", "restart", "-t", "0", "stays")
	d.Run("docker", "stop", "-t", "0", "stays")
	want(t, "logs", d.Run("docker", "logs", "stays"), "")
	d.Run("docker", "rm", "stays")
}

// A daemon that maps users no longer, or to others, has the same containers.
func TestUsernsRemapOfLater(t *testing.T) {
	harness.Subordinate(t, "")
	data := filepath.Join(t.TempDir(), "data")
	d := harness.StartIn(t, data)
	d.Busybox()
	d.Run("docker", "run", "--name", "later", "busybox", "sh", "-c", "cat /proc/self/uid_map | tr -s ' '; touch /made; chown 33 /made; stat -c %u /made /bin/busybox")
	want(t, "without", d.Run("docker", "logs", "later"), "0 0 4294967295\n33\n0")
	keep := d.Run("docker", "run", "-d", "busybox", "sleep", "1000")
	d.Terminate()
	d.Args("--userns-remap=default")
	d.Launch()
	d.Run("docker", "start", "-a", "later")
	want(t, "with", d.Run("docker", "logs", "-n", "3", "later"), "0 100000 65536\n33\n0")
	text, err := os.ReadFile("/etc/subuid")
	if err != nil || string(text) != "dockremap:100000:65536\n" {
		t.Errorf("subuid: %q, %v", text, err)
	}
	want(t, "what ran before", d.Run("docker", "exec", keep, "sh", "-c", "cat /proc/self/uid_map | tr -s ' '"), "0 0 4294967295")
	d.Run("docker", "rm", "-f", keep)
	d.Finish()
}
