//go:build linux

package ociruntime

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"golang.org/x/sys/unix"
)

func (a *app) runVerb(fs *flag.FlagSet) func(context.Context, []string) error {
	var f createFlags
	var keep, noSubreaper bool
	f.register(fs)
	boolFlag(fs, &f.detach, "detach", "d", "do not wait for the end")
	fs.BoolVar(&keep, "keep", false, "do not delete the container when it has ended")
	fs.BoolVar(&noSubreaper, "no-subreaper", false, "leave orphans of the container to somebody else")
	return func(ctx context.Context, args []string) error {
		if !f.detach && !noSubreaper {
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
				return fmt.Errorf("become subreaper: %w", err)
			}
		}
		// Created first and started then, like by two commands: hooks and
		// NOTIFY_SOCKET need the moment in between.
		c, ch, err := a.make(ctx, args[0], &f, true)
		if err != nil {
			return fmt.Errorf("%s run failed: %w", Name, err)
		}
		defer c.unlock()
		w := watchSignals(ch)
		w.resize() // before the command can look
		if err := a.open(ctx, c); err != nil {
			ch.kill()
			return errors.Join(fmt.Errorf("%s run failed: %w", Name, err), a.destroy(ctx, c))
		}
		if f.detach {
			return ch.close()
		}
		c.unlock() // others may signal, pause and watch it meanwhile
		code, err := w.foreground()
		if err != nil {
			return err
		}
		if !keep {
			if err := a.forget(ctx, c); err != nil {
				return err
			}
		}
		if code != 0 {
			return exitError(code)
		}
		return nil
	}
}

// forget deletes a container that has ended, unless somebody else just did.
func (a *app) forget(ctx context.Context, c *container) error {
	now, err := a.loadLocked(c.ID)
	if err != nil || now.PID != c.PID || now.Ticks != c.Ticks {
		return nil
	}
	defer now.unlock()
	return a.destroy(ctx, now)
}
