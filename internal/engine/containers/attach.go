package containers

import (
	"context"
	"io"
	"strconv"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Attach connects a client to a container's streams; to one that does not run,
// for its next start.
func (s *Service) Attach(ctx context.Context, id string, o AttachOptions) (Session, error) {
	keys, err := parseDetachKeys(o.DetachKeys, s.o.DetachKeys)
	if err != nil {
		return nil, err
	}
	c, err := s.index.get(id)
	if err != nil {
		return nil, err
	}
	v := c.look()
	if o.Stream && !v.st.Phase.active() {
		// Not before the last run's end has been cleared up, or its streams would
		// be had: they are at their end.
		var done func()
		if c, done, err = s.claim(ctx, c.id); err != nil {
			return nil, err
		}
		done()
		v = c.look()
	}
	switch v.st.Phase {
	case Paused:
		return nil, errs.Newf(errs.Conflict, "container %s is paused, unpause the container before attach", id)
	case Restarting:
		return nil, errs.Newf(errs.Conflict, "container %s is restarting, wait until the container is running", id)
	}
	rec := &v.rec
	out := &session{tty: rec.Config.Tty}
	out.onDetach = func() { s.event(rec, apievents.ActionDetach, nil) }
	if out.tty { // docker looks for the keys only in what is typed at a terminal
		out.keys.keys = keys
	}
	if o.Stream {
		want := runtime.Attach{Stdin: o.Stdin && rec.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr}
		// Opened before the log is read: rather a line twice than one lost.
		if out.stream, err = s.o.Runtime.Attach(ctx, c.id, "", want, rec.runtimeIO(), rec.Log); err != nil {
			return nil, err
		}
	}
	if o.Logs {
		if err := s.replay(ctx, out, rec, o); err != nil {
			_ = out.Close()
			return nil, err
		}
	}
	s.event(rec, apievents.ActionAttach, nil)
	return out, nil
}

// replay has the session begin with what the container has printed.
func (s *Service) replay(ctx context.Context, out *session, rec *Record, o AttachOptions) error {
	if unreadable(rec.Log) {
		return errNoLogs()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r, err := s.o.Logs.Open(ctx, rec.Log, logs.ReadOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1, TTY: out.tty})
	if err != nil {
		cancel(nil)
		return err
	}
	pr, pw := io.Pipe()
	out.replay = pr
	out.onClose = func() { cancel(nil); _ = pr.Close() }
	go func() {
		_, err := r.WriteTo(pw)
		_ = r.Close()
		cancel(nil)
		_ = pw.CloseWithError(err) // nil is io.EOF
	}()
	return nil
}

// Resize sets the size of a container's terminal.
func (s *Service) Resize(ctx context.Context, id string, height, width uint) error {
	c, err := s.index.get(id)
	if err != nil {
		return err
	}
	v := c.look()
	if !v.st.Phase.live() {
		return errNotRunning(c.id)
	}
	if err := s.o.Runtime.Resize(ctx, c.id, "", height, width); err != nil {
		return err
	}
	s.event(&v.rec, apievents.ActionResize, map[string]string{
		"height": strconv.FormatUint(uint64(height), 10), "width": strconv.FormatUint(uint64(width), 10),
	})
	return nil
}
