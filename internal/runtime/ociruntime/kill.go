//go:build linux

package ociruntime

import (
	"context"
	"errors"
	"flag"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func (a *app) kill(fs *flag.FlagSet) func(context.Context, []string) error {
	var all bool
	boolFlag(fs, &all, "all", "a", "signal every process of the container")
	return func(_ context.Context, args []string) error {
		sig := unix.SIGTERM
		if len(args) > 1 {
			var err error
			if sig, err = parseSignal(args[1]); err != nil {
				return err
			}
		}
		c, err := a.load(args[0])
		if err != nil {
			return err
		}
		return c.signal(sig, all)
	}
}

func parseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 0 || n > 64 {
			return 0, errs.Newf(errs.Invalid, "unknown signal %q", text)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		return realTime(text, 34, rest)
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMAX"); ok {
		return realTime(text, 64, rest)
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, errs.Newf(errs.Invalid, "unknown signal %q", text)
}

func realTime(text string, base int, offset string) (unix.Signal, error) {
	n := 0
	if offset != "" {
		var err error
		if n, err = strconv.Atoi(offset); err != nil {
			return 0, errs.Newf(errs.Invalid, "unknown signal %q", text)
		}
	}
	if base += n; base < 34 || base > 64 {
		return 0, errs.Newf(errs.Invalid, "unknown signal %q", text)
	}
	return unix.Signal(base), nil
}

// signal sends sig to the first process, or to all. A container without process
// namespace of its own ends only if all are killed: nothing else takes those
// along whose first process is gone.
func (c *container) signal(sig unix.Signal, all bool) error {
	if all || sig == unix.SIGKILL && !c.ownsPIDs() {
		return c.signalAll(sig, all)
	}
	fd, alive, err := c.open()
	if err != nil {
		return err
	}
	if !alive {
		return errNotRunning()
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return errNotRunning()
		}
		return errs.Newf(errs.Internal, "signal %d to container %s: %w", sig, c.ID, err)
	}
	if sig == unix.SIGKILL {
		c.thaw() // with version 1, what is frozen does not even die
	}
	return nil
}

func (c *container) signalAll(sig unix.Signal, stoppedIsFine bool) error {
	g, err := c.group()
	if err != nil {
		return err
	}
	if !g.Exists() {
		if stoppedIsFine {
			return nil
		}
		return errNotRunning()
	}
	// Until nobody new turns up: processes fork while they are being killed.
	seen := make(map[int]bool)
	for again := true; again; {
		again = false
		pids, err := g.Procs()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if seen[pid] {
				continue
			}
			seen[pid], again = true, true
			if err := signalMember(g.Procs, pid, sig); err != nil {
				return errs.Newf(errs.Internal, "signal %d to process %d of container %s: %w", sig, pid, c.ID, err)
			}
		}
	}
	if sig == unix.SIGKILL {
		c.thaw()
	}
	if len(seen) == 0 && !stoppedIsFine {
		return errNotRunning()
	}
	return nil
}

// signalMember signals a process that is listed before and after it was opened:
// its number was not given to another meanwhile.
func signalMember(list func() ([]int, error), pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if errors.Is(err, unix.EINVAL) { // a thread alone in the group
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	now, err := list()
	if err != nil {
		return err
	}
	for _, p := range now {
		if p == pid {
			if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			break
		}
	}
	return nil
}

func (c *container) thaw() {
	if g, err := c.group(); err == nil {
		if frozen, err := g.Frozen(); err == nil && frozen {
			_ = g.Freeze(false)
		}
	}
}
