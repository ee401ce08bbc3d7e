//go:build linux

package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// event is runc's form of one.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func (a *app) events(fs *flag.FlagSet) func(context.Context, []string) error {
	interval, once := 5*time.Second, false
	fs.DurationVar(&interval, "interval", interval, "time between statistics")
	fs.BoolVar(&once, "stats", false, "print statistics once")
	return func(ctx context.Context, args []string) error {
		if interval <= 0 {
			return errors.New("duration interval must be greater than 0")
		}
		c, err := a.load(args[0])
		if err != nil {
			return err
		}
		fd, alive, err := c.open()
		if err != nil {
			return err
		}
		if !alive {
			return errNotRunning()
		}
		defer func() { _ = unix.Close(fd) }()
		g, err := c.group()
		if err != nil {
			return err
		}
		enc := json.NewEncoder(a.out)
		if once {
			return c.count(g, enc)
		}
		return c.follow(ctx, g, fd, interval, enc)
	}
}

// count prints statistics.
func (c *container) count(g *cgroup.Group, enc *json.Encoder) error {
	s, err := g.Stats()
	if err != nil {
		return err
	}
	out := statsOf(s, g.Details())
	if want := c.Spec.Linux.IntelRdt; want != nil {
		if out.IntelRdt, err = launch.CountRDT(c.ID, want); err != nil {
			return err
		}
	}
	return enc.Encode(event{"stats", c.ID, out})
}

// follow prints statistics, and when the kernel killed for want of memory,
// until the container ends.
func (c *container) follow(ctx context.Context, g *cgroup.Group, pidfd int, interval time.Duration, enc *json.Encoder) error {
	const look = 100 * time.Millisecond
	kills, err := g.OOMKills()
	if err != nil {
		return err
	}
	next := time.Now().Add(interval)
	for ctx.Err() == nil {
		over := ended(pidfd, int(min(look, interval)/time.Millisecond))
		if n, err := g.OOMKills(); err == nil && n > kills {
			kills = n
			if err := enc.Encode(event{Type: "oom", ID: c.ID}); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		if time.Now().Before(next) {
			continue
		}
		next = next.Add(interval)
		if err := c.count(g, enc); err != nil {
			return err
		}
	}
	return ctx.Err()
}
