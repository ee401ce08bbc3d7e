//go:build root

package attack

import (
	"archive/tar"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/layer/layertest"
)

// The rules that these attacks try are listed in docs/security.md.

// A container that may write to a volume swaps the place that another one
// mounts of it (or that docker cp goes through) for a link to the host.
func TestVolumeSubpathStaysInside(t *testing.T) {
	d := daemon(t)
	secret := filepath.Join(d.Dir, "secret")
	if err := os.MkdirAll(secret, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secret, "f"), []byte("the host's"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.Run("docker", "volume", "create", "vol")
	d.Run("docker", "run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "mkdir /v/ok; echo mine > /v/ok/f; ln -s ok /v/link; ln -s "+secret+" /v/out")
	sub := func(p string) string { return "type=volume,src=vol,dst=/m,volume-subpath=" + p }
	want(t, "subpath", d.Run("docker", "run", "--rm", "--mount", sub("ok"), "busybox", "cat", "/m/f"), "mine")
	want(t, "a file", d.Run("docker", "run", "--rm", "--mount", sub("ok/f"), "busybox", "cat", "/m"), "mine")
	want(t, "by a link inside", d.Run("docker", "run", "--rm", "--mount", sub("link"), "busybox", "cat", "/m/f"), "mine")
	for _, p := range []string{"out", "../..", "ok/../../..", "/etc", "none"} {
		if r := d.Try("", "docker", "run", "--rm", "--mount", sub(p), "busybox", "cat", "/m/f"); r.Code == 0 || r.Stdout != "" {
			t.Errorf("subpath %s: %d %q", p, r.Code, r.Stdout)
		}
	}
	d.Run("docker", "create", "--name", "stopped", "--mount", sub("ok"), "busybox", "true")
	d.Run("docker", "run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "rm -rf /v/ok; ln -s "+secret+" /v/ok")
	if r := d.Try("", "docker", "cp", "stopped:/m/f", "-"); strings.Contains(r.Stdout, "the host's") {
		t.Error("docker cp read the host")
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "payload"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.Try("", "docker", "cp", filepath.Join(d.Dir, "payload"), "stopped:/m/payload")
	if _, err := os.Lstat(filepath.Join(secret, "payload")); err == nil {
		t.Error("docker cp wrote to the host")
	}
	if r := d.Try("", "docker", "start", "stopped"); r.Code == 0 {
		t.Error("it starts on the host's directory")
	}
}

// The root of containers, of execs and of build steps is the host's: it must
// not reach the inode of the host's null device.
func TestHostNullDeviceOutOfReach(t *testing.T) {
	d := daemon(t)
	var before, after unix.Stat_t
	if err := unix.Stat("/dev/null", &before); err != nil {
		t.Fatal(err)
	}
	// 666 is what it has: a failing test does no harm.
	const attack = "chmod 666 /proc/self/fd/0; chmod 666 /proc/keys; chmod 666 /proc/timer_list; true"
	id := d.Run("docker", "run", "-d", "busybox", "sh", "-c", attack+"; exec sleep 100")
	d.Run("docker", "exec", id, "sh", "-c", attack)
	d.RunIn("FROM busybox\nRUN "+attack+"\n", "docker", "build", "-q", "-")
	if err := unix.Stat("/dev/null", &after); err != nil {
		t.Fatal(err)
	}
	if before.Ctim != after.Ctim {
		t.Error("the host's /dev/null was changed")
	}
}

// A kilobyte that claims terabytes fills no disk, whichever door it comes by.
func TestSparseArchives(t *testing.T) {
	d := daemon(t)
	bomb := layertest.Sparse("layer.tar", 7<<30)
	free := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(d.DataRoot, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bavail) * st.Bsize
	}
	before := free()
	for _, args := range [][]string{{"load"}, {"build", "-q", "-"}} {
		if r := d.Try(string(bomb), "docker", args...); r.Code == 0 {
			t.Errorf("%v takes it", args)
		}
	}
	if grown := before - free(); grown > 2<<30 {
		t.Errorf("%d bytes were written", grown)
	}
}

// What reaches /etc/hosts is one word each.
func TestHostsFileInjection(t *testing.T) {
	d := daemon(t)
	for _, args := range [][]string{
		{"--hostname", "a\n6.6.6.6 evil"}, {"--domainname", "a b"}, {"--add-host", "a\n6.6.6.6 evil:1.2.3.4"}, {"--dns-search", "a\nnameserver 6.6.6.6"},
	} {
		r := d.Try("", "docker", append(append([]string{"run", "--rm"}, args...), "busybox", "cat", "/etc/hosts", "/etc/resolv.conf")...)
		if r.Code == 0 || strings.Contains(r.Stdout, "6.6.6.6") {
			t.Errorf("%q: %d %s", args, r.Code, r.Stdout)
		}
	}
}

// Who may reach what the daemon keeps.
func TestCVE_2021_41091_Modes(t *testing.T) {
	d := daemon(t)
	d.Run("docker", "volume", "create", "vol")
	for p, most := range map[string]os.FileMode{
		d.DataRoot: 0o710, filepath.Join(d.DataRoot, "containers"): 0o700, filepath.Join(d.DataRoot, "store"): 0o700,
		filepath.Join(d.DataRoot, "meta.db"): 0o600, filepath.Join(d.DataRoot, "tmp"): 0o700, filepath.Join(d.DataRoot, "volumes"): 0o711,
		d.ExecRoot: 0o711, filepath.Join(d.ExecRoot, "shim"): 0o700, filepath.Join(d.ExecRoot, "containers"): 0o700,
		filepath.Join(d.ExecRoot, "network"): 0o700, d.Sock: 0o660,
	} {
		st, err := os.Stat(p)
		if err != nil {
			t.Error(err)
			continue
		}
		if st.Mode().Perm()&^most != 0 {
			t.Errorf("%s has mode %o, which is more than %o", p, st.Mode().Perm(), most)
		}
	}
}

// Nothing of the engine listens where a container could reach it.
func TestCVE_2025_9074_NothingListens(t *testing.T) {
	d := daemon(t)
	mine, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range enginePIDs(d) { // what is looked at below is where they would listen
		if its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); its != mine {
			t.Errorf("process %d of the engine is in %s, the test in %s: %v", pid, its, mine, err)
		}
	}
	d.Run("docker", "network", "create", "n")
	d.Run("docker", "run", "-d", "--network", "n", "busybox", "sleep", "100")
	for _, f := range []string{"tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile("/proc/self/net/" + f)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(data), "\n")[1:] {
			if w := strings.Fields(line); len(w) > 3 && (w[3] == "0A" || strings.HasPrefix(f, "udp")) {
				t.Errorf("%s: %s", f, line)
			}
		}
	}
	data, err := os.ReadFile("/proc/self/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "@") {
		t.Errorf("abstract sockets:\n%s", data)
	}
}

// An upload, with links of its own and of the container's, changes neither
// content nor mode, owner or number of names of the host's files.
func TestCVE_2021_41089_ModesOfTheHost(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	image(t, d, "evil", []entry{{name: "out", link: host}, {name: "up", link: "../../../../../../.." + host}, {name: "etc/out", link: "/proc/1/root" + host}})
	entries := []entry{
		{name: "out/", mode: 0o777},
		{name: "out/secret", body: "evil", mode: 0o777},
		{name: "up/secret", body: "evil", mode: 0o777},
		{name: "l", link: host},
		{name: "l/secret", body: "evil", mode: 0o777},
		{name: "l/", mode: 0o777},
		{name: "h", kind: tar.TypeLink, link: "out/secret"},
		{name: "h", body: "evil", mode: 0o777},
		{name: "h2", kind: tar.TypeLink, link: host + "/secret"},
		{name: "s", link: host + "/secret"},
		{name: "s", body: "evil", mode: 0o777},
		{name: "../../../../../.." + host + "/secret", body: "evil"},
		{name: host + "/new", body: "evil"},
		{name: "etc/out/new", body: "evil"},
	}
	// As a whole, and each after one that is fine, for what is refused ends it all.
	ups := []string{archive(t, entries)}
	for i, e := range entries {
		alone := []entry{{name: "fine", body: "fine"}, e}
		if i > 0 && (e.name == "h" || e.name == "s" || strings.HasPrefix(e.name, "l/")) {
			alone = []entry{{name: "fine", body: "fine"}, entries[i-1], e}
		}
		ups = append(ups, archive(t, alone))
	}
	put := func(id, query string, up string) int {
		code, _ := call(t, d, http.MethodPut, "/containers/"+id+"/archive?path="+query, strings.NewReader(up), "Content-Type", "application/x-tar")
		return code
	}
	for _, id := range []string{d.Run("docker", "run", "-d", "evil", "sleep", "1000"), d.Run("docker", "create", "evil", "true"), d.Run("docker", "create", "-v", "vol:/out", "evil", "true")} {
		for _, at := range []string{"/", "/out", "/up", "/etc/out", "/proc/1/root" + host, "/../../" + host} {
			for _, o := range []string{"", "&noOverwriteDirNonDir=1", "&copyUIDGID=1"} {
				put(id, at+o, ups[0])
				intact()
			}
		}
		for i, up := range ups {
			put(id, "/", up)
			if intact(); t.Failed() {
				t.Fatalf("by archive %d", i)
			}
		}
		if code := put(id, "/", archive(t, []entry{{name: "fine", body: "fine"}})); code != 200 {
			t.Errorf("an honest archive: %d", code)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(host, "secret"), &st); err != nil || st.Nlink != 1 {
		t.Errorf("the host's file has %d names, %v", st.Nlink, err)
	}
}

// No socket of the engine's is in the namespace of networks, where a container
// with the host's network would find it without a path.
func TestCVE_2020_15257_AbstractSockets(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "run", "-d", "busybox", "sleep", "1000")
	d.Run("docker", "exec", id, "true")
	want(t, "abstract sockets", d.Run("docker", "run", "--rm", "--network", "host", "busybox", "sh", "-c", "grep -c @ /proc/net/unix; true"), "0")
	want(t, "a socket with a path is seen there", d.Run("docker", "run", "--rm", "--network", "host", "busybox", "sh", "-c", "grep -q "+d.Sock+" /proc/net/unix && echo yes"), "yes")
	// Those with paths are root's, in directories of root's.
	for _, dir := range []string{"shim", "containers", "network"} {
		if st, err := os.Stat(filepath.Join(d.ExecRoot, dir)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s is %v, %v", dir, st, err)
		}
	}
	if st, err := os.Stat(d.Sock); err != nil || st.Mode().Perm()&0o007 != 0 {
		t.Errorf("the API's socket is %v, %v", st, err)
	}
}
