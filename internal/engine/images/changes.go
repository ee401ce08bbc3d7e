package images

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/google/shlex"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// ApplyChanges changes an image's configuration by Dockerfile instructions, as
// `commit --change` and `import --change` take them.
func ApplyChanges(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	for _, line := range changes {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = strings.TrimSpace(rest)
		name = strings.ToUpper(name)
		if err := applyChange(c, name, rest); err != nil {
			return errs.Newf(errs.Invalid, "change %q: %w", line, err)
		}
	}
	return nil
}

func applyChange(c *dockerspec.DockerOCIImageConfig, name, rest string) error {
	if rest == "" && name != "CMD" && name != "ENTRYPOINT" {
		return errs.Newf(errs.Invalid, "%s needs an argument", name)
	}
	switch name {
	case "CMD":
		c.Cmd, c.ArgsEscaped = command(rest), false
	case "ENTRYPOINT":
		c.Entrypoint = command(rest)
		c.Cmd = nil
	case "ENV":
		return eachPair(rest, func(k, v string) { c.Env = setEnv(c.Env, k, v) })
	case "LABEL":
		return eachPair(rest, func(k, v string) {
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[k] = v
		})
	case "EXPOSE":
		return expose(c, strings.Fields(rest))
	case "USER":
		c.User = rest
	case "WORKDIR":
		if !strings.HasPrefix(rest, "/") {
			base := c.WorkingDir
			rest = strings.TrimSuffix("/"+strings.Trim(base, "/"), "/") + "/" + rest
		}
		c.WorkingDir = rest
	case "VOLUME":
		vs := command(rest)
		if !strings.HasPrefix(rest, "[") {
			vs = strings.Fields(rest)
		}
		for _, v := range vs {
			if c.Volumes == nil {
				c.Volumes = map[string]struct{}{}
			}
			c.Volumes[v] = struct{}{}
		}
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "SHELL":
		var a []string
		if err := json.Unmarshal([]byte(rest), &a); err != nil || len(a) == 0 {
			return errs.New(errs.Invalid, "SHELL needs a JSON array")
		}
		c.Shell = a
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "HEALTHCHECK":
		return healthcheck(c, rest)
	default:
		return errs.Newf(errs.Invalid, "%s is not a valid change command", name)
	}
	return nil
}

// command reads the exec form, a JSON array, or takes the rest for a shell.
func command(rest string) []string {
	if rest == "" {
		return nil
	}
	var a []string
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &a) == nil {
		return a
	}
	return []string{"/bin/sh", "-c", rest}
}

// eachPair reads k=v k2="v 2", or the old form "k v".
func eachPair(rest string, f func(k, v string)) error {
	first, _, _ := strings.Cut(rest, " ")
	if !strings.Contains(first, "=") {
		k, v, ok := strings.Cut(rest, " ")
		if !ok {
			return errs.Newf(errs.Invalid, "%s has no value", k)
		}
		f(k, strings.TrimSpace(v))
		return nil
	}
	words, err := shlex.Split(rest)
	if err != nil {
		return errs.With(errs.Invalid, err)
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return errs.Newf(errs.Invalid, "%q is not name=value", w)
		}
		f(k, v)
	}
	return nil
}

func setEnv(env []string, k, v string) []string {
	for i, e := range env {
		if name, _, _ := strings.Cut(e, "="); name == k {
			env[i] = k + "=" + v
			return env
		}
	}
	return append(env, k+"="+v)
}

func expose(c *dockerspec.DockerOCIImageConfig, ports []string) error {
	for _, p := range ports {
		num, proto, ok := strings.Cut(p, "/")
		if !ok {
			proto = "tcp"
		}
		from, to, _ := strings.Cut(num, "-")
		if to == "" {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || b < a || proto != "tcp" && proto != "udp" && proto != "sctp" {
			return errs.Newf(errs.Invalid, "invalid containerPort: %s", p)
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		for ; a <= b; a++ {
			c.ExposedPorts[strconv.FormatUint(a, 10)+"/"+proto] = struct{}{}
		}
	}
	return nil
}

func healthcheck(c *dockerspec.DockerOCIImageConfig, rest string) error {
	h := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(rest, "--") {
		var flag string
		flag, rest, _ = strings.Cut(rest, " ")
		rest = strings.TrimSpace(rest)
		k, v, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if k == "retries" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				return errs.Newf(errs.Invalid, "HEALTHCHECK %s", flag)
			}
			h.Retries = n
			continue
		}
		into := map[string]*time.Duration{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval}[k]
		d, err := time.ParseDuration(v)
		if into == nil || err != nil || d < 0 {
			return errs.Newf(errs.Invalid, "HEALTHCHECK %s", flag)
		}
		*into = d
	}
	kind, cmd, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(kind) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		a := command(strings.TrimSpace(cmd))
		if len(a) == 0 {
			return errs.New(errs.Invalid, "HEALTHCHECK CMD needs a command")
		}
		if strings.HasPrefix(strings.TrimSpace(cmd), "[") {
			h.Test = append([]string{"CMD"}, a...)
		} else {
			h.Test = []string{"CMD-SHELL", strings.TrimSpace(cmd)}
		}
	default:
		return errs.Newf(errs.Invalid, "HEALTHCHECK %s: CMD or NONE is expected", kind)
	}
	c.Healthcheck = h
	return nil
}
