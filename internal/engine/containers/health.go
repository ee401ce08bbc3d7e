package containers

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// docker's defaults and limits.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
	healthLog           = 5    // results kept
	healthOutput        = 4096 // bytes of each
	healthStartLimit    = 30 * time.Second
)

// health is a container's health check; its container's mu guards it.
type health struct {
	result *container.Health // replaced, never changed
	cancel context.CancelCauseFunc
}

// stop ends the checks; the caller has mu.
func (h *health) stop() {
	if h.cancel != nil {
		h.cancel(nil)
		h.cancel = nil
	}
}

// healthCommand is what a check runs; nil for none.
func healthCommand(c *container.Config) []string {
	h := c.Healthcheck
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	switch h.Test[0] {
	case "CMD":
		return h.Test[1:]
	case "CMD-SHELL":
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(slices.Clone(shell), h.Test[1:]...)
	}
	return nil
}

// startHealth begins the checks of a container that has just started, or was
// found running; the caller has mu.
func (c *ctr) startHealth(s *Service, rec *Record) {
	if healthCommand(rec.Config) == nil {
		c.health = nil
		return
	}
	c.stopHealth()
	c.health = &health{result: &container.Health{Status: container.Starting, Log: []*container.HealthcheckResult{}}}
	c.resumeHealth(s)
}

// resumeHealth goes on with the checks after a pause; the caller has mu.
func (c *ctr) resumeHealth(s *Service) {
	h := c.health
	if h == nil || h.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	h.cancel = cancel
	rec, started := c.rec, c.st.StartedAt
	if !s.tasks.run(func() { s.checkHealth(ctx, c, h, &rec, started) }) {
		h.stop()
	}
}

// stopHealth ends the checks; the caller has mu. As docker does, a container
// that is no longer checked counts as unhealthy.
func (c *ctr) stopHealth() {
	if c.health == nil {
		return
	}
	c.health.stop()
	r := *c.health.result
	r.Status = container.Unhealthy
	c.health.result = &r
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// checkHealth runs checks until ctx ends.
func (s *Service) checkHealth(ctx context.Context, c *ctr, h *health, rec *Record, started time.Time) {
	cfg := rec.Config.Healthcheck
	for {
		c.mu.Lock()
		status := h.result.Status
		c.mu.Unlock()
		wait := orDefault(cfg.Interval, healthInterval)
		if status == container.Starting && s.now().Sub(started) < cfg.StartPeriod {
			wait = orDefault(cfg.StartInterval, healthStartInterval)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		result := s.probe(ctx, c, rec)
		c.mu.Lock()
		if ctx.Err() != nil {
			c.mu.Unlock()
			return
		}
		before := h.result.Status
		h.result = judge(h.result, result, cfg, started)
		after := h.result.Status
		c.mu.Unlock()
		if before != after {
			s.event(rec, apievents.Action(string(apievents.ActionHealthStatus)+": "+string(after)), nil)
		}
	}
}

// judge is a container's health after one more result.
func judge(now *container.Health, r *container.HealthcheckResult, cfg *container.HealthConfig, started time.Time) *container.Health {
	out := &container.Health{Status: now.Status, FailingStreak: now.FailingStreak}
	log := now.Log
	if len(log) >= healthLog {
		log = log[len(log)-healthLog+1:]
	}
	out.Log = append(slices.Clone(log), r)
	if r.ExitCode == 0 {
		out.Status, out.FailingStreak = container.Healthy, 0
		return out
	}
	if now.Status == container.Starting && r.Start.Sub(started) < cfg.StartPeriod {
		return out // still allowed to fail
	}
	out.FailingStreak++
	retries := cfg.Retries
	if retries <= 0 {
		retries = healthRetries
	}
	if out.FailingStreak >= retries {
		out.Status = container.Unhealthy
	}
	return out
}

// probe runs one check.
func (s *Service) probe(ctx context.Context, c *ctr, rec *Record) *container.HealthcheckResult {
	r := &container.HealthcheckResult{Start: s.now(), ExitCode: -1}
	code, out, err := s.runProbe(ctx, c, rec)
	r.End = s.now()
	r.Output = out
	if err != nil {
		r.Output = err.Error()
		return r
	}
	r.ExitCode = code
	return r
}

// runProbe runs the check's command as an exec, and reads what it prints.
func (s *Service) runProbe(ctx context.Context, c *ctr, rec *Record) (code int, output string, err error) {
	e := newExec(c, container.ExecCreateRequest{AttachStdout: true, AttachStderr: true, Cmd: healthCommand(rec.Config)}, nil)
	s.addExec(c, e)
	defer s.dropExec(e)
	s.execEvent(rec, apievents.ActionExecCreate, e)
	if _, err := s.beginExec(e); err != nil {
		return 0, "", err
	}
	stream, err := s.o.Runtime.Attach(ctx, c.id, e.id, runtime.Attach{Stdout: true, Stderr: true}, e.io(), runtime.Log{})
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = stream.Close() }()
	startCtx, cancel := context.WithTimeout(ctx, healthStartLimit)
	err = s.runExec(startCtx, rec, e, ExecStartOptions{})
	cancel()
	if err != nil {
		return 0, "", err
	}
	var buf limited
	read := make(chan struct{})
	go func() {
		defer close(read)
		_ = demux(&buf, stream)
	}()
	timeout := orDefault(rec.Config.Healthcheck.Timeout, healthTimeout)
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-read:
	case <-t.C:
		s.killProbe(c, e)
		_ = stream.Close()
		<-read
		if out := buf.String(); out != "" {
			return 0, "", fmt.Errorf("Health check exceeded timeout (%v): %s", timeout, out) //nolint:staticcheck // docker's words
		}
		return 0, "", fmt.Errorf("Health check exceeded timeout (%v)", timeout) //nolint:staticcheck // docker's words
	case <-ctx.Done():
		s.killProbe(c, e)
		_ = stream.Close()
		<-read
		return 0, "", context.Cause(ctx)
	}
	select {
	case <-e.done: // told of separately, at about the same time
	case <-t.C:
		s.killProbe(c, e)
		return 0, "", fmt.Errorf("Health check exceeded timeout (%v)", timeout) //nolint:staticcheck // docker's words
	case <-ctx.Done():
		return 0, "", context.Cause(ctx)
	}
	return *e.exitCode(), buf.String(), nil
}

func (e *execProc) exitCode() *int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.code
}

// dropExec forgets a check's exec.
func (s *Service) dropExec(e *execProc) {
	s.execs.mu.Lock()
	delete(s.execs.byID, e.id)
	s.execs.mu.Unlock()
	e.c.mu.Lock()
	delete(e.c.execs, e.id)
	e.c.mu.Unlock()
}

func (s *Service) killProbe(c *ctr, e *execProc) {
	ctx, cancel := context.WithTimeout(context.Background(), healthStartLimit)
	defer cancel()
	if err := s.o.Runtime.Kill(ctx, c.id, e.id, 9, false); err != nil {
		s.log.Debug("cannot kill a health check", "container", c.id, "err", err)
	}
}

// limited keeps the first bytes written to it. Used by one goroutine at a time.
type limited struct {
	buf bytes.Buffer
	cut bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), healthOutput-l.buf.Len())
	l.buf.Write(p[:n])
	l.cut = l.cut || n < len(p)
	return len(p), nil
}

func (l *limited) String() string {
	if l.cut {
		return l.buf.String() + "..."
	}
	return l.buf.String()
}

// demux copies the payload of docker's multiplexed frames.
func demux(w io.Writer, r io.Reader) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return err
		}
	}
}
