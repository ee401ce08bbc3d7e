package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/network"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// stepLauncher runs build steps on the shim: build.Launcher over
// runtime.Runtime.
type stepLauncher struct {
	rt    runtime.Runtime
	steps steps
	log   *slog.Logger

	mu    sync.Mutex // guards waits
	waits map[stepKey]chan build.Exit
}

type stepKey struct{ id, execID string }

// newStepLauncher watches the runtime's exits until ctx ends.
func newStepLauncher(ctx context.Context, rt runtime.Runtime, steps steps, log *slog.Logger) (*stepLauncher, error) {
	exits, err := rt.Events(ctx)
	if err != nil {
		return nil, err
	}
	l := &stepLauncher{rt: rt, steps: steps, log: log, waits: map[stepKey]chan build.Exit{}}
	go l.watch(exits)
	return l, nil
}

func (l *stepLauncher) watch(exits <-chan runtime.Exit) {
	for e := range exits {
		l.finish(stepKey{e.ID, e.ExecID}, build.Exit{Code: e.Code, OOM: e.OOM, Err: lost(e)})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, ch := range l.waits {
		ch <- build.Exit{Err: errors.New("the daemon stops")}
		delete(l.waits, k)
	}
}

func lost(e runtime.Exit) error {
	if e.Unknown {
		return errors.New("the step ended while nobody watched: its exit code is not known")
	}
	return nil
}

// finish answers who waits for the process; exits of containers have no waiter
// here.
func (l *stepLauncher) finish(k stepKey, e build.Exit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ch, ok := l.waits[k]; ok {
		ch <- e
		delete(l.waits, k)
	}
}

func (l *stepLauncher) expect(k stepKey) chan build.Exit {
	ch := make(chan build.Exit, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits[k] = ch
	return ch
}

func (l *stepLauncher) forget(k stepKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waits, k)
}

func stepUser(spec string) *runtime.User {
	if spec == "" {
		return nil
	}
	return &runtime.User{Spec: spec}
}

func (l *stepLauncher) Run(ctx context.Context, r *build.Run) (<-chan build.Exit, error) {
	spec, err := l.steps.remapped(r)
	if err != nil {
		return nil, err
	}
	k := stepKey{id: r.ID}
	ch := l.expect(k)
	_, err = l.rt.Start(ctx, &runtime.Launch{
		ID:   r.ID,
		Spec: spec,
		Rootfs: &runtime.Rootfs{
			Lower: r.Rootfs.Lower, Upper: r.Rootfs.Upper, Work: r.Rootfs.Work,
			Volatile: r.Rootfs.Volatile, Bind: r.Rootfs.Bind, Inside: true,
		},
		IO:    runtime.IO{Passed: true, TTY: r.TTY},
		User:  stepUser(r.User),
		NetNS: r.NetNS,
		Stdio: r.Stdio,
	})
	if err != nil {
		l.forget(k)
		// It may have begun just then. What it needs is taken away next.
		if delErr := l.Delete(context.WithoutCancel(ctx), r.ID); delErr != nil {
			err = errors.Join(err, delErr)
		}
		return nil, err
	}
	return ch, nil
}

func (l *stepLauncher) Exec(ctx context.Context, e *build.Exec) (<-chan build.Exit, error) {
	k := stepKey{e.ID, e.ExecID}
	ch := l.expect(k)
	_, err := l.rt.Exec(ctx, &runtime.Exec{
		ContainerID: e.ID, ExecID: e.ExecID, Process: e.Process, User: stepUser(e.User), Seccomp: e.Seccomp,
		IO: runtime.IO{Passed: true, TTY: e.TTY}, Stdio: e.Stdio,
	})
	if err != nil {
		l.forget(k)
		_ = l.rt.Kill(context.WithoutCancel(ctx), e.ID, e.ExecID, int(syscall.SIGKILL), false) // it may have begun just then
		return nil, err
	}
	return ch, nil
}

func (l *stepLauncher) Kill(ctx context.Context, id, execID string, signal int) error {
	return l.rt.Kill(ctx, id, execID, signal, false)
}

func (l *stepLauncher) Resize(ctx context.Context, id, execID string, height, width uint) error {
	return l.rt.Resize(ctx, id, execID, height, width)
}

// endPatience is how long after KILL a step may be in the kernel.
const endPatience = 10 * time.Second

func (l *stepLauncher) Delete(ctx context.Context, id string) error {
	err := l.rt.Delete(ctx, id)
	if err == nil {
		return nil
	}
	// Still running: Delete means to end it.
	if killErr := l.rt.Kill(ctx, id, "", int(syscall.SIGKILL), true); killErr != nil {
		return errors.Join(err, killErr)
	}
	for wait, end := time.Millisecond, time.Now().Add(endPatience); ; wait *= 2 {
		if err = l.rt.Delete(ctx, id); err == nil || time.Now().Add(wait).After(end) {
			return err
		}
		time.Sleep(wait)
	}
}

// stepNetworks gives build steps sandboxes on a network, or a container's:
// build.Networks over the network manager and the containers.
type stepNetworks struct {
	m     *network.Manager
	c     *containers.Service
	users *userns.Map
	none  bool // there is no default bridge
}

func (n stepNetworks) New(ctx context.Context, id, hostname, name string) (build.Network, error) {
	if ref, ok := strings.CutPrefix(name, "container:"); ok {
		ns, hosts, resolv, err := n.c.ShareNetwork(ref)
		if err != nil {
			return nil, err
		}
		return sharedNetwork{ns, hosts, resolv}, nil
	}
	spec := network.SandboxSpec{ID: id, Name: id, Hostname: hostname, Users: n.users}
	if name == "" {
		name = "bridge"
	}
	if n.none && name == "bridge" {
		spec.Mode = "none"
	} else {
		info, err := n.m.Lookup(name)
		if err != nil {
			return nil, err
		}
		spec.Endpoints = []network.EndpointSpec{{Network: info.ID}}
	}
	sb, err := n.m.NewSandbox(ctx, spec)
	if err != nil {
		return nil, err
	}
	return stepNetwork{sb, context.WithoutCancel(ctx)}, nil
}

func (n stepNetworks) HostResolvConf(context.Context) ([]byte, error) {
	return os.ReadFile("/etc/resolv.conf")
}

type stepNetwork struct {
	*network.Sandbox
	ctx context.Context //nolint:containedctx // Close has none: it must work after the build was cancelled
}

func (s stepNetwork) Close() error { return s.Sandbox.Close(s.ctx) }

// sharedNetwork is a container's: only the descriptor is the step's own.
type sharedNetwork struct {
	ns            *os.File
	hosts, resolv []byte
}

func (s sharedNetwork) NetNS() *os.File    { return s.ns }
func (s sharedNetwork) Hosts() []byte      { return s.hosts }
func (s sharedNetwork) ResolvConf() []byte { return s.resolv }
func (s sharedNetwork) Close() error       { return s.ns.Close() }

var (
	_ build.Launcher = (*stepLauncher)(nil)
	_ build.Networks = stepNetworks{}
)
