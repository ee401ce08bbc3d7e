//go:build linux

package ociruntime

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// execFlags say what to run: a file, or changes to the container's own process.
type execFlags struct {
	wiring
	process, cwd, user, label, apparmor string
	env, gids, caps, groups             []string
	tty, noNewPrivs, ignorePaused       bool
	privsSet                            bool
}

func (f *execFlags) register(fs *flag.FlagSet) {
	f.wiring.register(fs)
	stringFlag(fs, &f.process, "process", "p", "file of the process, as config.json describes one")
	boolFlag(fs, &f.tty, "tty", "t", "give it a terminal")
	stringFlag(fs, &f.user, "user", "u", "UID[:GID]")
	fs.StringVar(&f.cwd, "cwd", "", "its working directory")
	listFlag(fs, &f.env, "env", "e", "one more environment variable")
	boolFlag(fs, &f.detach, "detach", "d", "do not wait for its end")
	listFlag(fs, &f.caps, "cap", "c", "one more capability")
	fs.StringVar(&f.apparmor, "apparmor", "", "its AppArmor profile")
	fs.StringVar(&f.label, "process-label", "", "its SELinux label")
	fs.BoolFunc("no-new-privs", "let it gain no privileges", func(s string) (err error) {
		f.privsSet = true
		f.noNewPrivs, err = strconv.ParseBool(s)
		return err
	})
	listFlag(fs, &f.gids, "additional-gids", "g", "one more group")
	listFlag(fs, &f.groups, "cgroup", "", "control group below the container's to run in: it must exist")
	fs.BoolVar(&f.ignorePaused, "ignore-paused", false, "also in a paused container: it starts when that goes on")
}

func (a *app) exec(fs *flag.FlagSet) func(context.Context, []string) error {
	var f execFlags
	f.register(fs)
	return func(ctx context.Context, args []string) error {
		code, err := a.execute(ctx, args[0], args[1:], &f)
		if err != nil {
			a.log.Error(fmt.Sprintf("exec failed: %v", err))
			if a.logFile {
				_, _ = fmt.Fprintf(a.err, "exec failed: %v\n", err)
			}
			return exitError(255)
		}
		if code != 0 {
			return exitError(code)
		}
		return nil
	}
}

func (a *app) execute(ctx context.Context, id string, args []string, f *execFlags) (int, error) {
	c, err := a.load(id)
	if err != nil {
		return 0, err
	}
	st, err := c.status()
	if err != nil {
		return 0, err
	}
	switch {
	case st == stopped || st == creating:
		return 0, errs.New(errs.Conflict, "cannot exec in a stopped container")
	case st == paused && !f.ignorePaused:
		return 0, errs.New(errs.Conflict, "cannot exec in a paused container (use --ignore-paused to override)")
	}
	p, err := f.of(c.Spec.Process, args)
	if err != nil {
		return 0, err
	}
	if err := f.check(p.Terminal); err != nil {
		return 0, err
	}
	a.tellCaps(p, c.Spec.Linux)
	files, err := f.files(p)
	if err != nil {
		return 0, err
	}
	ch, err := c.enter(ctx, p, f.groups, launch.ProcessOptions{Files: files, NoNewKeyring: c.NoNewKeyring})
	if err != nil {
		return 0, plain(err)
	}
	if err := f.tell(ch); err != nil {
		ch.kill()
		return 0, err
	}
	if f.detach {
		return 0, ch.close()
	}
	return watchSignals(ch).foreground()
}

// tellCaps warns of capabilities that a process will not have.
func (a *app) tellCaps(p *specs.Process, l *specs.Linux) {
	userns := slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if names := launch.Ungrantable(p.Capabilities, userns); len(names) > 0 {
		a.log.Warn("capabilities that are not known or cannot be given are left out: " + strings.Join(names, ", "))
	}
}

