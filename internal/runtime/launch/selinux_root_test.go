//go:build root

package launch

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

const (
	processLabel = "system_u:system_r:container_t:s0:c1,c2"
	layerLabel   = "system_u:object_r:container_ro_file_t:s0"
	fileLabel    = "system_u:object_r:container_file_t:s0:c1,c2"
	labelsName   = "labels" // the tests' program, as a command in a container
)

// printLabels tells what the process, its keyrings and these files are labelled.
func printLabels(paths []string) {
	for _, name := range []string{"current", "exec", "keycreate", "fscreate"} {
		b, err := os.ReadFile("/proc/self/attr/" + name)
		fmt.Printf("%s=%s", name, bytes.TrimRight(b, "\x00\n"))
		if err != nil {
			fmt.Print(err)
		}
		fmt.Println()
	}
	buf := make([]byte, 256)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_GET_SECURITY, unix.KEY_SPEC_SESSION_KEYRING, buf, 0)
	if err != nil {
		fmt.Println("keyring:", err)
	} else {
		fmt.Printf("keyring=%s\n", bytes.TrimRight(buf[:n], "\x00"))
	}
	for _, p := range paths {
		n, err := unix.Getxattr(p, "security.selinux", buf)
		if err != nil {
			fmt.Println(p, err)
			continue
		}
		fmt.Printf("%s=%s\n", p, bytes.TrimRight(buf[:n], "\x00"))
	}
}

// needsSELinux skips the test unless the kernel's policy knows docker's labels.
func needsSELinux(t *testing.T) {
	t.Helper()
	if !selinuxEnabled() {
		t.Skip("the kernel has no SELinux, or it is off")
	}
	for _, l := range []string{processLabel, fileLabel, layerLabel} {
		if err := os.WriteFile("/sys/fs/selinux/context", []byte(l), 0); err != nil {
			t.Skipf("the host's policy does not know %s", l)
		}
	}
}

// labelledBox is a box with labels, its layer's files too, and with the tests'
// program in it.
func labelledBox(t *testing.T, args ...string) *box {
	t.Helper()
	b := newBox(t, "true")
	b.l.Spec.Process.Args = args
	b.l.Spec.Process.SelinuxLabel, b.l.Spec.Linux.MountLabel = processLabel, fileLabel
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.l.Rootfs.Lower[0], "bin", labelsName), self, 0o755); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(b.l.Rootfs.Lower[0], func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.Lsetxattr(path, "security.selinux", []byte(layerLabel), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Files on every mount of the container's own, a directory that is masked among them.
var labelledPaths = []string{
	"/", "/bin/busybox", "/dev", "/dev/null", "/dev/pts", "/dev/pts/ptmx", "/dev/shm", "/dev/mqueue", "/tmp", "/sys/firmware", "/run",
}

func wantLabels(paths []string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "current=%s\nexec=\nkeycreate=\nfscreate=\nkeyring=%[1]s\n", processLabel)
	for _, p := range paths {
		fmt.Fprintf(&w, "%s=%s\n", p, fileLabel)
	}
	return w.String()
}

func withTmpfs(b *box) {
	b.l.Spec.Mounts = append(b.l.Spec.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
}

func TestSELinuxLabels(t *testing.T) {
	needsSELinux(t)
	run := append([]string{labelsName}, labelledPaths...)
	for _, c := range []struct {
		name  string
		alter func(b *box)
	}{
		{"plain", func(*box) {}},
		{"unprivileged", func(b *box) {
			b.l.Spec.Process.NoNewPrivileges = true
			b.l.Spec.Process.Capabilities = &specs.LinuxCapabilities{}
			b.l.Spec.Process.User = specs.User{UID: 1000, GID: 1001}
		}},
		{"with a reaper", func(b *box) { b.l.Init = true }},
		{"in a user namespace", inUserNS},
		{"of one layer that is only read", func(b *box) {
			b.l.Spec.Root.Readonly = true
			b.l.Rootfs = &runtime.Rootfs{Lower: b.l.Rootfs.Lower}
		}},
		{"of one layer that is only read, in a user namespace", func(b *box) {
			b.l.Spec.Root.Readonly = true
			b.l.Rootfs = &runtime.Rootfs{Lower: b.l.Rootfs.Lower}
			inUserNS(b)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := labelledBox(t, run...)
			if err := os.Mkdir(filepath.Join(b.l.Rootfs.Lower[0], "run"), 0o755); err != nil {
				t.Fatal(err)
			}
			withTmpfs(b)
			c.alter(b)
			b.prints(wantLabels(labelledPaths))
		})
	}
}

func TestSELinuxExec(t *testing.T) {
	needsSELinux(t)
	b := labelledBox(t, "sleep", "1000")
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	p := *b.l.Spec.Process
	p.Args = []string{labelsName, "/"}
	if out, err := b.exec(&p, nil); err != nil || out != wantLabels([]string{"/"}) {
		t.Errorf("printed %q: %v", out, err)
	}
	p.SelinuxLabel = "system_u:system_r:nobody_knows_t:s0"
	if out, err := b.exec(&p, nil); err == nil || !strings.Contains(err.Error(), p.SelinuxLabel) {
		t.Errorf("with a label that is not known: printed %q: %v", out, err)
	}
	// A process that has no label of its own is not the container's.
	p.SelinuxLabel = ""
	if out, err := b.exec(&p, nil); err != nil || strings.Contains(out, "current="+processLabel) {
		t.Errorf("without a label: printed %q: %v", out, err)
	}
}

// What is not labelled as the container's is not for it to read.
func TestSELinuxEnforced(t *testing.T) {
	needsSELinux(t)
	if b, err := os.ReadFile("/sys/fs/selinux/enforce"); err != nil || string(b) != "1" {
		t.Skip("SELinux does not enforce its policy")
	}
	dir := t.TempDir()
	var words []string
	for name, label := range map[string]string{
		"own": fileLabel, "shared": "system_u:object_r:container_file_t:s0", "other": "system_u:object_r:container_file_t:s0:c1,c3", "host": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
		if label != "" {
			if err := unix.Setxattr(path, "security.selinux", []byte(label), 0); err != nil {
				t.Fatal(err)
			}
		}
		words = append(words, name)
	}
	slices.Sort(words)
	if err := unix.Setxattr(dir, "security.selinux", []byte(fileLabel), 0); err != nil {
		t.Fatal(err)
	}
	b := labelledBox(t, "sh", "-c", "for f in "+strings.Join(words, " ")+"; do cat /data/$f 2>/dev/null && echo; done; true")
	b.l.Spec.Mounts = append(b.l.Spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: dir, Options: []string{"rbind"}})
	b.prints("own\nshared\n")
}

func TestSELinuxAbsent(t *testing.T) {
	if selinuxEnabled() {
		t.Skip("the kernel has SELinux: TestSELinuxLabels looks at it")
	}
	b := newBox(t, "true")
	b.l.Spec.Process.SelinuxLabel = processLabel
	if _, err := b.run(); !errs.Is(err, errs.Unsupported) {
		t.Errorf("process label: %v", err)
	}
	b = newBox(t, "true")
	b.l.Spec.Linux.MountLabel = fileLabel
	if _, err := b.run(); !errs.Is(err, errs.Unsupported) {
		t.Errorf("mount label: %v", err)
	}
}
