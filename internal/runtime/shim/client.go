//go:build linux

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Client speaks to the shim. Each call has a connection to itself while it
// lasts; idle ones are kept. It is safe for concurrent use.
type Client struct {
	o    Options
	sent sentProfiles

	mu       sync.Mutex // guards all below
	idle     []*net.UnixConn
	closed   chan struct{}         // closed by Close: nothing is started for this client any more
	inflight map[key]chan struct{} // started, not yet told to the caller: no exit before that
}

// key names a process.
type key struct{ id, execID string }

func (k key) String() string {
	if k.execID == "" {
		return k.id
	}
	return k.id + "/" + k.execID
}

var _ runtime.Runtime = (*Client)(nil)

const maxIdle = 4

// Close closes the idle connections and ends the channels of Events. The shim
// and its containers go on.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isClosed() {
		close(c.closed)
	}
	for _, conn := range c.idle {
		_ = conn.Close()
	}
	c.idle = nil
	return nil
}

func (c *Client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// connect dials the shim, which is started if it has gone.
func (c *Client) connect(ctx context.Context) (*net.UnixConn, error) {
	if c.isClosed() {
		return nil, errs.New(errs.Unavailable, "shim: this client is closed")
	}
	return c.o.connect(ctx)
}

func (c *Client) get(ctx context.Context) (conn *net.UnixConn, kept bool, err error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		conn = c.idle[n-1]
		c.idle = c.idle[:n-1]
	}
	c.mu.Unlock()
	if conn != nil {
		return conn, true, nil
	}
	conn, err = c.connect(ctx)
	return conn, false, err
}

