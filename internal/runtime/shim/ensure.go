//go:build linux

package shim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// Options say where the shim lives and what program it is.
type Options struct {
	RunDir string // made with mode 0700 if missing
	Binary []byte // the skiff-shim program, or
	Path   string // where it is
	Cgroup string // control group for the shim itself; "" leaves it in the caller's
	Log    *slog.Logger
}

const startTimeout = 10 * time.Second

// Ensure returns a client of the shim of the run directory, which it starts if
// there is none. The client does the same again whenever the shim has gone.
func Ensure(ctx context.Context, o Options) (*Client, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if !filepath.IsAbs(o.RunDir) {
		return nil, errs.Newf(errs.Invalid, "shim: run directory %q is not absolute", o.RunDir)
	}
	if err := privateDir(o.RunDir); err != nil {
		return nil, err
	}
	c := &Client{o: o, closed: make(chan struct{}), inflight: make(map[key]chan struct{})}
	if err := c.sameProgram(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// sameProgram has a running shim become this client's program, if it is another
// one. One that cannot is good enough as long as it speaks the same protocol.
func (c *Client) sameProgram(ctx context.Context) error {
	r, err := c.call(ctx, &request{Op: "hello"})
	if err != nil {
		return err
	}
	program, err := c.o.program()
	if err != nil {
		return speaks(r) // there is nothing to become
	}
	if sum := sha256.Sum256(program); r.Build == hex.EncodeToString(sum[:]) {
		return speaks(r)
	}
	was := r.PID
	sealed, err := Seal(program)
	if err != nil {
		return err
	}
	defer func() { _ = sealed.Close() }()
	r, err = c.call(ctx, &request{Op: "upgrade", Program: true}, int(sealed.Fd()))
	if err == nil {
		c.o.Log.InfoContext(ctx, "the shim has become another program", "pid", r.PID)
		return speaks(r)
	}
	c.o.Log.WarnContext(ctx, "the shim stays the program it was", "pid", was, "err", err)
	_, err = c.Hello(ctx)
	return err
}

// speaks checks the protocol of who has answered hello.
func speaks(r *response) error {
	if r.Version != version {
		return errs.Newf(errs.Unavailable, "the running shim (process %d) speaks version %d, this program %d", r.PID, r.Version, version)
	}
	return nil
}

// program is the shim's.
func (o *Options) program() ([]byte, error) {
	if len(o.Binary) > 0 {
		return o.Binary, nil
	}
	if o.Path == "" {
		return nil, errs.New(errs.Unavailable, "shim: there is none, and no program to start one")
	}
	program, err := os.ReadFile(o.Path)
	if err != nil {
		return nil, fmt.Errorf("shim: %w", err)
	}
	return program, nil
}

// privateDir makes sure that nobody else can reach the socket.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || !ok || int(sys.Uid) != os.Getuid() {
		return errs.Newf(errs.Denied, "shim: %s is not a directory of our own", dir)
	}
	if st.Mode().Perm() != 0o700 {
		return os.Chmod(dir, 0o700)
	}
	return nil
}

func (o *Options) dial() (*net.UnixConn, error) {
	path, done, err := socketPath(o.RunDir, socketName)
	if err != nil {
		return nil, err
	}
	defer done()
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
}

// connect dials the shim and starts one if nobody answers.
func (o *Options) connect(ctx context.Context) (*net.UnixConn, error) {
	conn, err := o.dial()
	deadline := time.Now().Add(startTimeout)
	for wait := time.Millisecond; err != nil; wait = min(2*wait, 100*time.Millisecond) {
		if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
			return nil, errs.With(errs.Unavailable, fmt.Errorf("connect to the shim: %w", err))
		}
		if time.Now().After(deadline) {
			return nil, errs.Newf(errs.Unavailable, "the shim does not answer: see %s", filepath.Join(o.RunDir, logName))
		}
		// More than one starter does no harm: one shim gets the lock, and the
		// others end. They all find the same one then.
		if err := o.spawn(ctx); err != nil {
			return nil, err
		}
		if conn, err = o.dial(); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
	return conn, nil
}

// spawn runs a shim, detached, and returns once it listens or has ended.
func (o *Options) spawn(ctx context.Context) error {
	program, err := o.program()
	if err != nil {
		return err
	}
	sealed, err := Seal(program)
	if err != nil {
		return err
	}
	defer func() { _ = sealed.Close() }()
	log, err := os.OpenFile(filepath.Join(o.RunDir, logName), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", sealed.Fd()), []string{"skiff-shim", "--run-dir", o.RunDir, "--ready-fd"}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOGC=50"}, Files: []*os.File{null, log, log, w},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("start the shim: %w", err)
	}
	go func() { _, _ = p.Wait() }() // while we live; afterwards it is init's
	if o.Cgroup != "" {
		if err := o.place(p.Pid); err != nil {
			o.Log.WarnContext(ctx, "the shim stays in our control group", "err", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer stop()
	_ = r.SetReadDeadline(time.Now().Add(startTimeout))
	text, err := io.ReadAll(io.LimitReader(r, 4096))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return errs.With(errs.Unavailable, fmt.Errorf("start the shim: %w", err))
	case len(text) > 0:
		return errs.Newf(errs.Unavailable, "start the shim: %s", text)
	}
	o.Log.InfoContext(ctx, "started the shim", "pid", p.Pid, "dir", o.RunDir)
	return nil
}

// place moves the shim out of the daemon's control group, with which it could
// be ended.
func (o *Options) place(pid int) error {
	sys, err := cgroup.Detect()
	if err != nil {
		return err
	}
	g, err := sys.Open(o.Cgroup)
	if err != nil {
		return err
	}
	if err := g.Create(); err != nil {
		return err
	}
	return g.Add(pid)
}
