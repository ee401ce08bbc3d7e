// Package changes applies Dockerfile instructions to an image's configuration,
// as `commit --change` and `import --change` take them:
//
//	err := changes.Apply(&config, []string{`CMD ["serve"]`, "ENV PORT=80", "EXPOSE $PORT"})
package changes

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/sys/signal"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// allowed are the instructions that docker takes as changes.
var allowed = [...]string{
	"cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild", "stopsignal", "user", "volume", "workdir",
}

// Apply changes c; what c's maps and lists were made of is left alone. Nothing
// is changed if one of the instructions is wrong.
func Apply(c *dockerspec.DockerOCIImageConfig, list []string) error {
	if len(list) == 0 {
		return nil
	}
	file, err := parser.Parse(strings.NewReader(strings.Join(list, "\n")))
	if err != nil {
		return errs.With(errs.Invalid, err)
	}
	var cmds []instructions.Command
	for _, node := range file.AST.Children {
		if !slices.Contains(allowed[:], strings.ToLower(node.Value)) {
			return errs.Newf(errs.Invalid, "%s is not a valid change command", node.Value)
		}
		cmd, err := instructions.ParseCommand(node)
		if err != nil {
			return errs.With(errs.Invalid, err)
		}
		cmds = append(cmds, cmd)
	}
	a := applier{c: cloned(c), lex: shell.NewLex(file.EscapeToken)}
	for _, cmd := range cmds {
		if err := a.expand(cmd); err != nil {
			return errs.With(errs.Invalid, err)
		}
		if err := a.apply(cmd); err != nil {
			return errs.With(errs.Invalid, err)
		}
	}
	*c = *a.c
	return nil
}

func cloned(c *dockerspec.DockerOCIImageConfig) *dockerspec.DockerOCIImageConfig {
	out := *c
	out.Env, out.OnBuild = slices.Clone(c.Env), slices.Clone(c.OnBuild)
	out.Labels, out.ExposedPorts, out.Volumes = clone(c.Labels), clone(c.ExposedPorts), clone(c.Volumes)
	return &out
}

// clone never is nil, so that it can be put into.
func clone[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

type applier struct {
	c      *dockerspec.DockerOCIImageConfig
	lex    *shell.Lex
	cmdSet bool // by these instructions
}

// expand replaces variables by what the environment is so far.
func (a *applier) expand(cmd instructions.Command) error {
	env := shell.EnvsFromSlice(a.c.Env)
	if x, ok := cmd.(*instructions.ExposeCommand); ok { // the one of which a word may become many
		var ports []string
		for _, p := range x.Ports {
			words, err := a.lex.ProcessWords(p, env)
			if err != nil {
				return err
			}
			ports = append(ports, words...)
		}
		x.Ports = ports
		return nil
	}
	x, ok := cmd.(instructions.SupportsSingleWordExpansion)
	if !ok {
		return nil
	}
	return x.Expand(func(word string) (string, error) {
		w, _, err := a.lex.ProcessWord(word, env)
		return w, err
	})
}

func (a *applier) apply(cmd instructions.Command) error {
	c := a.c
	switch x := cmd.(type) {
	case *instructions.CmdCommand:
		c.Cmd, c.ArgsEscaped = a.command(x.ShellDependantCmdLine), false //nolint:staticcheck // carried as it is
		a.cmdSet = a.cmdSet || len(x.CmdLine) > 0
	case *instructions.EntrypointCommand:
		c.Entrypoint, c.ArgsEscaped = a.command(x.ShellDependantCmdLine), false //nolint:staticcheck // carried as it is
		if !a.cmdSet {                                                          // it was meant for another one
			c.Cmd = nil
		}
	case *instructions.EnvCommand:
		for _, kv := range x.Env {
			c.Env = setEnv(c.Env, kv.Key, kv.Value)
		}
	case *instructions.LabelCommand:
		for _, kv := range x.Labels {
			c.Labels[kv.Key] = kv.Value
		}
	case *instructions.ExposeCommand:
		return expose(c.ExposedPorts, x.Ports)
	case *instructions.VolumeCommand:
		for _, v := range x.Volumes {
			if v == "" {
				return fmt.Errorf("VOLUME specified can not be an empty string")
			}
			c.Volumes[v] = struct{}{}
		}
	case *instructions.UserCommand:
		c.User = x.User
	case *instructions.WorkdirCommand:
		c.WorkingDir = workdir(c.WorkingDir, x.Path)
	case *instructions.StopSignalCommand:
		if _, err := signal.ParseSignal(x.Signal); err != nil {
			return err
		}
		c.StopSignal = x.Signal
	case *instructions.HealthCheckCommand:
		c.Healthcheck = x.Health
	case *instructions.OnbuildCommand:
		c.OnBuild = append(c.OnBuild, x.Expression)
	}
	return nil
}

func (a *applier) command(line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell || line.CmdLine == nil {
		return line.CmdLine
	}
	sh := a.c.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(sh), line.CmdLine...)
}

func setEnv(env []string, key, value string) []string {
	for i, e := range env {
		if k, _, _ := strings.Cut(e, "="); k == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

func workdir(current, wanted string) string {
	if path.IsAbs(wanted) {
		return path.Clean(wanted)
	}
	return path.Join("/", current, wanted)
}

// expose adds ports; like docker it lets the host's part of "8080:80" go.
func expose(ports map[string]struct{}, list []string) error {
	for _, p := range list {
		r, err := network.ParsePortRange(p[strings.LastIndexByte(p, ':')+1:])
		if err != nil {
			return fmt.Errorf("invalid containerPort: %s", p)
		}
		switch r.Proto() {
		case network.TCP, network.UDP, network.SCTP:
		default:
			return fmt.Errorf("invalid proto: %s", r.Proto())
		}
		for port := range r.All() {
			ports[port.String()] = struct{}{}
		}
	}
	return nil
}
