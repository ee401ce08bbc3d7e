package containers

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// applyChanges applies Dockerfile instructions (those of docker commit --change)
// to a configuration; cfg is not changed.
func applyChanges(cfg *container.Config, changes []string) (*container.Config, error) {
	out := *cfg
	out.Env = slices.Clone(cfg.Env)
	out.Labels, out.ExposedPorts, out.Volumes = maps.Clone(cfg.Labels), maps.Clone(cfg.ExposedPorts), maps.Clone(cfg.Volumes)
	out.OnBuild = slices.Clone(cfg.OnBuild)
	if len(changes) == 0 {
		return &out, nil
	}
	file, err := parser.Parse(strings.NewReader(strings.Join(changes, "\n")))
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	lex := shell.NewLex('\\')
	for _, node := range file.AST.Children {
		cmd, err := instructions.ParseCommand(node)
		if err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		if x, ok := cmd.(instructions.SupportsSingleWordExpansion); ok {
			err := x.Expand(func(word string) (string, error) {
				w, _, err := lex.ProcessWord(word, shell.EnvsFromSlice(out.Env))
				return w, err
			})
			if err != nil {
				return nil, errs.With(errs.Invalid, err)
			}
		}
		if err := applyChange(&out, cmd); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

func applyChange(c *container.Config, cmd instructions.Command) error {
	switch x := cmd.(type) {
	case *instructions.EnvCommand:
		for _, kv := range x.Env {
			c.Env = setEnv(c.Env, kv.Key, kv.Value)
		}
	case *instructions.LabelCommand:
		for _, kv := range x.Labels {
			put(&c.Labels, kv.Key, kv.Value)
		}
	case *instructions.CmdCommand:
		c.Cmd = commandOf(c, x.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		c.Entrypoint = commandOf(c, x.ShellDependantCmdLine)
	case *instructions.ExposeCommand:
		for _, p := range x.Ports {
			r, err := network.ParsePortRange(p)
			if err != nil {
				return errs.Newf(errs.Invalid, "EXPOSE %s: %w", p, err)
			}
			for port := range r.All() {
				put(&c.ExposedPorts, port, struct{}{})
			}
		}
	case *instructions.VolumeCommand:
		for _, v := range x.Volumes {
			put(&c.Volumes, v, struct{}{})
		}
	case *instructions.UserCommand:
		c.User = x.User
	case *instructions.WorkdirCommand:
		if path.IsAbs(x.Path) {
			c.WorkingDir = path.Clean(x.Path)
		} else {
			c.WorkingDir = path.Join("/", c.WorkingDir, x.Path)
		}
	case *instructions.StopSignalCommand:
		c.StopSignal = x.Signal
	case *instructions.HealthCheckCommand:
		c.Healthcheck = x.Health
	case *instructions.ShellCommand:
		c.Shell = x.Shell
	case *instructions.OnbuildCommand:
		c.OnBuild = append(c.OnBuild, x.Expression)
	default:
		return errs.Newf(errs.Invalid, "%s is not a valid change command", cmd.Name())
	}
	return nil
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
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

func commandOf(c *container.Config, line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	sh := c.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(sh), line.CmdLine...)
}
