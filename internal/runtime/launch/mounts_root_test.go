//go:build root

package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// ownerDir is a directory with a file of user 0, and a file system below it.
func ownerDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(below, unix.MNT_DETACH) })
	for _, f := range []string{"file", "below/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMappedOwners(t *testing.T) {
	dir := ownerDir(t)
	needMaps(t, filepath.Join(dir, "below"))
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}}
	b := newBox(t, "stat -c %u /one/file /one/below/file /all/file /all/below/file /none/file; cd /one && echo x > made && stat -c %u made")
	b.l.Spec.Process.User = specs.User{UID: 1000, GID: 1000}
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	for dest, m := range map[string]specs.Mount{
		"/one":  {Options: []string{"rbind", "idmap"}, UIDMappings: ids, GIDMappings: ids},
		"/all":  {Options: []string{"rbind", "ridmap"}, UIDMappings: ids, GIDMappings: ids},
		"/none": {Options: []string{"rbind"}},
	} {
		m.Destination, m.Source, m.Type = dest, dir, "bind"
		b.l.Spec.Mounts = append(b.l.Spec.Mounts, m)
	}
	b.prints("1000\n0\n1000\n1000\n0\n1000\n")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "made"), &st); err != nil || st.Uid != 0 {
		t.Errorf("stored as %d's: %v", st.Uid, err)
	}
	for words, m := range map[string]specs.Mount{
		"must both be mapped": {Type: "bind", Source: dir, Options: []string{"bind"}, UIDMappings: ids},
		"only those of a":     {Type: "tmpfs", Options: []string{"idmap"}, UIDMappings: ids, GIDMappings: ids},
		"nothing says how":    {Type: "bind", Source: dir, Options: []string{"bind", "idmap"}},
		"map owners":          {Type: "bind", Source: "/proc/sys", Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids},
	} {
		b := newBox(t, "true")
		m.Destination = "/mnt"
		b.l.Spec.Mounts = append(b.l.Spec.Mounts, m)
		b.fails(words)
	}
}

func TestRecursiveOptions(t *testing.T) {
	dir := ownerDir(t)
	b := newBox(t, `for d in one all; do for f in $d $d/below; do touch /$f/x 2>/dev/null && printf w || printf r; done; done
grep -c ' /all/below .*nosuid,nodev,noexec,noatime' /proc/self/mountinfo
grep ' /one/below ' /proc/self/mountinfo | grep -c nosuid`)
	b.l.Spec.Mounts = append(b.l.Spec.Mounts,
		specs.Mount{Destination: "/one", Source: dir, Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/all", Source: dir, Options: []string{"rbind", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime"}})
	b.prints("rwrr1\n0\n")
}

