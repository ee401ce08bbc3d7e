//go:build linux

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/oci"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// external is what the shim keeps of a container that another runtime made. The
// container's directory is its bundle.
type external struct {
	c       oci.Container
	deleted sync.Once
}

// runtimeFile names the runtime, for the next shim, until there is a record.
const runtimeFile = "runtime"

func newExternal(c *container, r runtime.External) *external {
	return &external{c: oci.Container{ID: c.id, Bundle: c.dir, Runtime: r}}
}

// tellExternal tells another runtime when systemd is to make the control group.
func tellExternal(l *runtime.Launch) {
	if l.External == nil || l.Spec == nil || l.Spec.Linux == nil || !cgroup.IsScope(l.Spec.Linux.CgroupsPath) {
		return
	}
	r := *l.External
	r.Args = append(slices.Clone(r.Args), "--systemd-cgroup")
	l.External = &r
}

// createExternal has another runtime make a container that waits to be started.
func (s *server) createExternal(ctx context.Context, c *container, l *runtime.Launch, streams launch.Streams) (*newborn, error) {
	if err := validID(l.External.Name); err != nil {
		return nil, err
	}
	data, err := json.Marshal(l.External)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, runtimeFile), data, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := s.openOrphanage(); err != nil {
		return nil, err
	}
	ext := newExternal(c, *l.External)
	p, err := s.runtimes.Create(ctx, &ext.c, l, streams)
	if err != nil {
		// It may have got half way.
		s.forgetExternal(ext)
		closeAll([]*os.File{ext.c.Mounts})
		s.warn(c.id, s.signalAll(c, unix.SIGKILL))
		return nil, err
	}
	c.ext = ext
	return &newborn{
		pid: p.PID, pidfd: p.PidFD, mounts: ext.c.Mounts,
		finish: func(ctx context.Context) (*os.File, error) { return p.Console, s.runtimes.Start(ctx, &ext.c) },
		abort:  func() { closeAll([]*os.File{p.Console}) },
	}, nil
}

// execExternal has a container's runtime start one more process in it.
func (s *server) execExternal(ctx context.Context, c *container, e *runtime.Exec, streams launch.Streams) (*newborn, error) {
	p, err := s.runtimes.Exec(ctx, &c.ext.c, e, c.main.rec.PID, streams)
	if err != nil {
		return nil, err
	}
	return &newborn{
		pid: p.PID, pidfd: p.PidFD,
		finish: func(context.Context) (*os.File, error) { return p.Console, nil },
		abort:  func() { closeAll([]*os.File{p.Console}) },
	}, nil
}

// killExternal signals a container's first process through its runtime: the
// process that the shim knows may be a sandbox around it. To kill outright works
// also where the runtime does not answer.
func (s *server) killExternal(c *container, p *process, sig unix.Signal) error {
	if sig == 0 {
		return p.control(func(fd int) error { return unix.PidfdSendSignal(fd, 0, nil, 0) })
	}
	err := s.runtimes.Kill(context.Background(), &c.ext.c, sig)
	switch {
	case err == nil:
		return nil
	case !s.alive(p):
		return unix.ESRCH
	case sig != unix.SIGKILL:
		return err
	}
	s.log.Warn("killing a container without its runtime", "container", c.id, "err", err)
	return errors.Join(
		p.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) }),
		s.signalAll(c, sig),
	)
}

func (s *server) freezeExternal(c *container, frozen bool) error {
	if now, err := c.group.Frozen(); err == nil && now == frozen {
		return nil // also where it was killed: the frozen must be thawed once
	}
	if frozen {
		return s.runtimes.Pause(context.Background(), &c.ext.c)
	}
	return s.runtimes.Resume(context.Background(), &c.ext.c)
}

func (s *server) updateExternal(c *container, r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	return s.runtimes.Update(context.Background(), &c.ext.c, r)
}

// deleteExternal has the runtime forget a container that has ended.
func (s *server) deleteExternal(c *container) {
	c.ext.deleted.Do(func() { s.forgetExternal(c.ext) })
}

func (s *server) forgetExternal(ext *external) {
	s.warn(ext.c.ID, s.runtimes.Delete(context.Background(), &ext.c))
}

// adoptExternal takes over a container of another runtime. The namespace that
// its bundle was mounted in went with the earlier shim; the container has its own.
func (s *server) adoptExternal(c *container, r *runtime.External) {
	if r != nil {
		c.ext = newExternal(c, *r)
		s.warn(c.id, s.openOrphanage())
	}
}

// sweepExternal removes what a runtime has made of a start that was cut short.
func (s *server) sweepExternal(dir string) {
	data, err := os.ReadFile(filepath.Join(dir, runtimeFile))
	if err != nil {
		return // it was to be our own
	}
	var r runtime.External
	if err := json.Unmarshal(data, &r); err != nil || validID(r.Name) != nil {
		return // nor was this one written to its end
	}
	s.forgetExternal(newExternal(&container{id: filepath.Base(dir), dir: dir}, r))
}

// initFile puts a copy of this program where other runtimes can bind it into
// containers, to be their init.
func (s *server) initFile() (string, error) {
	path := filepath.Join(s.dir, "init")
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	from, err := os.Open(s.host.Exe)
	if err != nil {
		return "", err
	}
	defer func() { _ = from.Close() }()
	to, err := os.CreateTemp(s.dir, "init-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(to.Name()) }()
	_, err = io.Copy(to, from)
	err = errors.Join(err, to.Chmod(0o555), to.Close())
	if err == nil {
		err = os.Rename(to.Name(), path)
	}
	return path, errs.With(errs.Unavailable, err)
}
