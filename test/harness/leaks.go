//go:build root

package harness

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// leakState is what a daemon may leave behind in the test's namespaces.
type leakState struct {
	mounts, links []string
}

func observe(t testing.TB) leakState {
	t.Helper()
	var s leakState
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		s.mounts = append(s.mounts, strings.Fields(line)[4])
	}
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifs {
		s.links = append(s.links, i.Name)
	}
	return s
}

// preparedLinks is how many interfaces a daemon may hold ready for containers to
// come; with the daemon they go, which checkGone sees.
const preparedLinks = 4

func isVeth(name string) bool { return strings.HasPrefix(name, "veth") }

func added(before, after []string) []string {
	return slices.DeleteFunc(slices.Clone(after), func(x string) bool { return slices.Contains(before, x) })
}

// checkLeaks looks, while the daemon runs without containers, for what
// containers left. Teardown goes on after the answer, so it waits a little.
func (d *Daemon) checkLeaks() {
	d.t.Helper()
	var left []string
	for range 300 {
		left = d.leaks()
		if len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, l := range left {
		d.t.Errorf("left behind: %s", l)
	}
}

func (d *Daemon) leaks() []string {
	var left []string
	now := observe(d.t)
	for _, m := range added(d.base.mounts, now.mounts) {
		left = append(left, "mount "+m)
	}
	var veths []string
	for _, l := range added(d.base.links, now.links) {
		if isVeth(l) {
			veths = append(veths, "link "+l)
		}
	}
	if len(veths) > preparedLinks {
		left = append(left, veths...)
	}
	for _, dir := range []string{
		filepath.Join(d.DataRoot, "containers"), filepath.Join(d.ExecRoot, "containers"),
		filepath.Join(d.ExecRoot, "shim", "c"), filepath.Join(d.ExecRoot, "c"),
	} {
		ents, _ := os.ReadDir(dir)
		for _, e := range ents {
			if !strings.HasPrefix(e.Name(), ".") {
				left = append(left, "directory "+filepath.Join(dir, e.Name()))
			}
		}
	}
	for _, c := range d.cgroups() {
		left = append(left, "cgroup "+c)
	}
	groups, processes := d.Parked()
	if len(groups) > parkedChildren {
		left = append(left, "parked "+strings.Join(groups, " "))
	}
	if processes > parkedChildren {
		left = append(left, strconv.Itoa(processes)+" parked processes")
	}
	return left
}

// parkedChildren is how many processes a shim may hold ready for containers to
// come.
const parkedChildren = 2

// Parked tells the groups of the processes that the shim holds ready, and how
// many those are.
func (d *Daemon) Parked() (groups []string, processes int) {
	dirs, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", d.CgroupParent, "parked-*"))
	pids := make(map[string]bool)
	for _, dir := range dirs {
		if name := filepath.Base(dir); !slices.Contains(groups, name) {
			groups = append(groups, name)
		}
		data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, pid := range strings.Fields(string(data)) {
			pids[pid] = true
		}
	}
	return groups, len(pids)
}

// cgroups lists the cgroups below the daemon's parent that hold a container's
// id; pools of prepared ones carry other names.
func (d *Daemon) cgroups() []string {
	var out []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(p, d.CgroupParent+"/") && len(filepath.Base(p)) == 64 {
			out = append(out, p)
		}
		return nil
	})
	return out
}

// checkGone looks, after daemon and shim have ended, for cgroups and mounts,
// and removes the cgroup parent.
func (d *Daemon) checkGone() {
	d.t.Helper()
	now := observe(d.t)
	for range 200 { // the kernel takes namespaces apart in its own time
		if !slices.ContainsFunc(added(d.base.links, now.links), isVeth) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		now = observe(d.t)
	}
	for _, l := range added(d.base.links, now.links) {
		if isVeth(l) {
			d.t.Errorf("left behind after the end: link %s", l)
		}
	}
	for _, m := range added(d.base.mounts, now.mounts) {
		d.t.Errorf("left behind after the end: mount %s", m)
	}
	var dirs []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && (strings.HasSuffix(p, d.CgroupParent) || strings.Contains(p, d.CgroupParent+"/")) {
			dirs = append(dirs, p)
		}
		return nil
	})
	slices.Reverse(dirs)
	for _, p := range dirs {
		err := os.Remove(p)
		for try := 0; errors.Is(err, syscall.EBUSY) && try < 200; try++ { // a child that was parked there is about to end
			time.Sleep(10 * time.Millisecond)
			err = os.Remove(p)
		}
		if err != nil {
			d.t.Errorf("remove cgroup: %v", err)
		}
	}
}

// BusyboxTar returns a root file system with the host's static busybox.
func BusyboxTar(t testing.TB) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	bb, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v (package busybox-static)", err)
	}
	for _, dir := range []string{"bin", "etc", "root", "tmp", "var", "var/www", "home"} {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		add(tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: mode}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, bb)
	for _, a := range strings.Fields("sh ls cat echo true false sleep id env ps grep wc head tail touch mkdir rm mv cp ln chmod chown " +
		"stat test kill httpd nc wget ping ip hostname dd date sync mount umount tee yes seq sort tr cut printf stty tty nslookup " +
		"uname whoami vi df du find xargs sha256sum md5sum awk sed which top free nproc mknod readlink usleep timeout od clear") {
		add(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644},
		[]byte("root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644},
		[]byte("root:x:0:\nadm:x:4:root\nwww:x:33:\nextra:x:50:www\nnogroup:x:65534:\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}