func (c *Client) put(conn *net.UnixConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed() || len(c.idle) >= maxIdle {
		_ = conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

// maxAttempts is how many shims may be killed over one request.
const maxAttempts = 10

// repeatable tells whether a request may be made once more of the next shim,
// when nobody knows whether the last one has done it.
func (r *request) repeatable() bool {
	switch r.Op {
	case "hello", "attach", "list", "pids", "resize", "pause", "resume", "update", "delete":
		return true
	case "kill":
		return unix.Signal(r.Signal) == unix.SIGKILL
	}
	return false
}

// ask sends a request on a connection and returns it with the answer. What the
// shim has certainly not seen, or may see twice, is sent again on a new
// connection when one breaks.
func (c *Client) ask(ctx context.Context, req *request, fds []int) (*net.UnixConn, *response, error) {
	for attempt := 1; ; attempt++ {
		conn, kept, err := c.get(ctx)
		if err != nil {
			return nil, nil, err
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		err = send(conn, req, fds...)
		if err != nil && kept && (errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)) && ctx.Err() == nil {
			stop()
			_ = conn.Close()
			continue
		}
		var resp response
		if err == nil {
			var files []*os.File
			files, err = receive(conn, &resp)
			closeAll(files)
		}
		if !stop() {
			err = ctx.Err()
		}
		if err != nil {
			_ = conn.Close()
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			if errs.Is(err, errs.Invalid) {
				return nil, nil, err
			}
			if req.repeatable() && attempt < maxAttempts {
				continue
			}
			return nil, nil, errs.With(errs.Unavailable, fmt.Errorf("shim: %s: %w", req.Op, lostError{err}))
		}
		if err := resp.err(); err != nil {
			c.put(conn)
			return nil, nil, err
		}
		return conn, &resp, nil
	}
}

// lostError is a connection that broke: nobody knows whether the shim has done
// what it was asked.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

func (c *Client) call(ctx context.Context, req *request, fds ...int) (*response, error) {
	conn, resp, err := c.ask(ctx, req, fds)
	if err != nil {
		return nil, err
	}
	c.put(conn)
	return resp, nil
}

// Hello returns the shim's process id.
func (c *Client) Hello(ctx context.Context) (pid int, err error) {
	r, err := c.call(ctx, &request{Op: "hello"})
	if err != nil {
		return 0, err
	}
	return r.PID, speaks(r)
}

// Start implements runtime.Runtime.
func (c *Client) Start(ctx context.Context, l *runtime.Launch) (runtime.Started, error) {
	req := &request{Op: "start", ID: l.ID, Launch: l, NetNS: l.NetNS != nil}
	var fds []int
	if l.NetNS != nil {
		fds = append(fds, int(l.NetNS.Fd()))
	}
	fds = req.pass(l.IO, l.Stdio, fds)
	if l.Spec == nil || l.Spec.Linux == nil || l.External != nil { // another runtime is given all
		return c.begin(ctx, key{l.ID, ""}, req, fds)
	}
	// Copies, as deep as what is changed.
	launch, spec, linux := *l, *l.Spec, *l.Spec.Linux
	launch.Spec, spec.Linux, req.Launch = &spec, &linux, &launch
	var started runtime.Started
	err := c.named(ctx, linux.Seccomp, func(p *specs.LinuxSeccomp) { linux.Seccomp = p }, func(ctx context.Context) (err error) {
		started, err = c.begin(ctx, key{l.ID, ""}, req, fds)
		return err
	})
	return started, err
}

// Exec implements runtime.Runtime.
func (c *Client) Exec(ctx context.Context, e *runtime.Exec) (runtime.Started, error) {
	exec := *e
	req := &request{Op: "exec", ID: e.ContainerID, Exec: &exec}
	fds := req.pass(e.IO, e.Stdio, nil)
	var started runtime.Started
	err := c.named(ctx, e.Seccomp, func(p *specs.LinuxSeccomp) { exec.Seccomp = p }, func(ctx context.Context) (err error) {
		started, err = c.begin(ctx, key{e.ContainerID, e.ExecID}, req, fds)
		return err
	})
	return started, err
}

func (r *request) pass(io runtime.IO, stdio [3]*os.File, fds []int) []int {
	if !io.Passed {
		return fds
	}
	for i, f := range stdio {
		if f != nil {
			r.Stdio[i] = true
			fds = append(fds, int(f.Fd()))
		}
	}
	return fds
}

// begin starts a process; until it returns, Events holds back that one's exit.
func (c *Client) begin(ctx context.Context, k key, req *request, fds []int) (runtime.Started, error) {
	done := make(chan struct{})
	c.mu.Lock()
	if c.inflight[k] == nil {
		c.inflight[k] = done
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		if c.inflight[k] == done {
			delete(c.inflight, k)
		}
		c.mu.Unlock()
		close(done)
	}()
	since := time.Now()
	for attempt := 1; ; attempt++ {
		r, err := c.call(ctx, req, fds...)
		if err == nil {
			return r.Started, nil
		}
		var lost lostError
		if req.Op != "start" || !errors.As(err, &lost) || ctx.Err() != nil {
			return runtime.Started{}, err
		}
		// The next shim knows whether the container had started, and has taken apart
		// what had not.
		list, listErr := c.List(ctx)
		if listErr != nil {
			return runtime.Started{}, err
		}
		for _, st := range list {
			if st.ID == k.id && !st.StartedAt.Before(since) {
				return runtime.Started{PID: st.PID, StartTicks: st.StartTicks, At: st.StartedAt}, nil
			}
		}
		if !again(req.Launch) || attempt == maxAttempts {
			return runtime.Started{}, err
		}
	}
}

// again tells whether a start that was cut off half-way can simply be made once
// more: not where another runtime may have begun something, and not on a
// volatile layer, which can be mounted once only.
func again(l *runtime.Launch) bool {
	return l.External == nil && l.Restore == nil && (l.Rootfs == nil || !l.Rootfs.Volatile)
}

// Kill implements runtime.Runtime.
func (c *Client) Kill(ctx context.Context, id, execID string, signal int, all bool) error {
	_, err := c.call(ctx, &request{Op: "kill", ID: id, ExecID: execID, Signal: signal, All: all})
	return err
}

// Resize implements runtime.Runtime.
func (c *Client) Resize(ctx context.Context, id, execID string, height, width uint) error {
	_, err := c.call(ctx, &request{Op: "resize", ID: id, ExecID: execID, Height: height, Width: width})
	return err
}

// Pause implements runtime.Runtime.
func (c *Client) Pause(ctx context.Context, id string) error {
	_, err := c.call(ctx, &request{Op: "pause", ID: id})
	return err
}

// Resume implements runtime.Runtime.
func (c *Client) Resume(ctx context.Context, id string) error {
	_, err := c.call(ctx, &request{Op: "resume", ID: id})
	return err
}

// Update implements runtime.Runtime.
func (c *Client) Update(ctx context.Context, id string, r *specs.LinuxResources) error {
	_, err := c.call(ctx, &request{Op: "update", ID: id, Resources: r})
	return err
}

// Checkpoint implements runtime.Runtime.
func (c *Client) Checkpoint(ctx context.Context, id string, to runtime.Checkpoint) error {
	_, err := c.call(ctx, &request{Op: "checkpoint", ID: id, Checkpoint: &to})
	return err
}

// PIDs implements runtime.Runtime.
func (c *Client) PIDs(ctx context.Context, id string) ([]int, error) {
	r, err := c.call(ctx, &request{Op: "pids", ID: id})
	if err != nil {
		return nil, err
	}
	return r.PIDs, nil
}

// List implements runtime.Runtime.
func (c *Client) List(ctx context.Context) ([]runtime.State, error) {
	r, err := c.call(ctx, &request{Op: "list"})
	if err != nil {
		return nil, err
	}
	return r.States, nil
}

// Delete implements runtime.Runtime.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.call(ctx, &request{Op: "delete", ID: id})
	return err
}

// Attach implements runtime.Runtime. The stream outlives ctx.
func (c *Client) Attach(ctx context.Context, id, execID string, want runtime.Attach, io runtime.IO, log runtime.Log) (runtime.Stream, error) {
	conn, _, err := c.ask(ctx, &request{Op: "attach", ID: id, ExecID: execID, Want: want, IO: io, Log: log}, nil)
	if err != nil {
		return nil, err
	}
	return stream{conn, c}, nil
}

type stream struct {
	*net.UnixConn
	of *Client
}

// Close also replaces the connection that the stream has taken from the idle
// ones: the next process is attached to and started without dialing.
func (s stream) Close() error {
	err := s.UnixConn.Close()
	if err == nil { // not closed before
		go s.of.spare()
	}
	return err
}

// spares is how many connections a start with a client takes: one becomes the
// stream, one carries the request.
const spares = 2

// spare sees to it that so many are idle, if there is a shim to speak to.
func (c *Client) spare() {
	c.mu.Lock()
	enough := c.isClosed() || len(c.idle) >= spares
	c.mu.Unlock()
	if enough {
		return
	}
	// Only dialed: this is no reason to start a shim.
	conn, err := c.o.dial()
	if err != nil {
		return
	}
	c.put(conn)
}

// Read ends with io.EOF also where the shim closed while input was under way.
func (s stream) Read(p []byte) (int, error) {
	n, err := s.UnixConn.Read(p)
	if errors.Is(err, unix.ECONNRESET) {
		err = io.EOF
	}
	return n, err
}
