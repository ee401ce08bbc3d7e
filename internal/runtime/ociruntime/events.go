//go:build linux

package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// event and what is below it are runc's form of statistics.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

type eventStats struct {
	CPU struct {
		Usage struct {
			Total  uint64   `json:"total,omitempty"`
			PerCPU []uint64 `json:"percpu,omitempty"`
			Kernel uint64   `json:"kernel"`
			User   uint64   `json:"user"`
		} `json:"usage"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling"`
	} `json:"cpu"`
	Memory struct {
		Cache uint64            `json:"cache,omitempty"`
		Usage memoryUsage       `json:"usage"`
		Raw   map[string]uint64 `json:"raw,omitempty"`
	} `json:"memory"`
	PIDs struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		Bytes []blkioUsage `json:"ioServiceBytesRecursive,omitempty"`
		Count []blkioUsage `json:"ioServicedRecursive,omitempty"`
	} `json:"blkio"`
}

type memoryUsage struct {
	Limit    uint64 `json:"limit"`
	Usage    uint64 `json:"usage,omitempty"`
	Max      uint64 `json:"max,omitempty"`
	Failures uint64 `json:"failcnt"`
}

type blkioUsage struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

func statsOf(s *cgroup.Stats) *eventStats {
	out := &eventStats{}
	cpu := &out.CPU
	cpu.Usage.Total, cpu.Usage.User, cpu.Usage.Kernel = nanoseconds(s.CPU.Total), nanoseconds(s.CPU.User), nanoseconds(s.CPU.System)
	for _, d := range s.CPU.PerCPU {
		cpu.Usage.PerCPU = append(cpu.Usage.PerCPU, nanoseconds(d))
	}
	cpu.Throttling.Periods, cpu.Throttling.ThrottledPeriods = s.CPU.Periods, s.CPU.ThrottledPeriods
	cpu.Throttling.ThrottledTime = nanoseconds(s.CPU.Throttled)
	m := &out.Memory
	m.Usage, m.Raw = memoryUsage{s.Memory.Limit, s.Memory.Usage, s.Memory.Max, s.Memory.Failures}, s.Memory.Detail
	m.Cache = max(s.Memory.Detail["cache"], s.Memory.Detail["file"]) // version 1, version 2
	out.PIDs.Current, out.PIDs.Limit = s.PIDs.Current, s.PIDs.Limit
	if s.PIDs.Limit == 1<<64-1 {
		out.PIDs.Limit = 0
	}
	for _, io := range s.IO {
		out.Blkio.Bytes = append(out.Blkio.Bytes, blkioUsage{io.Major, io.Minor, io.Op, io.Bytes})
		out.Blkio.Count = append(out.Blkio.Count, blkioUsage{io.Major, io.Minor, io.Op, io.Count})
	}
	return out
}

func nanoseconds(d time.Duration) uint64 { return uint64(max(d, 0)) }

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
			s, err := g.Stats()
			if err != nil {
				return err
			}
			return enc.Encode(event{"stats", c.ID, statsOf(s)})
		}
		return c.follow(ctx, g, fd, interval, enc)
	}
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
		s, err := g.Stats()
		if err != nil {
			return err
		}
		if err := enc.Encode(event{"stats", c.ID, statsOf(s)}); err != nil {
			return err
		}
	}
	return ctx.Err()
}
