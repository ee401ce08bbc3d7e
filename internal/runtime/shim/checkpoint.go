//go:build linux

package shim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/criu"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/oci"
)

const (
	checkpointLimit = 10 * time.Minute
	// How long a checkpoint waits for execs to end: health checks are some.
	execPatience = 5 * time.Second
)

// checkpoint saves a container to a directory. Unless it is to go on, it ends
// as if it had been killed.
func (s *server) checkpoint(ctx context.Context, c *container, to *runtime.Checkpoint) error {
	if to == nil || !filepath.IsAbs(to.Dir) || to.CRIU == "" {
		return errs.New(errs.Invalid, "checkpoint: no directory, or no criu")
	}
	c.verbs.Lock() // nothing is executed meanwhile
	defer c.verbs.Unlock()
	if err := s.canCheckpoint(c); err != nil {
		return err
	}
	meta, err := criu.Inspect(c.main.rec.PID)
	if err != nil {
		return err
	}
	work, err := workDir(c)
	if err != nil {
		return err
	}
	d := &criu.Dump{
		Program: to.CRIU, PID: c.main.rec.PID, Images: to.Dir, Work: work, LeaveRunning: to.LeaveRunning,
		Freezer: c.group.FreezerDir(), Meta: meta,
	}
	defer s.orphans.hold()()
	ctx, cancel := context.WithTimeoutCause(ctx, checkpointLimit, errors.New("it took too long"))
	defer cancel()
	return d.Run(ctx)
}

func workDir(c *container) (string, error) {
	dir := filepath.Join(c.dir, "criu")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, nil
}

// canCheckpoint refuses what criu could not make anew.
func (s *server) canCheckpoint(c *container) error {
	rec := c.main.rec
	switch {
	case !s.running(c.main):
		return errs.Newf(errs.Conflict, "container %s is not running", c.id)
	case c.ext != nil:
		return errs.Newf(errs.Unsupported, "checkpoints of containers that runtime %s runs are not supported", c.ext.c.Runtime.Name)
	case rec.IO.TTY:
		return errs.New(errs.Unsupported, "checkpoints of containers with a terminal are not supported: its other end is not the container's")
	case rec.IO.Passed:
		return errs.New(errs.Unsupported, "checkpoints of containers with their client's streams are not supported")
	case !c.own:
		return errs.New(errs.Unsupported, "checkpoints of containers without a process namespace of their own are not supported: their process ids could not be given to them again")
	}
	if frozen, err := c.group.Frozen(); err != nil {
		return err
	} else if frozen {
		return errs.Newf(errs.Conflict, "Container %s is paused, unpause the container before a checkpoint", c.id)
	}
	for end := time.Now().Add(execPatience); s.executing(c); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return errs.Newf(errs.Conflict, "an exec runs in container %s: it cannot be part of a checkpoint", c.id)
		}
	}
	return nil
}

func pidsOf(spec *specs.Spec) *specs.LinuxPids {
	if spec.Linux.Resources == nil {
		return nil
	}
	return spec.Linux.Resources.Pids
}

func (s *server) executing(c *container) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range c.execs {
		if p.rec.Exit == nil {
			return true
		}
	}
	return false
}

// restore makes a container anew from a checkpoint.
func (s *server) restore(ctx context.Context, c *container, l *runtime.Launch, streams launch.Streams) (*newborn, error) {
	switch {
	case l.IO.TTY, l.IO.Passed, !c.own:
		return nil, errs.New(errs.Invalid, "restore: only containers without a terminal and with a process namespace of their own have checkpoints")
	case !filepath.IsAbs(l.Restore.Dir) || l.Restore.CRIU == "":
		return nil, errs.New(errs.Invalid, "restore: no directory, or no criu")
	}
	meta, err := criu.Load(l.Restore.Dir)
	if err != nil {
		return nil, err
	}
	work, err := workDir(c)
	if err != nil {
		return nil, err
	}
	p, err := s.runtimes.Restore(ctx, &oci.Restore{Dir: c.dir, Work: work, Launch: l, Meta: meta, Streams: streams, Place: c.group.Add})
	c.group.Born()
	if err == nil {
		err = c.group.LimitPIDs(pidsOf(l.Spec)) // criu's own would have counted
	}
	if err != nil {
		s.warn(c.id, s.signalAll(c, unix.SIGKILL))
		return nil, err
	}
	mounts, err := os.Open("/proc/" + itoa(p.PID) + "/ns/mnt")
	if err != nil {
		s.warn(c.id, err)
	}
	return &newborn{
		pid: p.PID, pidfd: p.PidFD, mounts: mounts,
		finish: func(context.Context) (*os.File, error) { return nil, nil },
		abort:  func() {},
	}, nil
}
