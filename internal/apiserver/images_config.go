package apiserver

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// fullImageConfig is an image's configuration before 1.52, with its empty
// fields.
type fullImageConfig struct {
	*dockerspec.DockerOCIImageConfig
	User       string
	Env        []string
	Cmd        []string
	Volumes    map[string]struct{}
	WorkingDir string
	Entrypoint []string
	OnBuild    []string
	Labels     map[string]string
}

// containerLikeConfig is the same before 1.50: it had a container's fields too,
// never set.
type containerLikeConfig struct {
	fullImageConfig
	Hostname     string
	Domainname   string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Image        string
}

func oldImageConfig(v apiVersion, c *dockerspec.DockerOCIImageConfig) any {
	if c == nil {
		c = &dockerspec.DockerOCIImageConfig{}
	}
	full := fullImageConfig{
		DockerOCIImageConfig: c,
		User:                 c.User,
		Env:                  c.Env,
		Cmd:                  c.Cmd,
		Volumes:              c.Volumes,
		WorkingDir:           c.WorkingDir,
		Entrypoint:           c.Entrypoint,
		OnBuild:              c.OnBuild,
		Labels:               c.Labels,
	}
	if v.before(50) {
		return &containerLikeConfig{fullImageConfig: full}
	}
	return &full
}
