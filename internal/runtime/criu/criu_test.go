//go:build linux

package criu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const inside = `100 90 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l
101 100 0:51 / /proc rw - proc proc rw
102 100 0:52 / /dev rw - tmpfs tmpfs rw
103 100 0:30 /ctr/hosts /etc/hosts ro master:3 - tmpfs tmpfs rw
104 100 8:1 /vol/with\040space /with\040space rw - ext4 /dev/sda1 rw
105 101 0:5 /null /proc/keys ro - devtmpfs devtmpfs rw
106 102 0:53 / /dev/shm rw - tmpfs shm rw
107 100 0:27 / /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
`

const host = `20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:5 / /dev rw - devtmpfs devtmpfs rw
22 20 0:30 / /run rw shared:3 - tmpfs tmpfs rw
23 20 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
`

func TestOutside(t *testing.T) {
	in, err := parseMounts([]byte(inside))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := parseMounts([]byte(host))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{{Destination: "/etc/hosts"}, {Destination: "/with space"}, {Destination: "/proc/keys", Null: true}}
	if diff := cmp.Diff(want, outside(in, ours)); diff != "" {
		t.Error(diff)
	}
	if _, err := parseMounts([]byte("1 2 3\n")); err == nil {
		t.Error("half a line is taken")
	}
}

func TestArgs(t *testing.T) {
	m := &Meta{Streams: [3]string{"", "file[a:1]", "file[a:1]"}, Net: "net[7]", Mounts: []Mount{{Destination: "/v"}, {Destination: "/proc/keys", Null: true}}}
	dump := strings.Join((&Dump{Program: "criu", PID: 5, Images: "/i", Work: "/w", Freezer: "/f", LeaveRunning: true, Meta: m}).Args(), " ")
	for _, want := range []string{"criu dump --tree 5", "--leave-running", "--freeze-cgroup /f", "--external file[a:1] --external net[7]:skiff-net --external mnt[/v]:/v --external mnt[/proc/keys]:/proc/keys"} {
		if !strings.Contains(dump, want) {
			t.Errorf("%q lacks %q", dump, want)
		}
	}
	r := &Restore{Program: "criu", Images: "/i", Work: "/w", Root: "/r", Meta: m, Streams: [3]int{5, 6, 7}, Net: 8, Sources: map[string]string{"/v": "/volumes/v"}}
	args, err := r.Args()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(args, " "), "--inherit-fd fd[6]:file[a:1] --inherit-fd fd[8]:skiff-net --external mnt[/v]:/volumes/v --external mnt[/proc/keys]:/dev/null"; !strings.HasSuffix(got, want) {
		t.Errorf("%q lacks %q", got, want)
	}
	r.Sources = nil
	if _, err := r.Args(); !errs.Is(err, errs.Invalid) {
		t.Errorf("a mount that is gone gives %v", err)
	}
	r.Net, r.Sources = -1, map[string]string{"/v": "/x"}
	if _, err := r.Args(); !errs.Is(err, errs.Invalid) {
		t.Errorf("a network that is gone gives %v", err)
	}
}

func TestMeta(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !errs.Is(err, errs.NotFound) {
		t.Errorf("nothing gives %v", err)
	}
	m := &Meta{Net: "net[7]", Mounts: []Mount{{Destination: "/v"}}}
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if diff := cmp.Diff(m, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if err := os.WriteFile(filepath.Join(dir, metaName), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errs.Is(err, errs.Invalid) {
		t.Errorf("noise gives %v", err)
	}
}

func TestComplaints(t *testing.T) {
	log := "(00.1) Warn  (criu/a.c:1): mind\n(00.2) Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds\n(00.2) Error (criu/b.c:2): second\n"
	if got := complaints([]byte(log)); got != "vdso: Unexpected rt vDSO area bounds; second" {
		t.Errorf("%q", got)
	}
	if got := complaints([]byte(strings.Repeat("Error (x:1): a\n", 3) + "Error (x:1): b\nError (x:1): c\nError (x:1): d\nError (x:1): e\n")); got != "a; b; c; e" {
		t.Errorf("%q", got)
	}
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte(inside))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseMounts(data) })
}
