//go:build root

package attack

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// raceFor is how long an attack by racing goes on.
const raceFor = 600 * time.Millisecond

// swapper runs a container that never stops exchanging two names in the volume
// "vol", /v/a and /v/b: at first a is a directory and b a link to where.
func swapper(t *testing.T, d *harness.Daemon, where string) {
	t.Helper()
	d.Run("docker", "volume", "create", "vol")
	d.Run("docker", "run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "mkdir -p /v/a/sub /v/ok; echo mine > /v/a/secret; ln -s "+where+" /v/b")
	id := d.Run("docker", append(append([]string{"run", "-d", "-v", "vol:/v"}, program(t, "swap")...), "busybox", "/attack", "/v/a", "/v/b")...)
	harness.Eventually(t, waitLong, func() string {
		if strings.Contains(d.Run("docker", "logs", id), "swapping") {
			return ""
		}
		return "nothing is swapped yet"
	})
}

// race repeats f while raceFor lasts and longer, up to a point, until it has met
// what it races for: f tells how often it did. Else the race was none.
func race(t *testing.T, f func(i int) int) {
	t.Helper()
	begin, n, met := time.Now(), 0, 0
	for ; n == 0 || time.Since(begin) < raceFor || met == 0 && time.Since(begin) < waitLong; n++ {
		met += f(n)
	}
	t.Logf("%d times, %d of them met", n, met)
	if met == 0 {
		t.Error("what is raced for was never there: the race was none")
	}
}

// count is 1 for what is so.
func count(so bool) int {
	if so {
		return 1
	}
	return 0
}

// One container swaps a directory of a shared volume for a link to the host,
// while another is started with mounts in there.
func TestCVE_2021_30465_VolumeRace(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	swapper(t, d, host)
	d.Run("docker", "volume", "create", "other")
	for _, mounts := range [][]string{
		{"-v", "vol:/v", "-v", "other:/v/a/sub/mnt"},
		{"-v", "vol:/v", "--tmpfs", "/v/a/tmp"},
		{"-v", "vol:/v", "-v", host + "/secret:/v/a/file:ro"},
		{"--mount", "type=volume,src=vol,dst=/m,volume-subpath=a"},
	} {
		t.Run(strings.Join(mounts[len(mounts)-1:], " "), func(t *testing.T) {
			race(t, func(int) int {
				// The kernel's view of what is mounted, and what is seen there.
				r := d.Try("", "docker", append(append([]string{"run", "--rm"}, mounts...), "busybox", "sh", "-c", "cat /v/a/secret /m/secret 2>/dev/null; ls -A "+host+" 2>/dev/null")...)
				if strings.Contains(r.Stdout, hostSecret) {
					t.Error("it reads the host's file")
				}
				return count(strings.Contains(r.Stdout, "mine"))
			})
			mountsOf(t, host)
			intact()
		})
	}
}

// mountsOf fails when something is mounted in dir.
func mountsOf(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), " "+dir) {
		t.Errorf("something is mounted in %s", dir)
	}
}

// Mount points that do not exist are made below a directory that is a link to
// the host at times.
func TestCVE_2024_45310_MakingMountPoints(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	swapper(t, d, host)
	race(t, func(i int) int {
		at := fmt.Sprintf("/v/a/deep%d/er", i)
		r := d.Try("", "docker", "run", "--rm", "-v", "vol:/v", "--tmpfs", at+"/dir", "-v", "/etc/hostname:"+at+"/file", "-w", at+"/cwd", "busybox", "true")
		return count(r.Code == 0)
	})
	intact()
}

// docker cp into and out of a container whose volumes' mount points, and the
// directories that it goes through, are swapped by a process of the container.
func cpRace(t *testing.T, check func(d *harness.Daemon, id, host string)) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	swapper(t, d, host)
	args := append([]string{"run", "-d", "-v", "vol:/v"}, program(t, "swap")...)
	id := d.Run("docker", append(args, "busybox", "sh", "-c", "mkdir -p /x/a/secret.d; echo mine > /x/a/secret; ln -s "+host+" /x/b; exec /attack /x/a /x/b")...)
	check(d, id, host)
	mountsOf(t, host)
	intact()
}

func TestCVE_2026_41568_MountPointsOfCopies(t *testing.T) {
	cpRace(t, func(d *harness.Daemon, id, _ string) {
		// One that does not run: the engine itself makes and mounts the volumes'
		// places for it.
		stopped := d.Run("docker", "create", "-v", "vol:/v", "-v", "other:/v/a/new/deep", "busybox", "true")
		race(t, func(int) (found int) {
			for _, id := range []string{id, stopped} {
				for _, p := range []string{"/v/a/", "/x/a/", "/v/a/new/deep/"} {
					code, _ := call(t, d, http.MethodHead, "/containers/"+id+"/archive?path="+p, nil)
					found += count(code == 200)
				}
			}
			return found
		})
	})
}

func TestCVE_2026_42306_MountsOfCopies(t *testing.T) {
	payload := []byte(archive(t, []entry{{name: "secret", body: "overwritten"}, {name: "more", body: "x"}}))
	cpRace(t, func(d *harness.Daemon, id, host string) {
		stopped := d.Run("docker", "create", "-v", "vol:/v", "-v", "other:/v/a", "busybox", "true")
		race(t, func(int) (written int) {
			for _, id := range []string{id, stopped} {
				for _, p := range []string{"/v/a", "/x/a", "/x/a/secret.d/.."} {
					code, _ := call(t, d, http.MethodPut, "/containers/"+id+"/archive?path="+p, bytes.NewReader(payload), "Content-Type", "application/x-tar")
					written += count(code == 200)
				}
			}
			return written
		})
	})
}

// docker cp reads through a directory that is a link to the host at times.
func TestCVE_2018_15664_CopyRace(t *testing.T) {
	cpRace(t, func(d *harness.Daemon, id, host string) {
		race(t, func(int) (mine int) {
			for _, p := range []string{"/x/a/secret", "/v/a/secret", "/x/a/", "/x/b"} {
				_, body := call(t, d, http.MethodGet, "/containers/"+id+"/archive?path="+p, nil)
				if strings.Contains(body, hostSecret) {
					t.Fatalf("%s: read the host's file", p)
				}
				mine += count(strings.Contains(body, "mine"))
			}
			return mine
		})
	})
}

// docker export walks through the same directories, and through the places of
// the container's mounts, which stay closed to it.
func TestExportRace(t *testing.T) {
	cpRace(t, func(d *harness.Daemon, id, _ string) {
		race(t, func(int) int {
			code, body := call(t, d, http.MethodGet, "/containers/"+id+"/export", nil)
			if code != http.StatusOK || strings.Contains(body, hostSecret) || strings.Contains(body, "v/a/") {
				t.Fatalf("%d: the host's file, or the volume's, in %d bytes", code, len(body))
			}
			return 1
		})
	})
}

// The working directory and the program of an exec are swapped for links.
func TestExecRace(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	swapper(t, d, "/proc/1/root"+host)
	id := d.Run("docker", "run", "-d", "-v", "vol:/v", "busybox", "sleep", "1000")
	race(t, func(int) int {
		r := d.Try("", "docker", "exec", "-w", "/v/a", id, "cat", "secret")
		if strings.Contains(r.Stdout, hostSecret) {
			t.Error("it reads the host's file")
		}
		return count(strings.Contains(r.Stdout, "mine"))
	})
	intact()
}

// archive is a tar archive of nothing but the entries.
func archive(t *testing.T, entries []entry) string {
	t.Helper()
	return string(tarOf(t, nil, entries))
}