func TestPropagation(t *testing.T) {
	dir := ownerDir(t)
	shared := filepath.Join(dir, "below")
	if err := unix.Mount("", shared, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	// The last field before the dash tells.
	b := newBox(t, `for d in shared slave private unbindable; do grep " /$d " /proc/self/mountinfo | sed 's/ - .*//' | cut -d ' ' -f 7 | tr -d '0-9'; done`)
	if err := os.Symlink("busybox", filepath.Join(b.l.Rootfs.Lower[0], "bin/sed")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"shared", "slave", "private", "unbindable"} {
		b.l.Spec.Mounts = append(b.l.Spec.Mounts, specs.Mount{Destination: "/" + p, Source: shared, Options: []string{"bind", p}})
	}
	b.prints("shared:\nmaster:\n\nunbindable\n")
	for p, want := range map[string]string{"shared": "shared:\n", "rslave": "\n" /* an overlay's: nobody's slave */, "private": "\n", "unbindable": "unbindable\n"} {
		b := newBox(t, `grep ' / / ' /proc/self/mountinfo | cut -d ' ' -f 7 | tr -d '0-9' | tr - ' ' | tr -d ' '`)
		b.l.Spec.Linux.RootfsPropagation = p
		b.prints(want)
	}
	// A root that is mounted on the host gets what is mounted there later.
	for p, want := range map[string]string{"slave": "late\n", "rslave": "late\n", "private": "", "": ""} {
		b := newBox(t, "read x < /fifo; ls /tmp")
		root := b.l.Rootfs.Lower[0]
		b.l.Rootfs = &runtime.Rootfs{Bind: root}
		if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Unmount(root, unix.MNT_DETACH) }()
		if err := unix.Mount("", root, "", unix.MS_SHARED, ""); err != nil {
			t.Fatal(err)
		}
		b.l.Spec.Linux.RootfsPropagation = p
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		tmp := filepath.Join(root, "tmp")
		if err := unix.Mount("tmpfs", tmp, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(filepath.Join(tmp, "late"), nil, 0o600), os.WriteFile(filepath.Join(root, "fifo"), []byte("go\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if b.wait(); b.out.String() != want {
			t.Errorf("%q: it sees %q, want %q", p, b.out.String(), want)
		}
	}
	b = newBox(t, "true")
	b.l.Spec.Linux.RootfsPropagation = "sideways"
	b.fails("is not known")
}

func TestCopyUp(t *testing.T) {
	b := newBox(t, "ls /etc; cat /etc/plain; stat -c '%a %u %g' /etc/odd /etc/dir; readlink /etc/link; touch /etc/new; stat -c %F /etc/fifo")
	lower := b.l.Rootfs.Lower[0]
	for _, err := range []error{
		os.WriteFile(filepath.Join(lower, "etc/odd"), nil, 0o600),
		os.Chown(filepath.Join(lower, "etc/odd"), 7, 8),
		os.Chmod(filepath.Join(lower, "etc/odd"), 0o751|os.ModeSetuid),
		os.Mkdir(filepath.Join(lower, "etc/dir"), 0o750),
		os.Symlink("/nowhere", filepath.Join(lower, "etc/link")),
		unix.Mkfifo(filepath.Join(lower, "etc/fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b.l.Spec.Mounts = append(b.l.Spec.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	b.prints("dir\nfifo\ngroup\nlink\nodd\npasswd\nplain\ntext\n4751 7 8\n750 0 0\n/nowhere\nfifo\n")
	if _, err := os.Stat(filepath.Join(b.l.Rootfs.Upper, "etc/new")); err == nil {
		t.Error("the image has it too")
	}
	b = newBox(t, "true")
	b.l.Spec.Mounts = append(b.l.Spec.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=4k"}})
	if err := os.WriteFile(filepath.Join(b.l.Rootfs.Lower[0], "etc/big"), make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	b.fails("tmpcopyup")
}

func without(b *box, kinds ...specs.LinuxNamespaceType) {
	var left []specs.LinuxNamespace
next:
	for _, n := range b.l.Spec.Linux.Namespaces {
		for _, k := range kinds {
			if n.Type == k {
				continue next
			}
		}
		left = append(left, n)
	}
	b.l.Spec.Linux.Namespaces = left
}

// inPlace makes a box that has no mount namespace of its own.
func inPlace(b *box) {
	without(b, specs.MountNamespace)
	b.l.Rootfs = &runtime.Rootfs{Bind: b.l.Rootfs.Lower[0]}
	b.l.Spec.Mounts, b.l.Spec.Linux.MaskedPaths, b.l.Spec.Linux.ReadonlyPaths = nil, nil, nil
}

func TestWithoutNamespaces(t *testing.T) {
	b := newBox(t, "ls /; echo $$; hostname")
	inPlace(b)
	b.l.Spec.Linux.Namespaces = nil
	b.l.Spec.Hostname = ""
	out, err := b.run()
	name, _ := os.Hostname()
	if err != nil || !strings.HasPrefix(out, "bin\ndev\netc\n") || strings.Contains(out, "\n1\n") || !strings.HasSuffix(out, "\n"+name+"\n") {
		t.Errorf("printed %q: %v", out, err)
	}
	b = newBox(t, "true")
	without(b, specs.UTSNamespace)
	b.fails("a host name needs a UTS namespace")
	for words, change := range map[string]func(*box){
		"an overlay needs":       func(b *box) { without(b, specs.MountNamespace) },
		"a read-only root needs": func(b *box) { inPlace(b); b.l.Spec.Root.Readonly = true },
		"masked and read-only":   func(b *box) { inPlace(b); b.l.Spec.Linux.MaskedPaths = []string{"/proc/kcore"} },
		"propagation needs":      func(b *box) { inPlace(b); b.l.Spec.Linux.RootfsPropagation = "shared" },
		"to map owners needs a mount namespace": func(b *box) {
			inPlace(b)
			ids := []specs.LinuxIDMapping{{HostID: 1000, Size: 10}}
			b.l.Spec.Mounts = []specs.Mount{{Destination: "/mnt", Source: b.t.TempDir(), Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids}}
		},
		"network devices need a ": func(b *box) {
			without(b, specs.NetworkNamespace)
			b.l.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x": {}}
		},
	} {
		b := newBox(t, "true")
		change(b)
		b.fails(words)
	}
}

// Nothing of a container without mounts of its own changes the host's, but for
// those it asks for below its root.
func TestJoinedMountNamespace(t *testing.T) {
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	first := newBox(t, "mkdir -p /inner/bin /inner/proc && cp -P /bin/* /inner/bin/ && echo ready > /tmp/x && echo hidden > /inner/mark && sleep 1000")
	if err := os.Symlink("busybox", filepath.Join(first.l.Rootfs.Lower[0], "bin/cp")); err != nil {
		t.Fatal(err)
	}
	if err := first.start(); err != nil {
		t.Fatal(err)
	}
	inner := "/proc/" + itoa(first.child.PID) + "/root/inner/mark"
	for range 1000 {
		if _, err := os.Stat(inner); err == nil {
			break
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
	}
	b := newBox(t, "cat /mark; readlink /proc/self/ns/mnt; echo $$")
	inPlace(b)
	ns := "/proc/" + itoa(first.child.PID) + "/ns/mnt"
	b.l.Rootfs = nil
	b.l.Spec.Root = &specs.Root{Path: "/inner"}
	b.l.Spec.Mounts = []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}}
	b.l.Spec.Linux.Namespaces = append(b.l.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.MountNamespace, Path: ns})
	b.prints("hidden\n" + link(t, ns) + "\n1\n")
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || string(after) != string(before) {
		t.Errorf("the host's mounts have changed: %v\n%s\n%s", err, before, after)
	}
	b = newBox(t, "true")
	b.l.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace, Path: "/nowhere"}}
	inPlace(b)
	b.l.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace, Path: "/nowhere"}}
	b.fails("join mount namespace /nowhere")
}

func TestMountWords(t *testing.T) {
	dir := ownerDir(t)
	b := newBox(t, `touch /one/x 2>/dev/null || echo ro; grep -c ' /one .*nosuid' /proc/self/mountinfo; grep ' /tmp ' /proc/self/mountinfo | grep -c 'rw,sync,dirsync'`)
	b.l.Spec.Mounts = append(b.l.Spec.Mounts,
		specs.Mount{Destination: "/one", Source: dir, Options: []string{"rbind", "rw", "silent", "x-gvfs-hide", "size=1k"}},
		specs.Mount{Destination: "/one", Options: []string{"bind", "remount", "ro", "nosuid"}},
		specs.Mount{Destination: "/tmp", Type: "tmpfs", Options: []string{"sync", "dirsync", "loud", "iversion"}})
	if got := Unheeded(b.l.Spec); len(got) != 1 || got[0] != "mount /one: option size=1k is ignored: it is a bind mount" {
		t.Errorf("told: %q", got)
	}
	b.prints("ro\n1\n1\n")
	for word, m := range map[string]specs.Mount{
		`option "nosiud": a bind mount`: {Type: "bind", Source: dir, Options: []string{"rbind", "nosiud"}},
		`option "sync": a bind mount`:   {Source: dir, Options: []string{"bind", "sync"}},
		"remount changes flags":         {Type: "tmpfs", Options: []string{"remount", "size=1k"}},
		"remount: ":                     {Type: "tmpfs", Options: []string{"remount", "ro"}}, // nothing is mounted there
		"wrong":                         {Type: "tmpfs", Options: []string{"wrong"}},
	} {
		b := newBox(t, "true")
		m.Destination = "/mnt"
		if err := os.Mkdir(filepath.Join(b.l.Rootfs.Lower[0], "mnt"), 0o755); err != nil {
			t.Fatal(err)
		}
		b.l.Spec.Mounts = append(b.l.Spec.Mounts, m)
		b.fails(word)
	}
}
