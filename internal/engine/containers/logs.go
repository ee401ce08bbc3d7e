package containers

import (
	"context"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func errNoLogs() error {
	return errs.New(errs.Unsupported, "configured logging driver does not support reading")
}

// unreadable logs are not kept, or only to be sent on.
func unreadable(l runtime.Log) bool { return l.Driver == logs.DriverNone || l.Hidden }

// Logs opens what a container has printed; following it ends with the container.
func (s *Service) Logs(ctx context.Context, id string, o LogsOptions) (*Logs, error) {
	if !o.Stdout && !o.Stderr {
		return nil, errs.New(errs.Invalid, "You must choose at least one stream")
	}
	c, err := s.index.get(id)
	if err != nil {
		return nil, err
	}
	v := c.look()
	switch {
	case v.st.Phase == Removing || v.st.Phase == Dead:
		return nil, errs.New(errs.Conflict, "can not get logs from container which is dead or marked for removal")
	case unreadable(v.rec.Log):
		return nil, errNoLogs()
	}
	ro := logs.ReadOptions{
		Stdout: o.Stdout, Stderr: o.Stderr, Since: o.Since, Until: o.Until, Tail: o.Tail,
		Timestamps: o.Timestamps, Details: o.Details, Lines: o.Lines, JSON: o.JSON, RS: o.RS, TTY: v.rec.Config.Tty,
	}
	cancel := context.CancelCauseFunc(func(error) {})
	if o.Follow && v.st.Phase.active() {
		ctx, cancel = context.WithCancelCause(ctx)
		done := make(chan struct{})
		ended, err := s.Wait(ctx, c.id, container.WaitConditionNotRunning)
		if err != nil {
			cancel(nil)
			return nil, err
		}
		go func() { // ends with the container or with the reader: ctx
			<-ended
			close(done)
		}()
		ro.Follow, ro.Done = true, done
	}
	r, err := s.o.Logs.Open(ctx, v.rec.Log, ro)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return &Logs{TTY: ro.TTY, WriterTo: r, Closer: closerFunc(func() error {
		cancel(nil)
		return r.Close()
	})}, nil
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }
