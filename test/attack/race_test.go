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

// race repeats f while raceFor lasts, at least once.
func race(t *testing.T, f func(i int)) {
	t.Helper()
	n := 0
	for end := time.Now().Add(raceFor); n == 0 || time.Now().Before(end); n++ {
		f(n)
	}
	t.Logf("%d times", n)
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
			started := 0
			race(t, func(int) {
				// The kernel's view of what is mounted, and what is seen there.
				r := d.Try("", "docker", append(append([]string{"run", "--rm"}, mounts...), "busybox", "sh", "-c", "cat /v/a/secret /m/secret 2>/dev/null; ls -A "+host+" 2>/dev/null")...)
				if strings.Contains(r.Stdout, hostSecret) {
					t.Error("it reads the host's file")
				}
				if strings.Contains(r.Stdout, "mine") {
					started++
				}
			})
			if started == 0 {
				t.Error("it never read the volume's own file: the race was none")
			}
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
	made := 0
	race(t, func(i int) {
		at := fmt.Sprintf("/v/a/deep%d/er", i)
		if r := d.Try("", "docker", "run", "--rm", "-v", "vol:/v", "--tmpfs", at+"/dir", "-v", "/etc/hostname:"+at+"/file", "-w", at+"/cwd", "busybox", "true"); r.Code == 0 {
			made++
		}
	})
	if made == 0 {
		t.Error("no mount point was ever made: the race was none")
	}
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
		found := 0
		race(t, func(i int) {
			for _, id := range []string{id, stopped} {
				for _, p := range []string{"/v/a/", "/x/a/", "/v/a/new/deep/"} {
					if code, _ := call(t, d, http.MethodHead, "/containers/"+id+"/archive?path="+p, nil); code == 200 {
						found++
					}
				}
			}
		})
		if found == 0 {
			t.Error("nothing was ever found: the race was none")
		}
	})
}

func TestCVE_2026_42306_MountsOfCopies(t *testing.T) {
	payload := []byte(archive(t, []entry{{name: "secret", body: "overwritten"}, {name: "more", body: "x"}}))
	cpRace(t, func(d *harness.Daemon, id, host string) {
		stopped := d.Run("docker", "create", "-v", "vol:/v", "-v", "other:/v/a", "busybox", "true")
		written := 0
		race(t, func(i int) {
			for _, id := range []string{id, stopped} {
				for _, p := range []string{"/v/a", "/x/a", "/x/a/secret.d/.."} {
					if code, _ := call(t, d, http.MethodPut, "/containers/"+id+"/archive?path="+p, bytes.NewReader(payload), "Content-Type", "application/x-tar"); code == 200 {
						written++
					}
				}
			}
		})
		if written == 0 {
			t.Error("nothing was ever written: the race was none")
		}
	})
}

// docker cp reads through a directory that is a link to the host at times.
func TestCVE_2018_15664_CopyRace(t *testing.T) {
	cpRace(t, func(d *harness.Daemon, id, host string) {
		mine := 0
		race(t, func(int) {
			for _, p := range []string{"/x/a/secret", "/v/a/secret", "/x/a/", "/x/b"} {
				_, body := call(t, d, http.MethodGet, "/containers/"+id+"/archive?path="+p, nil)
				if strings.Contains(body, hostSecret) {
					t.Fatalf("%s: read the host's file", p)
				}
				if strings.Contains(body, "mine") {
					mine++
				}
			}
		})
		if mine == 0 {
			t.Error("it never read the container's own file: the race was none")
		}
	})
}

// docker export walks through the same directories, and through the places of
// the container's mounts, which stay closed to it.
func TestExportRace(t *testing.T) {
	cpRace(t, func(d *harness.Daemon, id, _ string) {
		race(t, func(int) {
			code, body := call(t, d, http.MethodGet, "/containers/"+id+"/export", nil)
			if code != http.StatusOK || strings.Contains(body, hostSecret) || strings.Contains(body, "v/a/") {
				t.Fatalf("%d: the host's file, or the volume's, in %d bytes", code, len(body))
			}
		})
	})
}

// The working directory and the program of an exec are swapped for links.
func TestExecRace(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	swapper(t, d, "/proc/1/root"+host)
	id := d.Run("docker", "run", "-d", "-v", "vol:/v", "busybox", "sleep", "1000")
	mine := 0
	race(t, func(int) {
		r := d.Try("", "docker", "exec", "-w", "/v/a", id, "cat", "secret")
		if strings.Contains(r.Stdout, hostSecret) {
			t.Error("it reads the host's file")
		}
		if strings.Contains(r.Stdout, "mine") {
			mine++
		}
	})
	if mine == 0 {
		t.Error("it never read the container's own file: the race was none")
	}
	intact()
}

// archive is a tar archive of nothing but the entries.
func archive(t *testing.T, entries []entry) string {
	t.Helper()
	return string(tarOf(t, nil, entries))
}
