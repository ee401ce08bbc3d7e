package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// DefaultPath is $PATH where neither image nor user sets it.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// User names who runs the container's process; it is looked up in the
// container, when that is mounted.
func User(c *container.Config, h *container.HostConfig) *runtime.User {
	return &runtime.User{Spec: c.User, Groups: slices.Clone(h.GroupAdd)}
}

// ExecUser names who runs an exec: the container's user unless another is asked
// for. The groups added to the container count for it too.
func ExecUser(c *container.Config, h *container.HostConfig, r *container.ExecCreateRequest) *runtime.User {
	u := User(c, h)
	if r.User != "" {
		u.Spec = r.User
	}
	return u
}

// UseInit reports whether docker-init's part is wanted: by --init, or else by
// the daemon's default, and only in a pid namespace of the container's own.
func UseInit(h *container.HostConfig, daemonDefault bool) bool {
	if !h.PidMode.IsPrivate() {
		return false
	}
	if h.Init != nil {
		return *h.Init
	}
	return daemonDefault
}

// environment is docker's defaults, then each list in turn: a later value of a
// name replaces an earlier one in its place, and a name without "=" removes it.
func environment(hostname string, tty bool, lists ...[]string) []string {
	env := []string{"PATH=" + DefaultPath, "HOSTNAME=" + hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	at := map[string]int{}
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		at[name] = i
	}
	for _, list := range lists {
		for _, e := range list {
			name, _, hasValue := strings.Cut(e, "=")
			i, known := at[name]
			switch {
			case !hasValue && known:
				env[i] = ""
				delete(at, name)
			case !hasValue:
			case known:
				env[i] = e
			default:
				at[name] = len(env)
				env = append(env, e)
			}
		}
	}
	return slices.DeleteFunc(env, func(e string) bool { return e == "" })
}

func checkEnv(env []string) error {
	for _, e := range env {
		if name, _, _ := strings.Cut(e, "="); name == "" || strings.ContainsRune(e, 0) {
			return errs.Newf(errs.Invalid, "invalid environment variable: %s", e)
		}
	}
	return nil
}

func workingDir(dirs ...string) string {
	for _, d := range dirs {
		if d != "" {
			return path.Join("/", d)
		}
	}
	return "/"
}

func capabilitySets(names []string) *specs.LinuxCapabilities {
	// Inheritable and ambient stay empty: CVE-2022-24769.
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

func process(in Input, sec secOpts) (*specs.Process, error) {
	c, h := in.Config, in.HostConfig
	caps, err := capabilities(h.CapAdd, h.CapDrop, h.Privileged, in.Host.Capabilities)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(h.Ulimits, in.DefaultUlimits, in.Host)
	if err != nil {
		return nil, err
	}
	if in.Path == "" {
		return nil, errs.New(errs.Invalid, "no command specified")
	}
	p := &specs.Process{
		Args:            append([]string{in.Path}, in.Args...),
		Env:             environment(in.Hostname, c.Tty, in.Env, c.Env),
		Cwd:             workingDir(c.WorkingDir),
		Terminal:        c.Tty,
		NoNewPrivileges: sec.noNewPrivileges,
		Capabilities:    capabilitySets(caps),
		Rlimits:         limits,
		ApparmorProfile: apparmorProfile(sec, h.Privileged, in.Host),
		OOMScoreAdj:     ptr(h.OomScoreAdj),
	}
	p.User.Umask = h.Umask
	p.ConsoleSize = consoleSize(c.Tty, h.ConsoleSize)
	return p, nil
}

func consoleSize(tty bool, size [2]uint) *specs.Box {
	if !tty || size[0] == 0 && size[1] == 0 {
		return nil
	}
	return &specs.Box{Height: size[0], Width: size[1]}
}

// BuildExec makes the process of an exec in a container that runs with
// specification s; it is confined as that, or not if privileged.
func BuildExec(s *specs.Spec, c *container.Config, h *container.HostConfig, r *container.ExecCreateRequest, host HostFacts) (*specs.Process, error) {
	if len(r.Cmd) == 0 {
		return nil, errs.New(errs.Invalid, "No exec command specified")
	}
	if err := checkEnv(r.Env); err != nil {
		return nil, err
	}
	if r.WorkingDir != "" && !path.IsAbs(r.WorkingDir) {
		return nil, errs.Newf(errs.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", r.WorkingDir)
	}
	of := s.Process
	p := &specs.Process{
		Args:            slices.Clone(r.Cmd),
		Env:             execEnv(of, c, r),
		Cwd:             workingDir(r.WorkingDir, c.WorkingDir),
		Terminal:        r.Tty,
		NoNewPrivileges: of.NoNewPrivileges,
		Capabilities:    of.Capabilities,
		Rlimits:         of.Rlimits,
		ApparmorProfile: of.ApparmorProfile,
		SelinuxLabel:    of.SelinuxLabel,
		OOMScoreAdj:     of.OOMScoreAdj,
	}
	p.User.Umask = h.Umask
	if r.Privileged {
		p.Capabilities = capabilitySets(sorted(host.Capabilities))
		if host.AppArmor {
			p.ApparmorProfile = unconfined
		}
	}
	if r.ConsoleSize != nil {
		p.ConsoleSize = consoleSize(r.Tty, *r.ConsoleSize)
	}
	return p, nil
}

// execEnv is the container's environment, TERM by the exec's own terminal.
func execEnv(of *specs.Process, c *container.Config, r *container.ExecCreateRequest) []string {
	hostname := ""
	for _, e := range of.Env {
		if v, ok := strings.CutPrefix(e, "HOSTNAME="); ok {
			hostname = v
		}
	}
	return environment(hostname, r.Tty, c.Env, r.Env)
}
