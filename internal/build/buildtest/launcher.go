//go:build root

// Package buildtest has what tests of builds need in place of the engine's
// launcher and networks.
package buildtest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/build"
)

const childEnv = "SKIFF_BUILD_TEST_CHILD"

// Main is called by a test binary's TestMain: the launcher starts steps by
// running that binary again.
func Main(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		err := childMain()
		fmt.Fprintln(os.Stderr, "test launcher:", err)
		os.Exit(125)
	}
	os.Exit(m.Run())
}

// Launcher runs steps well enough for tests: namespaces, the overlay, the
// spec's mounts, chroot. It confines nothing.
type Launcher struct {
	mu    sync.Mutex
	live  map[string]*os.Process
	runs  int
	specs []*specs.Spec
}

var _ build.Launcher = (*Launcher)(nil)

// Runs counts the steps that were started.
func (l *Launcher) Runs() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs
}

// Last is the specification of the newest step.
func (l *Launcher) Last() *specs.Spec {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.specs) == 0 {
		return nil
	}
	return l.specs[len(l.specs)-1]
}

// Run implements build.Launcher.
func (l *Launcher) Run(_ context.Context, r *build.Run) (<-chan build.Exit, error) {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC)
	for _, ns := range r.Spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			flags |= unix.CLONE_NEWNET
		}
	}
	b, err := json.Marshal(struct {
		Spec   *specs.Spec
		Rootfs build.Rootfs
	}{r.Spec, r.Rootfs})
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp("", "run")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(f.Name()); _ = f.Close() }()
	if _, err := f.Write(b); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return nil, err
	}
	c := exec.Command("/proc/self/exe")
	c.Env = []string{childEnv + "=1"}
	c.ExtraFiles = []*os.File{f}
	c.Stdin, c.Stdout, c.Stderr = r.Stdio[0], r.Stdio[1], r.Stdio[2]
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	if l.live == nil {
		l.live = map[string]*os.Process{}
	}
	l.live[r.ID] = c.Process
	l.runs++
	l.specs = append(l.specs, r.Spec)
	l.mu.Unlock()
	out := make(chan build.Exit, 1)
	go func() {
		err := c.Wait()
		var x *exec.ExitError
		switch {
		case err == nil:
			out <- build.Exit{}
		case errors.As(err, &x) && x.Sys().(syscall.WaitStatus).Signaled():
			out <- build.Exit{Code: 128 + int(x.Sys().(syscall.WaitStatus).Signal())}
		case errors.As(err, &x):
			out <- build.Exit{Code: x.ExitCode()}
		default:
			out <- build.Exit{Err: err}
		}
	}()
	return out, nil
}

// Exec implements build.Launcher; it is not supported.
func (l *Launcher) Exec(context.Context, *build.Exec) (<-chan build.Exit, error) {
	return nil, errors.ErrUnsupported
}

// Kill implements build.Launcher.
func (l *Launcher) Kill(_ context.Context, id, _ string, sig int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.live[id]; p != nil {
		return p.Signal(syscall.Signal(sig))
	}
	return nil
}

// Resize implements build.Launcher.
func (l *Launcher) Resize(context.Context, string, string, uint, uint) error { return nil }

// Delete implements build.Launcher.
func (l *Launcher) Delete(_ context.Context, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, id)
	return nil
}

func childMain() error {
	var in struct {
		Spec   *specs.Spec
		Rootfs build.Rootfs
	}
	f := os.NewFile(3, "run")
	if err := json.NewDecoder(f).Decode(&in); err != nil {
		return err
	}
	_ = f.Close()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	root := "/mnt"
	r := in.Rootfs
	switch {
	case r.Bind != "":
		if err := unix.Mount(r.Bind, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", r.Bind, err)
		}
	default:
		o := "index=off,redirect_dir=off,metacopy=off,lowerdir=" + strings.Join(r.Lower, ":")
		if r.Upper != "" {
			o += ",upperdir=" + r.Upper + ",workdir=" + r.Work
		}
		if r.Volatile {
			o += ",volatile"
		}
		if err := unix.Mount("overlay", root, "overlay", 0, o); err != nil {
			return fmt.Errorf("overlay %s: %w", o, err)
		}
	}
	for _, m := range in.Spec.Mounts {
		if err := childMount(root, m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	_ = unix.Sethostname([]byte(in.Spec.Hostname))
	if err := unix.Chroot(root); err != nil {
		return err
	}
	p := in.Spec.Process
	if err := os.MkdirAll(p.Cwd, 0o755); err != nil {
		return err
	}
	if err := os.Chdir(p.Cwd); err != nil {
		return err
	}
	path := p.Args[0]
	if !strings.Contains(path, "/") {
		for _, d := range []string{"/bin", "/usr/bin", "/sbin"} {
			if _, err := os.Stat(filepath.Join(d, path)); err == nil {
				path = filepath.Join(d, path)
				break
			}
		}
	}
	return unix.Exec(path, p.Args, p.Env)
}

func childMount(root string, m specs.Mount) error {
	to := filepath.Join(root, m.Destination)
	if m.Type == "cgroup" {
		return nil
	}
	if m.Type == "bind" {
		st, err := os.Stat(m.Source)
		if err != nil {
			return err
		}
		if st.IsDir() {
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
		} else {
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			f, err := os.OpenFile(to, os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			_ = f.Close()
		}
		if err := unix.Mount(m.Source, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
		for _, o := range m.Options {
			if o == "ro" {
				return unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
			}
		}
		return nil
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	var data []string
	for _, o := range m.Options {
		switch o {
		case "nosuid", "noexec", "nodev", "ro", "rw", "strictatime", "newinstance", "relatime":
		default:
			data = append(data, o)
		}
	}
	if m.Destination == "/dev/mqueue" || m.Destination == "/sys" {
		return nil
	}
	return unix.Mount(m.Source, to, m.Type, 0, strings.Join(data, ","))
}

// Networks has only loopback to offer.
type Networks struct{}

type network struct{}

var _ build.Networks = Networks{}

// New implements build.Networks.
func (Networks) New(context.Context, string, string, string) (build.Network, error) {
	return network{}, nil
}

// HostResolvConf implements build.Networks.
func (Networks) HostResolvConf(context.Context) ([]byte, error) { return nil, nil }

func (network) NetNS() *os.File    { return nil }
func (network) ResolvConf() []byte { return []byte("nameserver 192.0.2.1\n") }
func (network) Hosts() []byte      { return nil }
func (network) Close() error       { return nil }

// File is one of a build context.
type File struct {
	Name, Body string
	Mode       int64 // 0644 if zero
}

// Tar packs a build context.
func Tar(t testing.TB, files ...File) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		mode := f.Mode
		if mode == 0 {
			mode = 0o644
		}
		if err := w.WriteHeader(&tar.Header{Name: f.Name, Mode: mode, Size: int64(len(f.Body)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.Body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// Busybox is a static one, as a file of a context.
func Busybox(t testing.TB) File {
	t.Helper()
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static busybox")
	}
	return File{"busybox", string(b), 0o755}
}

// Base is a Dockerfile that makes an image with a shell of [Busybox].
const Base = `FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
CMD ["sh"]
`
