//go:build linux

package ociruntime

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
)

const killTimeout = 10 * time.Second

func (a *app) delete(fs *flag.FlagSet) func(context.Context, []string) error {
	var force bool
	boolFlag(fs, &force, "force", "f", "kill the container if it still runs; deleting what is not there is no error")
	return func(ctx context.Context, args []string) error {
		c, err := a.loadLocked(args[0])
		if errs.Is(err, errs.NotFound) {
			if rerr := a.removeRemnant(args[0]); rerr != nil {
				return rerr
			}
			if force {
				return nil
			}
		}
		if err != nil {
			return err
		}
		defer c.unlock()
		st, err := c.status()
		if err != nil {
			return err
		}
		if st != stopped && st != created && !force {
			return errs.Newf(errs.Conflict, "cannot delete container %s that is not stopped: %s", c.ID, st)
		}
		if st != stopped || force {
			if err := c.killAndWait(); err != nil {
				return err
			}
		}
		return a.destroy(ctx, c)
	}
}

// removeRemnant removes a directory without record: its create was killed
// before it had made anything else.
func (a *app) removeRemnant(id string) error {
	if checkID(id) != nil {
		return nil
	}
	dir := filepath.Join(a.root, id)
	lock, err := lockDir(dir, true)
	if err != nil {
		return nil // not there
	}
	defer func() { _ = lock.Close() }()
	if _, err := os.Lstat(filepath.Join(dir, recordName)); err == nil {
		return nil // written meanwhile
	}
	return os.RemoveAll(dir)
}

// killAndWait kills every process of the container.
func (c *container) killAndWait() error {
	fd, alive, err := c.open()
	if err != nil {
		return err
	}
	if alive {
		defer func() { _ = unix.Close(fd) }()
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return errs.Newf(errs.Internal, "kill container %s: %w", c.ID, err)
		}
	}
	if err := c.signalAll(unix.SIGKILL, true); err != nil {
		return err
	}
	if alive && !ended(fd, int(killTimeout/time.Millisecond)) {
		return errs.Newf(errs.Unavailable, "container %s: container init still running", c.ID)
	}
	return nil
}

// destroy removes what is left of a container that has ended.
func (a *app) destroy(ctx context.Context, c *container) error {
	if err := c.signalAll(unix.SIGKILL, true); err != nil { // those it left behind
		return err
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	if err := g.Delete(); err != nil {
		return err
	}
	if err := launch.LeaveRDT(c.RDT); err != nil {
		a.log.Warn(err.Error())
	}
	a.poststop(ctx, c)
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	return nil
}

func (c *container) ownsPIDs() bool {
	for _, n := range c.Spec.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			return n.Path == ""
		}
	}
	return false
}
