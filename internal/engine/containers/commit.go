package containers

import (
	"context"
	"path/filepath"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/oci/changes"
)

// Commit makes an image of what a container has changed.
func (s *Service) Commit(ctx context.Context, o CommitOptions) (string, error) {
	c, err := s.index.get(o.Container)
	if err != nil {
		return "", err
	}
	v := c.look()
	phase, rec := v.st.Phase, v.rec
	switch phase {
	case Dead:
		return "", errs.Newf(errs.Conflict, "You cannot commit container %s which is Dead", c.id)
	case Removing:
		return "", errs.Newf(errs.Conflict, "You cannot commit container %s which is being removed", c.id)
	}
	config, err := committed(&o, rec.Config)
	if err != nil {
		return "", err
	}
	img, err := s.imageOf(ctx, c, &rec)
	if err != nil {
		return "", err
	}
	if o.Pause && phase == Running {
		// Paused, not held: to read a large layer takes time, and whoever wants to
		// end the container meanwhile may.
		if err := s.pauseFor(ctx, c.id); err != nil && !errs.Is(err, errs.Conflict) {
			return "", err
		} else if err == nil {
			defer func() {
				err := s.Unpause(context.WithoutCancel(ctx), c.id)
				if err != nil && !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) {
					s.log.ErrorContext(ctx, "cannot resume a container after commit", "container", c.id, "err", err)
				}
			}()
		}
	}
	id, err := s.o.Images.Commit(ctx, Commit{
		Parent: img, Upper: filepath.Join(s.dataDir(c.id), upperName), Config: config,
		Author: o.Author, Comment: o.Comment, CreatedBy: strings.Join(rec.Config.Cmd, " "),
		Ref: o.Ref, ContainerID: c.id,
	})
	if err != nil {
		return "", err
	}
	s.event(&rec, apievents.ActionCommit, map[string]string{"comment": o.Comment, "imageID": id, "imageRef": o.Ref})
	return id, nil
}

// committed is the configuration of a commit's image. The changes go to what was
// given with the request, and what is open then is the container's.
func committed(o *CommitOptions, own *container.Config) (out dockerspec.DockerOCIImageConfig, err error) {
	given := own
	if o.Config != nil {
		given = o.Config
	}
	changed := imageConfigOf(given)
	if err := changes.Apply(&changed, o.Changes); err != nil {
		return out, err
	}
	if given, err = imageConfig(changed); err != nil {
		return out, err
	}
	return imageConfigOf(merge(given, own)), nil
}

// imageConfigOf is the part of a container's configuration that an image has.
func imageConfigOf(c *container.Config) dockerspec.DockerOCIImageConfig {
	out := dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Volumes: c.Volumes,
			WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
			ArgsEscaped: c.ArgsEscaped, //nolint:staticcheck // carried as it is
		},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{
			Healthcheck: c.Healthcheck, OnBuild: c.OnBuild, Shell: c.Shell,
		},
	}
	for p := range c.ExposedPorts {
		put(&out.ExposedPorts, p.String(), struct{}{})
	}
	return out
}
