package containers

import (
	"maps"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// imageConfig gives an image's configuration the shape of a container's.
// Ports that cannot be parsed are an error of the image.
func imageConfig(i dockerspec.DockerOCIImageConfig) (*container.Config, error) {
	c := &container.Config{
		User: i.User, Env: i.Env, Entrypoint: i.Entrypoint, Cmd: i.Cmd, Volumes: i.Volumes,
		WorkingDir: i.WorkingDir, Labels: i.Labels, StopSignal: i.StopSignal,
		Healthcheck: i.Healthcheck, OnBuild: i.OnBuild, Shell: i.Shell,
		ArgsEscaped: i.ArgsEscaped, //nolint:staticcheck // carried as it is
	}
	for p := range i.ExposedPorts {
		port, err := network.ParsePort(p)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "the image exposes an invalid port %q: %w", p, err)
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = network.PortSet{}
		}
		c.ExposedPorts[port] = struct{}{}
	}
	return c, nil
}

// merge fills what the user left open from the image, as docker does; neither
// argument is changed.
func merge(user, image *container.Config) *container.Config {
	c := *user
	c.Env = mergeEnv(user.Env, image.Env)
	c.Labels = union(user.Labels, image.Labels)
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	c.ExposedPorts = union(user.ExposedPorts, image.ExposedPorts)
	if c.Volumes = union(user.Volumes, image.Volumes); len(c.Volumes) == 0 {
		c.Volumes = image.Volumes
	}
	c.Healthcheck = mergeHealth(user.Healthcheck, image.Healthcheck)
	setDefault(&c.User, image.User)
	setDefault(&c.WorkingDir, image.WorkingDir)
	setDefault(&c.StopSignal, image.StopSignal)
	// An own entrypoint makes the image's command meaningless.
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = image.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = image.Entrypoint
		}
	}
	if len(c.Shell) == 0 {
		c.Shell = image.Shell
	}
	if len(c.OnBuild) == 0 {
		c.OnBuild = image.OnBuild
	}
	return &c
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// union is a map with all of a, and of b what a does not have.
func union[K comparable, V any](a, b map[K]V) map[K]V {
	if len(a) == 0 && len(b) == 0 {
		return a
	}
	out := make(map[K]V, len(a)+len(b))
	maps.Copy(out, b)
	maps.Copy(out, a)
	return out
}

func mergeEnv(user, image []string) []string {
	if len(user) == 0 {
		return image
	}
	key := func(e string) string { k, _, _ := strings.Cut(e, "="); return k }
	out := slices.Clone(user)
	for _, e := range image {
		if !slices.ContainsFunc(user, func(u string) bool { return key(u) == key(e) }) {
			out = append(out, e)
		}
	}
	return out
}

func mergeHealth(user, image *container.HealthConfig) *container.HealthConfig {
	if image == nil || user == nil {
		if user == nil {
			return image
		}
		return user
	}
	h := *user
	if len(h.Test) == 0 {
		h.Test = image.Test
	}
	setDefault(&h.Interval, image.Interval)
	setDefault(&h.Timeout, image.Timeout)
	setDefault(&h.StartPeriod, image.StartPeriod)
	setDefault(&h.StartInterval, image.StartInterval)
	setDefault(&h.Retries, image.Retries)
	return &h
}

// command is what a configuration runs.
func command(c *container.Config) (path string, args []string, err error) {
	all := append(slices.Clone(c.Entrypoint), c.Cmd...)
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" { // resets the image's
		all = slices.Clone(c.Cmd)
	}
	if len(all) == 0 {
		return "", nil, errs.New(errs.Invalid, "no command specified")
	}
	return all[0], append([]string{}, all[1:]...), nil
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}
