//go:build linux

package ociruntime

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/ociruntime/swrk"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/proc"
)

func (a *app) restore(fs *flag.FlagSet) func(context.Context, []string) error {
	var f createFlags
	var r swrk.Restore
	var noSubreaper bool
	f.register(fs)
	boolFlag(fs, &f.detach, "detach", "d", "do not wait for the end")
	fs.BoolVar(&noSubreaper, "no-subreaper", false, "leave orphans of the container to somebody else")
	empty := criuFlags(fs, &r.Options)
	fs.StringVar(&r.LSMProfile, "lsm-profile", "", "TYPE:NAME of the security profile to come back with")
	fs.StringVar(&r.LSMMountContext, "lsm-mount-context", "", "security context of the mounts to come back with")
	return func(ctx context.Context, args []string) error {
		if !f.detach && !noSubreaper {
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
				return fmt.Errorf("become subreaper: %w", err)
			}
		}
		if err := checkCriu(&r.Options, *empty); err != nil {
			return err
		}
		c, ch, err := a.bringBack(args[0], &f, &r)
		if err != nil {
			return fmt.Errorf("%s restore failed: %w", Name, err)
		}
		defer c.unlock()
		if f.detach {
			return ch.close()
		}
		c.unlock()
		code, err := watchSignals(ch).foreground()
		if err == nil {
			err = a.forget(ctx, c)
		}
		if err == nil && code != 0 {
			err = exitError(code)
		}
		return err
	}
}

// bringBack makes a container of what was saved.
func (a *app) bringBack(id string, f *createFlags, r *swrk.Restore) (*container, *child, error) {
	bundle, spec, err := loadBundle(f.bundle)
	if err != nil {
		return nil, nil, err
	}
	if err := f.check(spec.Process.Terminal); err != nil {
		return nil, nil, err
	}
	sys, err := cgroup.Detect()
	if err != nil {
		return nil, nil, err
	}
	sys.Hold = launch.Hold
	if spec.Linux.CgroupsPath, err = a.placeGroup(spec, id, sys); err != nil {
		return nil, nil, err
	}
	c, err := a.reserve(id)
	if err != nil {
		return nil, nil, err
	}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { _ = os.RemoveAll(c.dir); c.unlock() })
	c.record = record{
		ID: id, Bundle: bundle, Rootfs: spec.Root.Path, Created: time.Now().UTC(), Cgroup: spec.Linux.CgroupsPath, Spec: spec,
		NoNewKeyring: f.noKeyring,
	}
	if err := c.save(); err != nil {
		return nil, nil, err
	}
	group, err := sys.Open(c.Cgroup)
	if err != nil {
		return nil, nil, errs.With(errs.Invalid, err)
	}
	if err := group.Create(); err != nil {
		return nil, nil, err
	}
	undo.Push(func() { _ = c.signalAll(unix.SIGKILL, true); _ = group.Delete() })
	if err := a.limit(group, spec.Linux.Resources, false); err != nil {
		return nil, nil, err
	}
	ch, err := a.runCriu(c, group, r)
	group.Born()
	if err != nil {
		return nil, nil, err
	}
	undo.Push(ch.kill)
	if err := f.tell(ch); err != nil {
		return nil, nil, err
	}
	undo.Release()
	return c, ch, nil
}

func (a *app) runCriu(c *container, group *cgroup.Group, r *swrk.Restore) (*child, error) {
	ch := &child{pidfd: -1}
	r.Spec, r.Rootfs, r.Dir, r.Config = c.Spec, c.Rootfs, c.dir, c.Spec.Annotations[criuConfig]
	r.Stdio, r.Attach = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, group.Add
	r.Terminal = func(master *os.File) error { ch.console = master; return nil }
	r.Restored = func(pid int) (err error) {
		if c.Ticks, err = proc.StartTicks(pid); err != nil {
			return err
		}
		c.PID, ch.pid = pid, pid
		if ch.pidfd, err = unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK); err != nil {
			return err
		}
		return c.save() // before it goes on: delete finds it from here
	}
	if err := r.Run(); err != nil {
		if ch.pidfd >= 0 {
			ch.kill()
		}
		return nil, err
	}
	if ch.pidfd < 0 {
		return nil, errs.New(errs.Internal, "criu told of no process")
	}
	return ch, nil
}
