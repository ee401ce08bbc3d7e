//go:build linux

package ociruntime

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime/launch"
)

// The launcher runs the hooks that belong to creating a container. Here are
// those that come later.

func (c *container) hookState(st status) *specs.State {
	s := &specs.State{
		Version: specs.Version, ID: c.ID, Status: specs.ContainerState(st), Pid: c.PID, Bundle: c.Bundle, Annotations: c.Spec.Annotations,
	}
	if st == stopped {
		s.Pid = 0
	}
	return s
}

// poststart runs what is to run once the command does. If that fails the
// container is stopped.
func (a *app) poststart(ctx context.Context, c *container) error {
	if c.Spec.Hooks == nil {
		return nil
	}
	err := launch.RunHooks(ctx, "poststart", c.Spec.Hooks.Poststart, c.hookState(running))
	if err != nil {
		err = errors.Join(fmt.Errorf("start container %s: %w", c.ID, err), c.killAndWait())
	}
	return err
}

// poststop runs what is to run once the container is gone: each hook, whatever
// became of the one before: the container is gone, so a failure is a warning.
func (a *app) poststop(ctx context.Context, c *container) {
	if c.Spec.Hooks == nil || c.PID == 0 {
		return
	}
	for _, h := range c.Spec.Hooks.Poststop {
		if err := launch.RunHooks(ctx, "poststop", []specs.Hook{h}, c.hookState(stopped)); err != nil {
			a.log.Warn(err.Error())
		}
	}
}
