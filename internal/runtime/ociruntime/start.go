//go:build linux

package ociruntime

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
)

func (a *app) start(*flag.FlagSet) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		c, err := a.loadLocked(args[0])
		if err != nil {
			return err
		}
		defer c.unlock()
		st, err := c.status()
		if err != nil {
			return err
		}
		switch st {
		case created:
		case stopped:
			return errs.New(errs.Conflict, "cannot start a container that has stopped")
		case running:
			return errs.New(errs.Conflict, "cannot start an already running container")
		default:
			return errs.Newf(errs.Conflict, "cannot start a container in the %s state", st)
		}
		return a.open(ctx, c)
	}
}

// settleScope tells systemd of a limit of processes that was too low for the
// launcher: it would write what it knows back.
func (a *app) settleScope(c *container) {
	g, err := c.group()
	if err == nil && g.Exists() {
		err = g.SettlePIDs(c.Spec.Linux.Resources)
	}
	if err != nil {
		a.log.Warn("systemd does not know the limit of processes", "container", c.ID, "err", err)
	}
}

// open lets the command of a created container go.
func (a *app) open(ctx context.Context, c *container) error {
	n, err := a.listenNotify(c)
	if err != nil {
		return err
	}
	defer n.close()
	if err := launch.Release(ctx, c.gate(), c.LatePIDs); err != nil {
		_ = os.Remove(c.gate())
		return fmt.Errorf("start container %s: %w", c.ID, plain(err))
	}
	if err := os.Remove(c.gate()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.settleScope(c)
	if err := a.poststart(ctx, c); err != nil {
		return err
	}
	return n.relay(ctx, c)
}
