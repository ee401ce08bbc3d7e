//go:build root

package build

import (
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
)

const childEnv = "SKIFF_BUILD_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		err := childMain()
		fmt.Fprintln(os.Stderr, "test launcher:", err)
		os.Exit(125)
	}
	os.Exit(m.Run())
}

// testLauncher runs steps well enough for tests: namespaces, the overlay, the
// spec's mounts, chroot. It confines nothing.
type testLauncher struct {
	mu   sync.Mutex
	live map[string]*os.Process
	runs int
}

func (l *testLauncher) Run(_ context.Context, r *Run) (<-chan Exit, error) {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC)
	for _, ns := range r.Spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			flags |= unix.CLONE_NEWNET
		}
	}
	b, err := json.Marshal(struct {
		Spec   *specs.Spec
		Rootfs Rootfs
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
	l.mu.Unlock()
	out := make(chan Exit, 1)
	go func() {
		err := c.Wait()
		var x *exec.ExitError
		switch {
		case err == nil:
			out <- Exit{}
		case errors.As(err, &x) && x.Sys().(syscall.WaitStatus).Signaled():
			out <- Exit{Code: 128 + int(x.Sys().(syscall.WaitStatus).Signal())}
		case errors.As(err, &x):
			out <- Exit{Code: x.ExitCode()}
		default:
			out <- Exit{Err: err}
		}
	}()
	return out, nil
}

func (l *testLauncher) Exec(context.Context, *Exec) (<-chan Exit, error) {
	return nil, errors.ErrUnsupported
}

func (l *testLauncher) Kill(_ context.Context, id, _ string, sig int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.live[id]; p != nil {
		return p.Signal(syscall.Signal(sig))
	}
	return nil
}

func (l *testLauncher) Delete(_ context.Context, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, id)
	return nil
}

func childMain() error {
	var in struct {
		Spec   *specs.Spec
		Rootfs Rootfs
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
