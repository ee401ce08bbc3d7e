//go:build root

package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// rootfs is a two-layer image with a writable layer, and a secret beside it
// that nothing may reach.
type rootfs struct {
	runtime.Rootfs
	dir, secret string
}

func newRootfs(t testing.TB) *rootfs {
	t.Helper()
	dir := t.TempDir()
	r := &rootfs{dir: dir, secret: filepath.Join(dir, "secret")}
	r.Lower = []string{filepath.Join(dir, "l2"), filepath.Join(dir, "l1")}
	r.Upper, r.Work = filepath.Join(dir, "up"), filepath.Join(dir, "work")
	for _, d := range []string{"l1/etc/deep", "l1/data", "l2/usr/bin", "up", "work", "l2/tmp"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	must(t, os.WriteFile(r.secret, []byte("secret"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "l1/etc/passwd"), []byte("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "l1/etc/old"), []byte("old"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "l1/etc/deep/x"), []byte("x"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "l2/usr/bin/tool"), []byte("tool"), 0o4755))
	must(t, os.Chmod(filepath.Join(dir, "l2/usr/bin/tool"), 0o755|fs.ModeSetuid))
	must(t, os.Link(filepath.Join(dir, "l2/usr/bin/tool"), filepath.Join(dir, "l2/usr/bin/tool2")))
	must(t, os.Symlink("usr/bin", filepath.Join(dir, "l2/bin")))
	must(t, os.Symlink(dir, filepath.Join(dir, "l2/abs")))          // to the host
	must(t, os.Symlink("../../../..", filepath.Join(dir, "l2/up"))) // to the host's root
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rootfs) open(t testing.TB, m ...layer.RootMount) *layer.Root {
	t.Helper()
	root, err := layer.OpenRoot(&r.Rootfs, m...)
	must(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return root
}

var ctx = context.Background()

func tarNames(t testing.TB, b []byte) map[string]*tar.Header {
	t.Helper()
	out := map[string]*tar.Header{}
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		must(t, err)
		out[h.Name] = h
		if strings.Contains(h.Name, "secret") {
			t.Fatalf("%s is in the archive", h.Name)
		}
	}
}

func makeTar(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range hs {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = h.Linkname
			h.Linkname, h.Size = "", int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.ModTime = time.Unix(1_700_000_000, 0)
		must(t, tw.WriteHeader(&h))
		_, err := io.WriteString(tw, body)
		must(t, err)
	}
	must(t, tw.Close())
	return b.Bytes()
}

func mounts(t testing.TB) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return string(b)
}

func TestRootStatAndTar(t *testing.T) {
	before := mounts(t)
	r := newRootfs(t)
	root := r.open(t)
	if mounts(t) != before {
		t.Error("the root is in the host's mount table")
	}
	for p, want := range map[string]string{
		"/bin/tool": "tool 4 urwxr-xr-x ", "bin": "bin 7 Lrwxrwxrwx /usr/bin", "/etc/../etc/old": "old 3 -rw-r--r-- ",
		"/bin/": "bin - drwxr-xr-x ", "/etc/.": ". - drwxr-xr-x ", "/": "/ - drwxr-xr-x ",
	} {
		st, err := root.Stat(ctx, p)
		must(t, err)
		size := fmt.Sprint(st.Size)
		if st.Mode.IsDir() {
			size = "-"
		}
		if got := fmt.Sprintf("%s %s %s %s", st.Name, size, st.Mode, st.LinkTarget); got != want {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
	for _, p := range []string{"/nope", "/etc/old/x", "/abs/secret", "/up/etc/hostname"} {
		if _, err := root.Stat(ctx, p); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: %v", p, err)
		}
	}
	for p, want := range map[string][]string{
		"/etc":      {"etc/", "etc/passwd", "etc/old", "etc/deep/", "etc/deep/x"},
		"/etc/.":    {"./", "./passwd", "./old", "./deep/", "./deep/x"},
		"/bin/tool": {"tool"},
		"/abs":      {"abs"},
		"/": {
			"/", "/etc/", "/etc/passwd", "/etc/old", "/etc/deep/", "/etc/deep/x", "/data/", "/usr/", "/usr/bin/",
			"/usr/bin/tool", "/usr/bin/tool2", "/tmp/", "/bin", "/abs", "/up",
		},
	} {
		var b bytes.Buffer
		must(t, root.Tar(ctx, p, &b))
		got := tarNames(t, b.Bytes())
		if len(got) != len(want) {
			t.Errorf("%s: %v", p, got)
		}
		for _, n := range want {
			if got[n] == nil {
				t.Errorf("%s: no %s", p, n)
			}
		}
	}
	var b bytes.Buffer
	must(t, root.Export(ctx, &b))
	all := tarNames(t, b.Bytes())
	if h := all["usr/bin/tool2"]; h == nil || h.Typeflag != tar.TypeLink || h.Linkname != "usr/bin/tool" {
		t.Errorf("hard link: %+v", h)
	}
	if all["usr/bin/tool"].Mode != 0o4755 || all["abs"].Typeflag != tar.TypeSymlink {
		t.Error("modes or links are lost")
	}
}

func TestUntar(t *testing.T) {
	r := newRootfs(t)
	root := r.open(t)
	body := makeTar(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "new/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 5, Gid: 6},
		tar.Header{Name: "new/f", Typeflag: tar.TypeReg, Linkname: "hello", Mode: 0o4711, Uid: 7, Gid: 8, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}},
		tar.Header{Name: "new/hard", Typeflag: tar.TypeLink, Linkname: "new/f"},
		tar.Header{Name: "new/soft", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"},
		tar.Header{Name: "new/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "implied/dir/f", Typeflag: tar.TypeReg, Linkname: "x"},
	)
	must(t, root.Untar(ctx, "/etc", bytes.NewReader(body), layer.UntarOptions{}))
	up := filepath.Join(r.Upper, "etc")
	var st unix.Stat_t
	must(t, unix.Lstat(up+"/new/f", &st))
	if st.Mode != unix.S_IFREG|0o4711 || st.Uid != 7 || st.Gid != 8 || st.Nlink != 2 || st.Mtim.Sec != 1_700_000_000 {
		t.Errorf("%+v", st)
	}
	must(t, unix.Lstat(up+"/new", &st))
	if st.Mode != unix.S_IFDIR|0o750 || st.Uid != 5 || st.Mtim.Sec != 1_700_000_000 {
		t.Errorf("%+v", st)
	}
	if b, _ := os.ReadFile(up + "/implied/dir/f"); string(b) != "x" {
		t.Error("implied directories")
	}
	if st, _ := os.Stat(up); st.Mode().Perm() != 0o755 {
		t.Error("the destination's own mode changed")
	}
	must(t, root.Untar(ctx, "/etc", bytes.NewReader(body), layer.UntarOptions{User: &runtime.User{Spec: "app"}})) // again, over itself
	must(t, unix.Lstat(up+"/new/f", &st))
	if st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("owner %d:%d", st.Uid, st.Gid)
	}
	for name, tc := range map[string]struct {
		p    string
		hdr  tar.Header
		kind errs.Kind
	}{
		"into a file":         {"/etc/old", tar.Header{Name: "x", Typeflag: tar.TypeReg}, errs.Invalid},
		"directory over file": {"/etc", tar.Header{Name: "old", Typeflag: tar.TypeDir}, errs.Invalid},
		"file over directory": {"/etc", tar.Header{Name: "deep", Typeflag: tar.TypeReg}, errs.Invalid},
	} {
		if err := root.Untar(ctx, tc.p, bytes.NewReader(makeTar(t, tc.hdr)), layer.UntarOptions{NoOverwriteDirNonDir: true}); !errs.Is(err, tc.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := root.Untar(ctx, "/nope", bytes.NewReader(body), layer.UntarOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestUntarStaysInside is what CVE-2018-15664, CVE-2021-41089 and their kind did: an
// archive's own links, and the container's, must not lead out.
func TestUntarStaysInside(t *testing.T) {
	for name, hs := range map[string][]tar.Header{
		"dots":                     {{Name: "../../../../secret", Typeflag: tar.TypeReg, Linkname: "bad"}},
		"absolute name":            {{Name: "/secret", Typeflag: tar.TypeReg, Linkname: "bad"}},
		"through the image":        {{Name: "abs/secret", Typeflag: tar.TypeReg, Linkname: "bad"}},
		"over the image's link":    {{Name: "up/secret", Typeflag: tar.TypeReg, Linkname: "bad"}},
		"through its own link":     {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "@DIR"}, {Name: "l/secret", Typeflag: tar.TypeReg, Linkname: "bad"}},
		"hard link out":            {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../../../../@DIR/secret"}, {Name: "h", Typeflag: tar.TypeReg, Linkname: "bad"}},
		"hard link through a link": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "@DIR"}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "l/secret"}},
		"file over its own link":   {{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "@DIR/secret"}, {Name: "s", Typeflag: tar.TypeReg, Linkname: "bad", Mode: 0o777}},
		"mode through a link":      {{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "@DIR/secret", Mode: 0o777}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRootfs(t)
			root := r.open(t)
			for i := range hs {
				hs[i].Linkname = strings.ReplaceAll(hs[i].Linkname, "@DIR", r.dir)
			}
			err := root.Untar(ctx, "/", bytes.NewReader(makeTar(t, hs...)), layer.UntarOptions{})
			t.Log(err)
			b, _ := os.ReadFile(r.secret)
			st, _ := os.Stat(r.secret)
			if string(b) != "secret" || st.Mode().Perm() != 0o600 {
				t.Errorf("the host's file is now %q, %v", b, st.Mode())
			}
			var sys unix.Stat_t
			if must(t, unix.Stat(r.secret, &sys)); sys.Nlink != 1 {
				t.Error("the host's file was linked into the container")
			}
		})
	}
}

// TestRacingLinks: a container that swaps a directory for a link to the host
// while files are copied in and out.
func TestRacingLinks(t *testing.T) {
	r := newRootfs(t)
	root := r.open(t)
	victim := filepath.Join(r.dir, "victim")
	must(t, os.MkdirAll(victim, 0o700))
	must(t, os.WriteFile(victim+"/secret", []byte("secret"), 0o600))
	inside := r.open(t) // another view of the same root: the container's
	must(t, inside.Untar(ctx, "/", bytes.NewReader(makeTar(t, tar.Header{Name: "race/a/", Typeflag: tar.TypeDir, Mode: 0o755})), layer.UntarOptions{}))
	var stop atomic.Bool
	done := make(chan struct{})
	dir := filepath.Join(r.Upper, "race")
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = os.Rename(dir+"/a", dir+"/b")
			_ = os.Symlink(victim, dir+"/a")
			_ = os.Remove(dir + "/a")
			_ = os.Rename(dir+"/b", dir+"/a")
		}
	}()
	body := makeTar(t, tar.Header{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o777}, tar.Header{Name: "a/secret", Typeflag: tar.TypeReg, Linkname: "bad", Mode: 0o666})
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		_ = root.Untar(ctx, "/race", bytes.NewReader(body), layer.UntarOptions{})
		var b bytes.Buffer
		if root.Tar(ctx, "/race/a/secret", &b) == nil && bytes.Contains(b.Bytes(), []byte("secret\x00\x00")) && !bytes.Contains(b.Bytes(), []byte("bad")) {
			tr := tar.NewReader(&b)
			if _, err := tr.Next(); err == nil {
				if text, _ := io.ReadAll(tr); string(text) == "secret" {
					t.Error("read the host's file")
				}
			}
		}
	}
	stop.Store(true)
	<-done
	b, _ := os.ReadFile(victim + "/secret")
	st, _ := os.Stat(victim)
	if string(b) != "secret" || st.Mode().Perm() != 0o700 {
		t.Errorf("the host's file is now %q in %v", b, st.Mode())
	}
}

func TestRootWithMounts(t *testing.T) {
	before := mounts(t)
	r := newRootfs(t)
	vol, ro := filepath.Join(r.dir, "vol"), filepath.Join(r.dir, "ro")
	must(t, os.MkdirAll(vol, 0o755))
	must(t, os.MkdirAll(ro, 0o755))
	must(t, os.WriteFile(vol+"/v", []byte("volume"), 0o644))
	must(t, os.WriteFile(r.dir+"/hosts", []byte("hosts"), 0o644))
	root := r.open(t,
		layer.RootMount{Source: vol, Destination: "/data"},
		layer.RootMount{Source: ro, Destination: "/data/ro", ReadOnly: true},
		layer.RootMount{Source: r.dir + "/hosts", Destination: "/etc/hosts"},
	)
	if mounts(t) != before {
		t.Error("the host's mount table changed")
	}
	if st, err := root.Stat(ctx, "/data/v"); err != nil || st.Size != 6 {
		t.Errorf("%+v %v", st, err)
	}
	file := makeTar(t, tar.Header{Name: "n", Typeflag: tar.TypeReg, Linkname: "new"})
	must(t, root.Untar(ctx, "/data", bytes.NewReader(file), layer.UntarOptions{}))
	if b, _ := os.ReadFile(vol + "/n"); string(b) != "new" {
		t.Error("the file is not in the volume")
	}
	if err := root.Untar(ctx, "/data/ro", bytes.NewReader(file), layer.UntarOptions{}); !errs.Is(err, errs.Invalid) || err.Error() != "mounted volume is marked read-only" {
		t.Error(err)
	}
	var b bytes.Buffer
	must(t, root.Export(ctx, &b))
	got := tarNames(t, b.Bytes())
	if got["data/v"] != nil || got["data/"] == nil || got["etc/hosts"] == nil || got["etc/hosts"].Size != 0 {
		t.Error("export crosses mounts")
	}
	must(t, root.Close())
	if mounts(t) != before {
		t.Error("something is left mounted")
	}
}

func TestOpenPID(t *testing.T) {
	root, err := layer.OpenPID(os.Getpid())
	must(t, err)
	defer func() { _ = root.Close() }()
	st, err := root.Stat(ctx, "/proc/self/status")
	if err == nil && st.Name != "status" {
		t.Errorf("%+v", st)
	}
	var b bytes.Buffer
	must(t, root.Tar(ctx, "/proc", &b))
	if got := tarNames(t, b.Bytes()); len(got) != 1 {
		t.Errorf("%d entries of the kernel's file system", len(got))
	}
	if err := root.Untar(ctx, "/proc", bytes.NewReader(makeTar(t)), layer.UntarOptions{}); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

// TestOpenMount: the root of a process without what is mounted in it, which the
// kernel does not take apart for a user namespace that must not see beneath.
func TestOpenMount(t *testing.T) {
	before := mounts(t)
	for _, tc := range []struct {
		name  string
		flags uintptr
		want  error
	}{{"own mounts", unix.CLONE_NEWNS, nil}, {"own users", unix.CLONE_NEWNS | unix.CLONE_NEWUSER, unix.EINVAL}} {
		t.Run(tc.name, func(t *testing.T) {
			// It tells that it is there, in its namespaces.
			c := exec.Command("sh", "-c", "echo; exec sleep 1000")
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: tc.flags}
			out, err := c.StdoutPipe()
			must(t, err)
			must(t, c.Start())
			defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			root, err := layer.OpenMount(c.Process.Pid)
			if !errors.Is(err, tc.want) {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			defer func() { _ = root.Close() }()
			if st, err := root.Stat(ctx, "/proc"); err != nil || !st.Mode.IsDir() {
				t.Errorf("%+v %v", st, err)
			}
			if st, err := root.Stat(ctx, "/proc/self"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what is mounted is there: %+v %v", st, err)
			}
		})
	}
	if _, err := layer.OpenMount(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if mounts(t) != before {
		t.Error("something is left mounted")
	}
}

func TestChanges(t *testing.T) {
	r := newRootfs(t)
	root := r.open(t)
	// Changes by way of the overlay itself, through a second, attached view.
	view := filepath.Join(r.dir, "view")
	must(t, os.MkdirAll(view, 0o755))
	_ = root.Close()
	must(t, unix.Mount("overlay", view, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(r.Lower, ":"), r.Upper, r.Work)))
	t.Cleanup(func() { _ = unix.Unmount(view, unix.MNT_DETACH) })
	must(t, os.WriteFile(view+"/etc/new", nil, 0o644))
	must(t, os.WriteFile(view+"/etc/old", []byte("changed"), 0o644))
	must(t, os.Remove(view+"/usr/bin/tool2"))
	must(t, os.RemoveAll(view+"/etc/deep"))
	must(t, os.MkdirAll(view+"/etc/deep/sub", 0o755))
	must(t, os.MkdirAll(view+"/a/b", 0o755))
	must(t, os.WriteFile(view+"/a-b", nil, 0o644))
	must(t, os.Remove(view+"/abs"))
	f, err := os.OpenFile(view+"/etc/passwd", os.O_RDWR, 0) // copied up, not changed
	must(t, err)
	must(t, f.Close())
	must(t, os.WriteFile(view+"/tmp/hosts", nil, 0o644)) // as if the engine had
	must(t, os.WriteFile(view+"/etc/hosts", nil, 0o644))
	must(t, os.MkdirAll(view+"/proc", 0o755))
	must(t, os.MkdirAll(view+"/dev/pts", 0o755))
	got, err := layer.Changes(ctx, r.Upper, r.Lower, func(p string) bool { return p == "/tmp/hosts" })
	must(t, err)
	var text []string
	for _, c := range got {
		text = append(text, c.Kind.String()+" "+c.Path)
	}
	want := []string{
		"A /a", "A /a/b", "A /a-b", "D /abs", "C /etc", "C /etc/deep", "A /etc/deep/sub", "D /etc/deep/x", "A /etc/new", "C /etc/old",
		"C /usr", "C /usr/bin", "D /usr/bin/tool2",
	}
	if d := cmp.Diff(want, text); d != "" {
		t.Error(d)
	}
}

func TestCopyUp(t *testing.T) {
	r := newRootfs(t)
	vol := filepath.Join(r.dir, "vol")
	must(t, os.Mkdir(vol, 0o700))
	must(t, os.Chown(filepath.Join(r.Lower[0], "usr/bin"), 12, 13))
	must(t, unix.Setxattr(filepath.Join(r.Lower[0], "usr/bin/tool"), "user.k", []byte("v"), 0))
	must(t, os.Symlink(r.secret, filepath.Join(r.Lower[0], "usr/bin/s")))
	must(t, os.Mkdir(filepath.Join(r.Lower[0], "usr/bin/d"), 0o751))
	must(t, layer.CopyUp(ctx, &r.Rootfs, "/bin", vol, "", nil)) // by the image's link
	var a, b, d unix.Stat_t
	must(t, unix.Lstat(vol+"/tool", &a))
	must(t, unix.Lstat(vol+"/tool2", &b))
	must(t, unix.Lstat(vol, &d))
	if a.Mode != unix.S_IFREG|0o4755 || a.Ino != b.Ino || d.Uid != 12 || d.Gid != 13 || d.Mode&0o777 != 0o755 {
		t.Errorf("%+v\n%+v\n%+v", a, b, d)
	}
	if l, _ := os.Readlink(vol + "/s"); l != r.secret {
		t.Errorf("link %q", l)
	}
	if v := make([]byte, 1); func() bool { n, err := unix.Getxattr(vol+"/tool", "user.k", v); return err != nil || n != 1 }() {
		t.Error("extended attribute is lost")
	}
	for _, p := range []string{"/nope", "/etc/old", "/abs", "/up/../nope"} { // CVE-2022-23648: not the host's
		empty := t.TempDir()
		must(t, layer.CopyUp(ctx, &r.Rootfs, p, empty, "", nil))
		if ents, _ := os.ReadDir(empty); len(ents) != 0 {
			t.Errorf("%s: copied %v", p, ents)
		}
	}
	// A place in it, by a link that stays inside; what is there stays, and a file is
	// no place.
	must(t, os.Mkdir(vol+"/d/in", 0o700))
	must(t, os.Symlink("in", vol+"/d/link"))
	must(t, layer.CopyUp(ctx, &r.Rootfs, "/bin", vol, "d/link", nil))
	must(t, layer.CopyUp(ctx, &r.Rootfs, "/etc", vol, "d", nil))
	must(t, layer.CopyUp(ctx, &r.Rootfs, "/etc", vol, "tool", nil))
	if err := layer.CopyUp(ctx, &r.Rootfs, "/etc", vol, "s", nil); err == nil || !strings.Contains(err.Error(), "escapes the base directory") {
		t.Error(err)
	}
	// Outside of a user namespace they have other owners; who is nobody there fails.
	users := &userns.Map{
		UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 20}},
		GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 6000, Size: 20}},
	}
	mapped := t.TempDir()
	must(t, layer.CopyUp(ctx, &r.Rootfs, "/bin", mapped, "", users))
	for name, want := range map[string][2]uint32{"": {5012, 6013}, "/tool": {5000, 6000}, "/s": {5000, 6000}} {
		var st unix.Stat_t
		must(t, unix.Lstat(mapped+name, &st))
		if got := [2]uint32{st.Uid, st.Gid}; got != want {
			t.Errorf("%s is owned by %v, want %v", name, got, want)
		}
	}
	users.UIDs[0].Size = 2
	if err := layer.CopyUp(ctx, &r.Rootfs, "/bin", t.TempDir(), "", users); err == nil || !strings.Contains(err.Error(), "owner 12:13") {
		t.Error(err)
	}
	ents, err := os.ReadDir(vol + "/d")
	must(t, err)
	if _, err := os.Stat(vol + "/d/in/tool2"); err != nil || len(ents) != 2 {
		t.Errorf("%v %v", ents, err)
	}
	must(t, os.RemoveAll(vol+"/d"))
	n, err := layer.DiskUsage(ctx, vol)
	if want := int64(4 + len(r.secret)); err != nil || n != want {
		t.Errorf("usage %d, want %d: %v", n, want, err)
	}
}