// enter makes one more process in the container.
func (c *container) enter(ctx context.Context, p *specs.Process, groups []string, o launch.ProcessOptions) (*child, error) {
	host, err := newHost()
	if err != nil {
		return nil, err
	}
	prog, err := compile(c.Spec.Linux.Seccomp)
	if err != nil {
		return nil, err
	}
	group, err := subGroup(host.Cgroups, c.Cgroup, groups)
	if err != nil {
		return nil, err
	}
	pidfd, alive, err := c.open()
	if err != nil {
		return nil, err
	}
	if !alive {
		return nil, errNotRunning()
	}
	defer func() { _ = unix.Close(pidfd) }()
	linux := c.Spec.Linux
	e := &runtime.Exec{
		ContainerID: c.ID, Process: p, IO: runtime.IO{TTY: p.Terminal},
		Personality: linux.Personality, MemoryPolicy: linux.MemoryPolicy, IntelRdt: linux.IntelRdt,
	}
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil && p.Terminal && p.ConsoleSize == nil {
		e.IO.Console = [2]uint{uint(size.Row), uint(size.Col)} // the caller's
	}
	started, err := host.Exec(e, prog, group, ownStreams(p.Terminal), c.PID, pidfd, o)
	if err != nil {
		return nil, err
	}
	ch := &child{pid: started.PID, pidfd: started.PidFD}
	if ch.console, err = started.Go(ctx); err != nil {
		ch.kill()
		return nil, err
	}
	return ch, nil
}

// subGroup is the group an exec goes to: the container's, or one below it.
func subGroup(sys *cgroup.System, own string, named []string) (*cgroup.Group, error) {
	if len(named) > 1 {
		return nil, errs.New(errs.Unsupported, "--cgroup: one group for all controllers is supported, several are not")
	}
	g, err := sys.Open(own)
	if err != nil {
		return nil, err
	}
	if len(named) > 1 {
		return nil, errs.New(errs.Unsupported, "--cgroup: one group only is supported")
	}
	if len(named) == 0 {
		return g, nil
	}
	name := named[0]
	if strings.Contains(name, ":") {
		return nil, errs.Newf(errs.Unsupported, "--cgroup %s: a group for single controllers is not supported", name)
	}
	if g, err = sys.Open(path.Join(g.Path(), path.Clean("/"+name))); err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if !g.Exists() {
		return nil, errs.Newf(errs.NotFound, "--cgroup %s: no such control group in the container", name)
	}
	return g, nil
}

// of is the process to run: the one of the file, or the container's own with
// what the flags change.
func (f *execFlags) of(own *specs.Process, args []string) (*specs.Process, error) {
	if f.process != "" {
		data, err := readLimited(f.process)
		if err != nil {
			return nil, err
		}
		p, err := decodeProcess(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.process, err)
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, errs.New(errs.Invalid, "exec args cannot be empty")
	}
	p := *own
	p.Args, p.Terminal, p.OOMScoreAdj = args, f.tty, nil
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], f.env...)
	if f.cwd != "" {
		p.Cwd = f.cwd
	}
	if f.apparmor != "" {
		p.ApparmorProfile = f.apparmor
	}
	if f.label != "" {
		p.SelinuxLabel = f.label
	}
	if f.privsSet {
		p.NoNewPrivileges = f.noNewPrivs
	}
	if len(f.caps) > 0 {
		p.Capabilities = withCaps(p.Capabilities, f.caps)
	}
	if err := f.identity(&p.User); err != nil {
		return nil, err
	}
	return &p, checkProcess(&p)
}

// withCaps adds capabilities. Ambient ones need inheritable ones, so they come
// only where the container has some.
func withCaps(own *specs.LinuxCapabilities, more []string) *specs.LinuxCapabilities {
	c := specs.LinuxCapabilities{}
	if own != nil {
		c = *own
	}
	add := func(to *[]string) { *to = append((*to)[:len(*to):len(*to)], more...) }
	add(&c.Bounding)
	add(&c.Effective)
	add(&c.Permitted)
	if c.Inheritable != nil {
		add(&c.Inheritable)
		add(&c.Ambient)
	}
	return &c
}

func (f *execFlags) identity(u *specs.User) error {
	if f.user != "" {
		uid, gid, both := strings.Cut(f.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return errs.Newf(errs.Invalid, "bad uid: %w", err)
		}
		u.UID, u.Username = uint32(n), ""
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return errs.Newf(errs.Invalid, "bad gid: %w", err)
			}
			u.GID = uint32(n)
		}
	}
	u.AdditionalGids = u.AdditionalGids[:len(u.AdditionalGids):len(u.AdditionalGids)]
	for _, g := range f.gids {
		n, err := groupID(g)
		if err != nil {
			return err
		}
		u.AdditionalGids = append(u.AdditionalGids, n)
	}
	return nil
}
