//go:build root

package attack

import (
	"archive/tar"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// everyWay starts the image in the ways that make mounts, and returns what was
// printed by those that started.
func everyWay(t *testing.T, d *harness.Daemon, img string, cmd ...string) string {
	t.Helper()
	var out strings.Builder
	for _, o := range [][]string{{"-t"}, {"--read-only"}, {"--privileged"}} {
		r := d.Try("", "docker", append(append(append([]string{"run", "--rm"}, o...), img), cmd...)...)
		fmt.Fprintf(&out, "%v: %s", o, r.Stdout)
	}
	r := d.Try("FROM "+img+"\nRUN "+strings.Join(cmd, " ")+"\n", "docker", "build", "-q", "-")
	out.WriteString(r.Stderr)
	return out.String()
}

// The image's /dev is a link to the host, where the terminal multiplexer and
// links would be made anew.
func TestCVE_2026_41579_LinkedDev(t *testing.T) {
	d := daemon(t)
	host, _ := hostDir(t, d)
	for _, f := range []string{"ptmx", "null"} {
		if err := os.WriteFile(filepath.Join(host, f), []byte("decoy"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := treeOf(t, host)
	for name, entries := range map[string][]entry{
		"absolute": {{name: "dev", link: host}},
		"relative": {{name: "dev", link: "../../../../../.." + host}},
		"twice":    {{name: "dev", link: "/x"}, {name: "x", link: host}},
		"inside":   {{name: "dev/"}, {name: "dev/pts", link: host}, {name: "dev/shm", link: host}, {name: "dev/mqueue", link: host}, {name: "dev/ptmx", link: host + "/ptmx"}},
		"a file":   {{name: "dev", body: "x"}},
	} {
		image(t, d, "evil", entries)
		everyWay(t, d, "evil", "true")
		if after := treeOf(t, host); after != before {
			t.Fatalf("%s: the host's directory was\n%s\nand is\n%s", name, before, after)
		}
	}
}

// treeOf lists what is in a directory, with what each thing is.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		body := ""
		if st.Mode().IsRegular() {
			b, _ := os.ReadFile(p)
			body = string(b)
		}
		fmt.Fprintln(&out, p, st.Mode(), body)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The image's null device is a link to what is masked with it, or to what
// controls the host: it must neither be bound over files nor be left in sight.
func TestCVE_2025_31133_FakeNull(t *testing.T) {
	d := daemon(t)
	const look = "stat -c %t:%T /dev/null; grep -E ' /proc/' /proc/self/mountinfo | cut -d' ' -f3-6;" +
		"for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger; do (echo h > $f) 2>/dev/null && echo wrote $f; done; true"
	good := d.Run("docker", "run", "--rm", "busybox", "sh", "-c", look)
	if !strings.HasPrefix(good, "1:3\n") || !strings.Contains(good, " /proc/keys ro,") || !strings.Contains(good, " /proc/sys ro,") || strings.Contains(good, "wrote") {
		t.Fatalf("an honest image: %s", good)
	}
	for name, entries := range map[string][]entry{
		"link to the core pattern": {{name: "dev/"}, {name: "dev/null", link: "/proc/sys/kernel/core_pattern"}},
		"link to a sysrq":          {{name: "dev/"}, {name: "dev/null", link: "/proc/sysrq-trigger"}},
		"a file":                   {{name: "dev/"}, {name: "dev/null", body: "x"}},
		"another device":           {{name: "dev/"}, {name: "dev/null", kind: tar.TypeChar, major: 1, minor: 5, mode: 0o666}},
	} {
		image(t, d, "evil", entries)
		want(t, name, masks(d.Run("docker", "run", "--rm", "evil", "sh", "-c", look)), masks(good))
	}
}

// masks leaves the numbers of devices out that are made for each container.
func masks(s string) string { return regexp.MustCompile(`(?m)^\d+:\d+ /`).ReplaceAllString(s, "/") }

// The image's console, and the terminals below, are links to what controls the
// host; the terminal is mounted over the first.
func TestCVE_2025_52565_Console(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	for name, entries := range map[string][]entry{
		"console":   {{name: "dev/"}, {name: "dev/console", link: "/proc/sysrq-trigger"}},
		"host file": {{name: "dev/"}, {name: "dev/console", link: host + "/secret"}},
		"terminals": {{name: "dev/"}, {name: "dev/pts/"}, {name: "dev/pts/0", link: "/proc/sysrq-trigger"}, {name: "dev/pts/ptmx", link: "/proc/sysrq-trigger"}},
	} {
		image(t, d, "evil", entries)
		out := d.Run("docker", "run", "--rm", "-t", "evil", "sh", "-c", "grep -c ' /dev/console ' /proc/self/mountinfo; stat -c %t /dev/console; grep -c ' /proc/sys ro,' /proc/self/mountinfo; tty")
		want(t, name, strings.ReplaceAll(out, "\r", ""), "1\n88\n1\n/dev/pts/0")
	}
	intact()
	d.Run("docker", "volume", "create", "vol") // what another container prepared
	d.Run("docker", "run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "ln -s "+host+"/secret /v/console; ln -s "+host+" /v/pts; ln -s "+host+"/secret /v/ptmx")
	for range 2 {
		d.Try("", "docker", "run", "--rm", "-t", "-v", "vol:/dev", "busybox", "true")
		d.Try("", "docker", "run", "--rm", "-t", "-v", "vol:/dev/pts", "busybox", "true")
	}
	intact()
}

// /proc is a link in the image, into a volume that somebody else has prepared:
// labels, limits and parameters would be written to files of the attacker's.
func TestCVE_2023_27561_LinkedProc(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	d.Run("docker", "volume", "create", "vol")
	d.Run("docker", "run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c",
		"mkdir -p /v/proc/self/attr /v/proc/sys/net/ipv4; cd /v/proc; touch self/attr/exec self/oom_score_adj sys/net/ipv4/ip_forward; ln -s "+host+" /v/out")
	for name, entries := range map[string][]entry{
		"into a volume": {{name: "proc", link: "/v/proc"}},
		"to the host":   {{name: "proc", link: host}},
		"relative":      {{name: "proc", link: "../../../../../" + host}},
		"sys":           {{name: "sys", link: host}},
		"below sys":     {{name: "sys/"}, {name: "sys/fs", link: host}},
	} {
		image(t, d, "evil", entries)
		for _, o := range [][]string{{"--oom-score-adj", "500", "--sysctl", "net.ipv4.ip_forward=1"}, {"--privileged"}} {
			r := d.Try("", "docker", append(append([]string{"run", "--rm", "-v", "vol:/v"}, o...), "evil", "true")...)
			if r.Code == 0 && name != "below sys" {
				t.Errorf("%s %v: it starts", name, o)
			}
		}
		want(t, name, d.Run("docker", "run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "cat /v/proc/self/attr/exec /v/proc/self/oom_score_adj /v/proc/sys/net/ipv4/ip_forward"), "")
		intact()
	}
}

// The image's own /proc is full of files like the kernel's: profiles and labels
// (and all else) must not be written there instead.
func TestCVE_2023_28642_ProcOfTheImage(t *testing.T) {
	d := daemon(t)
	image(t, d, "evil", []entry{
		{name: "proc/"},
		{name: "proc/self/"},
		{name: "proc/self/attr/"},
		{name: "proc/self/attr/exec"},
		{name: "proc/self/oom_score_adj"},
		{name: "proc/thread-self", link: "self"},
		{name: "sys/"},
		{name: "sys/kernel/"},
		{name: "sys/kernel/security", link: "/proc"},
	})
	out := d.Run("docker", "run", "--rm", "--oom-score-adj", "501", "evil", "sh", "-c", "cat /proc/self/oom_score_adj; stat -f -c %T /proc /sys")
	want(t, "what the process is told", out, "501\nproc\nsysfs")
}

// Volumes over /proc, in which the runtime's writes would go astray.
func TestCVE_2019_19921_VolumesOverProc(t *testing.T) {
	d := daemon(t)
	for _, place := range []string{"/proc", "/./proc", "/x/../proc", "/proc/self", "/proc/self/attr", "/proc/thread-self/attr", "/proc/sys", "/proc/sys/kernel", "/proc/self/oom_score_adj"} {
		for _, v := range []string{"vol:" + place, "/tmp:" + place} {
			if r := d.Try("", "docker", "run", "--rm", "-v", v, "busybox", "true"); r.Code == 0 {
				t.Errorf("-v %s is taken", v)
			}
		}
		if r := d.Try("", "docker", "run", "--rm", "--tmpfs", place, "busybox", "true"); r.Code == 0 {
			t.Errorf("--tmpfs %s is taken", place)
		}
	}
	image(t, d, "evil", nil, "VOLUME /proc")
	if r := d.Try("", "docker", "run", "--rm", "evil", "true"); r.Code == 0 {
		t.Error("an image's volume over /proc is taken")
	}
	image(t, d, "evil", []entry{{name: "p", link: "/proc"}}, "VOLUME /p/self/attr")
	if r := d.Try("", "docker", "run", "--rm", "evil", "true"); r.Code == 0 {
		t.Error("an image's volume over /proc by a link is taken")
	}
}

// A container puts files of its own in the place of the kernel's before an exec
// comes in: what the launcher writes must reach the kernel all the same.
func TestCVE_2025_52881_RedirectedWrites(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "run", "-d", "--privileged", "busybox", "sh", "-c", "mount -t tmpfs fake /proc && mkdir -p /proc/self/attr /proc/thread-self/attr /proc/sys/kernel && "+
		"cd /proc && touch self/oom_score_adj self/attr/exec thread-self/attr/exec self/attr/current && ln -s / self/fd && touch ready && exec sleep 1000")
	harness.Eventually(t, waitLong, func() string {
		if d.Try("", "docker", "exec", id, "test", "-e", "/proc/ready").Code == 0 {
			return ""
		}
		return "the container is not ready"
	})
	want(t, "a privileged exec", d.Run("docker", "exec", "--privileged", "-w", "/tmp", id, "sh", "-c", "pwd"), "/tmp")
	d.Run("docker", "exec", "-t", "-u", "www", id, "true")
	want(t, "what was written to the fakes", d.Run("docker", "exec", id, "sh", "-c", "cd /proc; cat self/oom_score_adj self/attr/* thread-self/attr/*"), "")
	// And by a second container that shares what is mounted there.
	d.Run("docker", "run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "mkdir /v/attr; touch /v/attr/exec")
	if r := d.Try("", "docker", "run", "--rm", "-v", "vol:/proc/self", "busybox", "true"); r.Code == 0 {
		t.Error("a volume is mounted over the process's own directory")
	}
}

// The image's user files as devices, fifos, links and giants.
func TestCVE_2024_9676_UserFiles(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	for name, e := range map[string]entry{
		"fifo": {kind: tar.TypeFifo}, "zero device": {kind: tar.TypeChar, major: 1, minor: 5}, "terminal": {kind: tar.TypeChar, major: 5, minor: 0},
		"link to a device": {link: "/dev/zero"}, "link to the host": {link: host + "/secret"}, "link to itself": {link: "passwd"}, "directory": {kind: tar.TypeDir},
		"long line": {body: "joe:" + strings.Repeat("x", 1<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			passwd, group := e, e
			passwd.name, group.name = "etc/passwd", "etc/group"
			image(t, d, "evil", []entry{passwd, group})
			begin := time.Now()
			if r := d.Try("", "docker", "run", "--rm", "--user", "joe", "evil", "true"); r.Code == 0 {
				t.Error("there is a joe")
			}
			d.Try("", "docker", "run", "--rm", "--user", "1000", "--group-add", "staff", "evil", "id")
			id := d.Run("docker", "create", "--user", "joe", "evil", "true")
			d.Try("", "docker", "cp", "-a", "/etc/hostname", id+":/")
			if name == "fifo" {
				d.Try("FROM evil\nUSER joe\nRUN true\n", "docker", "build", "-q", "-")
			}
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	intact()
}

// Files that the engine puts into the container, as links to the host.
func TestEngineFilesAsLinks(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	image(t, d, "evil", []entry{
		{name: "etc/hosts", link: host + "/secret"}, {name: "etc/resolv.conf", link: "../../../.." + host + "/secret"}, {name: "etc/hostname", link: host + "/new"},
	})
	if out := everyWay(t, d, "evil", "cat", "/etc/hosts", "/etc/resolv.conf"); strings.Contains(out, hostSecret) || !strings.Contains(out, "localhost") {
		t.Errorf("printed %s", out)
	}
	intact()
}

// The volume of an image lies at a path that leads to the host's files, which
// are copied into it.
func TestCVE_2022_23648_CopyUp(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	for name, tc := range map[string]struct {
		entries []entry
		at      string
	}{
		"dots":            {nil, "/../../../../../../../.." + host},
		"dots in it":      {[]entry{{name: "x/"}}, "/x/../../../../../.." + host},
		"link":            {[]entry{{name: "x", link: host}}, "/x"},
		"relative link":   {[]entry{{name: "x", link: "../../../../../../.." + host}}, "/x"},
		"link on the way": {[]entry{{name: "x", link: filepath.Dir(host)}}, "/x/" + filepath.Base(host)},
		"process":         {nil, "/proc/1/root" + host},
	} {
		image(t, d, "evil", tc.entries, "VOLUME "+tc.at)
		r := d.Try("", "docker", "run", "--rm", "evil", "sh", "-c", "cat "+tc.at+"/secret "+host+"/secret; find / -name secret -xdev -exec cat {} ;")
		r2 := d.Try("", "docker", "run", "--rm", "-v", "vol:"+tc.at, "evil", "cat", tc.at+"/secret")
		if strings.Contains(r.Stdout+r2.Stdout, hostSecret) {
			t.Errorf("%s: the volume has the host's file", name)
		}
		d.Try("", "docker", "volume", "rm", "-f", "vol")
	}
	intact()
}

// A link of an image is the source of a mount of a build's step.
func TestCVE_2024_1753_BindOfALink(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	image(t, d, "evil", []entry{{name: "out", link: host}, {name: "root2", link: "/"}, {name: "up", link: "../../../../../../.." + host}, {name: "proc", link: "/proc/self/root"}})
	const honest = "FROM busybox\nRUN --mount=type=bind,from=evil,source=/bin,target=/m ls /m/busybox\n"
	if r := d.Try(honest, "docker", "build", "--no-cache", "-"); r.Code != 0 {
		t.Fatalf("an honest mount: %s%s", r.Stdout, r.Stderr)
	}
	for _, source := range []string{"/out", "/root2" + host, "/up", "/proc" + host, "/../../../.." + host} {
		r := d.Try("FROM busybox\nRUN --mount=type=bind,from=evil,source="+source+",target=/m,rw cat /m/secret; ls /m; echo evil > /m/secret; echo evil > /m/new; true\n",
			"docker", "build", "--no-cache", "-")
		if strings.Contains(r.Stderr+r.Stdout, hostSecret) {
			t.Errorf("%s: a step read the host's file", source)
		}
	}
	intact()
}

// Programs of an image's that an engine may be tempted to run: for archives in
// several compressions, and for names of users.
func TestCVE_2026_41567_DecompressorsOfTheImage(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	var entries []entry
	for _, dir := range []string{"bin", "usr/bin", "usr/local/bin", "sbin", "usr/sbin"} {
		for _, p := range []string{"unpigz", "pigz", "gzip", "gunzip", "xz", "unxz", "zstd", "bzip2", "tar", "nsswitch"} {
			entries = append(entries, entry{name: dir + "/" + p, body: "#!/bin/busybox sh\ntouch /ran " + host + "/ran\nexec cat\n"})
		}
	}
	image(t, d, "evil", entries)
	id := d.Run("docker", "run", "-d", "evil", "sleep", "1000")
	stopped := d.Run("docker", "create", "evil", "true")
	taken := map[string]int{}
	for kind, body := range compressed(t, archive(t, []entry{{name: "f", body: "text"}})) {
		for _, c := range []string{id, stopped} {
			code, text := call(t, d, http.MethodPut, "/containers/"+c+"/archive?path=/tmp", strings.NewReader(body), "Content-Type", "application/x-tar")
			if code == 200 {
				taken[kind]++
			} else {
				t.Logf("%s: %d %s", kind, code, text)
			}
		}
	}
	for _, kind := range []string{"plain", "gzip", "zstd"} {
		if taken[kind] != 2 {
			t.Errorf("%s: %d of 2 archives were taken", kind, taken[kind])
		}
	}
	for _, c := range []string{id, stopped} {
		if r := d.Try("", "docker", "cp", c+":/ran", "-"); r.Code == 0 {
			t.Error("a program of the image was run")
		}
	}
	intact()
}

// Libraries of an image's that name lookups would load into the engine.
func TestCVE_2019_14271_LibrariesOfTheImage(t *testing.T) {
	for _, bin := range []string{"skiffd", "skiff-shim", "skiff"} {
		if dynamic(t, harness.Bin(t, bin)) {
			t.Errorf("%s loads libraries", bin)
		}
	}
	d := daemon(t)
	host, intact := hostDir(t, d)
	evil := "\x7fELF not really, but it would be opened"
	image(t, d, "evil", []entry{
		{name: "etc/nsswitch.conf", body: "passwd: evil\nhosts: evil\n"},
		{name: "lib/x86_64-linux-gnu/libnss_evil.so.2", body: evil},
		{name: "lib/libnss_files.so.2", body: evil},
		{name: "etc/ld.so.preload", body: "/lib/libnss_files.so.2\n"},
	})
	id := d.Run("docker", "run", "-d", "evil", "sleep", "1000")
	d.Run("docker", "cp", "-a", "/etc/hostname", id+":/tmp/h")
	d.Run("docker", "cp", id+":/etc/passwd", filepath.Join(d.Dir, "out"))
	want(t, "it still runs", d.Run("docker", "exec", "-u", "www", id, "id", "-u"), "33")
	_ = host
	intact()
}
