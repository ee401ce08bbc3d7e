package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// CheckpointOptions are those of POST /containers/{id}/checkpoints.
type CheckpointOptions struct {
	ID   string // the checkpoint's name
	Dir  string // that it is a directory of; "": the container's own
	Exit bool   // the container ends with it
}

const checkpointsName = "checkpoints"

var checkpointName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CheckCheckpointID refuses a name that no checkpoint can have.
func CheckCheckpointID(name string) error {
	if !checkpointName.MatchString(name) {
		return errs.Newf(errs.Invalid, "invalid checkpoint ID %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// checkpointDir is where a checkpoint is kept.
func (s *Service) checkpointDir(c *ctr, dir, name string) (string, error) {
	if err := CheckCheckpointID(name); err != nil {
		return "", err
	}
	parent, err := s.checkpointsDir(c, dir)
	return filepath.Join(parent, name), err
}

func (s *Service) checkpointsDir(c *ctr, dir string) (string, error) {
	switch {
	case dir == "":
		return filepath.Join(s.dataDir(c.id), checkpointsName), nil
	case !filepath.IsAbs(dir):
		return "", errs.Newf(errs.Invalid, "checkpoint directory %q is not an absolute path", dir)
	}
	return filepath.Clean(dir), nil
}

func (s *Service) criu() (string, error) {
	if s.o.CRIU == nil {
		return "", errs.New(errs.Unsupported, "checkpoints are not supported")
	}
	return s.o.CRIU()
}

// checkpointable refuses containers whose owners are mapped: criu would have to
// be told of every mount's.
func (s *Service) checkpointable(rec *Record) error {
	if s.users(rec) != nil {
		return errs.Newf(errs.Unsupported, "container %s is in a user namespace: checkpoints are supported with --userns=host only", rec.Name)
	}
	return nil
}

// Checkpoint saves a running container to disk.
func (s *Service) Checkpoint(ctx context.Context, id string, o CheckpointOptions) error {
	c, done, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	err = s.checkpoint(context.WithoutCancel(ctx), c, o)
	done()
	if err != nil || !o.Exit {
		return err
	}
	// Its end is told with the turn that was just given back.
	ended, err := s.Wait(ctx, c.id, container.WaitConditionNotRunning)
	if err != nil {
		return nil //nolint:nilerr // removed with its end
	}
	<-ended
	return nil
}

func (s *Service) checkpoint(ctx context.Context, c *ctr, o CheckpointOptions) (err error) {
	v := c.look()
	if v.st.Phase != Running {
		return errs.Newf(errs.Conflict, "Container %s is not running", c.id)
	}
	if err := s.checkpointable(&v.rec); err != nil {
		return err
	}
	dir, err := s.checkpointDir(c, o.Dir, o.ID)
	if err != nil {
		return err
	}
	program, err := s.criu()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return errs.Newf(errs.Conflict, "checkpoint with name %s already exists for container %s", o.ID, v.rec.Name)
	} else if err != nil {
		return err
	}
	stopped := func(on bool) { // who ends it is a person: no policy starts it again
		c.mu.Lock()
		c.st.Stopped = on
		c.mu.Unlock()
	}
	if o.Exit {
		stopped(true)
	}
	if err := s.o.Runtime.Checkpoint(ctx, c.id, runtime.Checkpoint{Dir: dir, CRIU: program, LeaveRunning: !o.Exit}); err != nil {
		stopped(v.st.Stopped)
		return fmt.Errorf("Cannot checkpoint container %s: %w", v.rec.Name, errors.Join(err, os.RemoveAll(dir))) //nolint:staticcheck,revive // docker's words
	}
	s.event(&v.rec, apievents.ActionCheckpoint, map[string]string{"checkpoint": o.ID})
	return nil
}

// Checkpoints lists a container's, by name.
func (s *Service) Checkpoints(_ context.Context, id, dir string) ([]string, error) {
	c, err := s.index.get(id)
	if err != nil {
		return nil, err
	}
	if dir, err = s.checkpointsDir(c, dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := []string{}
	for _, e := range entries {
		if e.IsDir() && checkpointName.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// RemoveCheckpoint removes one.
func (s *Service) RemoveCheckpoint(ctx context.Context, id, dir, name string) error {
	c, done, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if dir, err = s.haveCheckpoint(c, dir, name); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (s *Service) haveCheckpoint(c *ctr, dir, name string) (string, error) {
	dir, err := s.checkpointDir(c, dir, name)
	if err != nil {
		return "", err
	}
	if st, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
		return "", errs.Newf(errs.NotFound, "checkpoint %s does not exist for container %s", name, c.name())
	} else if err != nil {
		return "", err
	}
	return dir, nil
}

// StartFrom starts a container from a checkpoint.
func (s *Service) StartFrom(ctx context.Context, id, dir, name string) error {
	c, done, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	rec := c.record()
	if err := s.checkpointable(&rec); err != nil {
		return err
	}
	program, err := s.criu()
	if err != nil {
		return err
	}
	if dir, err = s.haveCheckpoint(c, dir, name); err != nil {
		return err
	}
	return s.startByHand(ctx, c, &runtime.Checkpoint{Dir: dir, CRIU: program})
}