// TestUserFilesAreNotTrusted: CVE-2024-9676: /etc/passwd as a fifo or a device
// must not hang or starve the daemon.
func TestUserFilesAreNotTrusted(t *testing.T) {
	r := newRootfs(t)
	root := r.open(t)
	must(t, root.Untar(ctx, "/etc", bytes.NewReader(makeTar(t, tar.Header{Name: "passwd", Typeflag: tar.TypeFifo})), layer.UntarOptions{}))
	err := root.Untar(ctx, "/etc", bytes.NewReader(makeTar(t, tar.Header{Name: "x", Typeflag: tar.TypeReg})), layer.UntarOptions{User: &runtime.User{Spec: "app"}})
	if !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func FuzzUntar(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRootfs(t)
		root := r.open(t)
		_ = root.Untar(ctx, "/etc", bytes.NewReader(b), layer.UntarOptions{})
		if b, _ := os.ReadFile(r.secret); string(b) != "secret" {
			t.Error("the host's file changed")
		}
	})
}

func TestAfterVolatile(t *testing.T) {
	r := newRootfs(t)
	at := filepath.Join(r.dir, "merged")
	must(t, os.Mkdir(at, 0o755))
	o := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,volatile", strings.Join(r.Lower, ":"), r.Upper, r.Work)
	must(t, unix.Mount("overlay", at, "overlay", 0, o))
	must(t, os.WriteFile(filepath.Join(at, "new"), []byte("new"), 0o644))
	must(t, unix.Unmount(at, 0))
	if st, err := r.open(t).Stat(ctx, "/new"); err != nil || st.Size != 3 {
		t.Errorf("%+v, %v", st, err)
	}
}
