//go:build linux

package ociruntime

import (
	"context"
	"flag"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func (a *app) pause(*flag.FlagSet) func(context.Context, []string) error {
	return func(_ context.Context, args []string) error {
		return a.freeze(args[0], true)
	}
}

func (a *app) resume(*flag.FlagSet) func(context.Context, []string) error {
	return func(_ context.Context, args []string) error {
		return a.freeze(args[0], false)
	}
}

func (a *app) freeze(id string, frozen bool) error {
	c, err := a.loadLocked(id)
	if err != nil {
		return err
	}
	defer c.unlock()
	st, err := c.status()
	if err != nil {
		return err
	}
	switch {
	case frozen && st != running && st != created && st != paused:
		return errNotRunning()
	case frozen && st == paused:
		return errs.New(errs.Conflict, "container already paused")
	case !frozen && st != paused:
		return errs.New(errs.Conflict, "container not paused")
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	return g.Freeze(frozen)
}
