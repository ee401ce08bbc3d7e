//go:build linux

// Package oci runs containers through other OCI runtimes (runc, crun, runsc…)
// by their command lines, for the shim: create, start, exec, kill, pause, resume,
// update, delete.
//
// No invocation is of the runtime's program directly: the shim runs itself once
// more, as [HelperName], which prepares what the runtime must find and then
// becomes it. For create that is a bundle in a mount namespace of its own, with
// the container's root mounted in it by descriptors and the user looked up
// below that; so the host's mount table shows nothing, and nothing the image
// holds decides over a path of the host's. The shim keeps that namespace by a
// descriptor, and later invocations join it. When the container has ended and is
// deleted the descriptor is closed, and the mounts are gone.
//
// Processes that a runtime leaves behind become children of the shim, which must
// be a subreaper before the first invocation.
package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Driver runs the programs.
type Driver struct {
	Exe  string // this program: "/proc/self/exe" in the shim
	Root string // where runtimes keep what they know of their containers
	// Init returns a file that is bound into containers with --init, to be their
	// first process: a copy of this program.
	Init func() (string, error)
	// Hold keeps others from reaping this process's children until it is released.
	Hold func() (release func())
}

// Container is one that a runtime made.
type Container struct {
	ID      string
	Bundle  string
	Runtime runtime.External
	// Mounts is the namespace that its bundle is mounted in; nil if that was lost
	// with the shim that had it.
	Mounts *os.File
}

// Process is a process that a runtime left to the shim.
type Process struct {
	PID     int
	PidFD   int      // non-blocking
	Console *os.File // the master of its terminal, if it has one
}

// How long a runtime may take before it is given up.
const (
	startLimit = 2 * time.Minute
	verbLimit  = 30 * time.Second
)

// MountPoint is where in a bundle its root is mounted.
const MountPoint = "root"

// Create has the runtime make a container, in the bundle directory c.Bundle,
// that waits to be started. c.Mounts is set then.
func (d *Driver) Create(ctx context.Context, c *Container, l *runtime.Launch, streams [3]*os.File) (*Process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errTooLong)
	defer cancel()
	req := &request{Bundle: c.Bundle, Spec: l.Spec, Rootfs: l.Rootfs, User: l.User}
	if l.Init {
		file, err := d.Init()
		if err != nil {
			return nil, fmt.Errorf("prepare an init: %w", err)
		}
		req.Init = file
	}
	if l.NetNS != nil {
		// A name that leads there for as long as the container is being made.
		req.NetNS = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.NetNS.Fd())
	}
	call := &call{c: c, req: req, verb: []string{"create", "--bundle", c.Bundle}, streams: streams, io: &l.IO, fresh: true}
	p, err := d.spawn(ctx, call)
	if err != nil {
		return nil, startError("failed to create task for container: OCI runtime create failed: ", &c.Runtime, l.Spec.Process.Args, err)
	}
	return p, nil
}

// Start lets a created container's process become the command.
func (d *Driver) Start(ctx context.Context, c *Container) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errTooLong)
	defer cancel()
	if err := d.run(ctx, c, &request{}, "start"); err != nil {
		return startError("failed to start task for container: OCI runtime start failed: ", &c.Runtime, nil, err)
	}
	return nil
}

// Exec has the runtime start one more process.
func (d *Driver) Exec(ctx context.Context, c *Container, e *runtime.Exec, pid int, streams [3]*os.File) (*Process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errTooLong)
	defer cancel()
	req := &request{Bundle: c.Bundle, Process: e.Process, User: e.User, Root: filepath.Join(c.Bundle, MountPoint)}
	if c.Mounts == nil {
		req.Root = fmt.Sprintf("/proc/%d/root", pid)
	}
	req.ProcessFile = filepath.Join(c.Bundle, "process-"+e.ExecID)
	defer func() { _ = os.Remove(req.ProcessFile) }()
	call := &call{c: c, req: req, verb: []string{"exec", "--detach", "--process", req.ProcessFile}, streams: streams, io: &e.IO}
	p, err := d.spawn(ctx, call)
	if err != nil {
		return nil, startError("OCI runtime exec failed: ", &c.Runtime, e.Process.Args, err)
	}
	return p, nil
}

// Kill signals a container's first process.
func (d *Driver) Kill(ctx context.Context, c *Container, sig unix.Signal) error {
	return d.verb(ctx, c, "kill", "", strconv.Itoa(int(sig)))
}

// Pause freezes a container.
func (d *Driver) Pause(ctx context.Context, c *Container) error { return d.verb(ctx, c, "pause", "") }

// Resume thaws it.
func (d *Driver) Resume(ctx context.Context, c *Container) error { return d.verb(ctx, c, "resume", "") }

// Update changes a container's limits.
func (d *Driver) Update(ctx context.Context, c *Container, r *specs.LinuxResources) error {
	file, err := os.CreateTemp(c.Bundle, "resources-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	err = json.NewEncoder(file).Encode(r)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return d.verb(ctx, c, "update", "--resources="+file.Name())
}

// Delete has the runtime forget a container, whatever it still runs. One that it
// does not know is no error.
func (d *Driver) Delete(ctx context.Context, c *Container) error {
	if _, err := os.Lstat(filepath.Join(d.root(&c.Runtime), c.ID)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return d.verb(ctx, c, "delete", "--force")
}

func (d *Driver) root(r *runtime.External) string { return filepath.Join(d.Root, r.Name) }

func (d *Driver) verb(ctx context.Context, c *Container, verb, option string, args ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, verbLimit, errTooLong)
	defer cancel()
	words := []string{verb}
	if option != "" {
		words = append(words, option)
	}
	words = append(append(words, c.ID), args...)
	if err := d.command(ctx, &call{c: c, req: &request{Bundle: c.Bundle}, verb: words}); err != nil {
		return fmt.Errorf("runtime %s: %s: %w", c.Runtime.Name, verb, err)
	}
	return nil
}

func (d *Driver) run(ctx context.Context, c *Container, req *request, verb string) error {
	req.Bundle = c.Bundle
	return d.command(ctx, &call{c: c, req: req, verb: []string{verb, c.ID}})
}

var errTooLong = errors.New("it took too long")

// call is one invocation of a runtime.
type call struct {
	c       *Container
	req     *request
	verb    []string
	streams [3]*os.File // nil: none
	io      *runtime.IO // of a process that is left behind
	fresh   bool        // in a new mount namespace, kept as c.Mounts
	place   func(pid int) error
	more    []*os.File // further descriptors, from fdMounts on, of a fresh one
}

// spawn runs an invocation that leaves a process behind, and finds that.
func (d *Driver) spawn(ctx context.Context, k *call) (_ *Process, err error) {
	pidFile, err := os.CreateTemp(k.c.Bundle, "pid-")
	if err != nil {
		return nil, err
	}
	_ = pidFile.Close()
	defer func() { _ = os.Remove(pidFile.Name()) }()
	k.verb = append(k.verb, "--pid-file", pidFile.Name())
	var socket *consoleSocket
	if k.io.TTY {
		if socket, err = listenConsole(k.c.Bundle); err != nil {
			return nil, err
		}
		defer socket.close()
		k.verb = append(k.verb, "--console-socket", socket.name)
		k.streams = [3]*os.File{}
	}
	k.verb = append(k.verb, k.c.ID)
	if err := d.command(ctx, k); err != nil {
		return nil, err
	}
	found := &Process{PidFD: -1}
	defer func() {
		if err != nil {
			found.close()
		}
	}()
	if found.PID, found.PidFD, err = readPID(pidFile.Name()); err != nil {
		return nil, err
	}
	if socket != nil {
		if found.Console, err = socket.accept(ctx, k.io.Console); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (p *Process) close() {
	if p.PidFD >= 0 {
		_ = unix.PidfdSendSignal(p.PidFD, unix.SIGKILL, nil, 0)
		_ = unix.Close(p.PidFD)
	}
	if p.Console != nil {
		_ = p.Console.Close()
	}
}

func readPID(file string) (pid, fd int, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, -1, err
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(data))); err != nil || pid <= 1 {
		return 0, -1, fmt.Errorf("it wrote no process id but %q", data)
	}
	// Nobody else reaps it: alive or not, it is still the one.
	if fd, err = unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK); err != nil {
		return 0, -1, fmt.Errorf("process %d that it started: %w", pid, err)
	}
	return pid, fd, nil
}

// command runs an invocation to its end. What the runtime complained of is the
// error.
func (d *Driver) command(ctx context.Context, k *call) error {
	c := k.c
	root := d.root(&c.Runtime)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	log, err := os.CreateTemp(c.Bundle, "log-")
	if err != nil {
		return err
	}
	defer func() { _ = log.Close(); _ = os.Remove(log.Name()) }()
	argv := append([]string{c.Runtime.Path}, c.Runtime.Args...)
	k.req.Argv = append(append(argv, "--root", root, "--log", log.Name(), "--log-format", "json"), k.verb...)
	out, err := memory()
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	err = d.helper(ctx, k, out)
	var failed *exec.ExitError
	switch {
	case err == nil || !errors.As(err, &failed):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("it was given up: %w", context.Cause(ctx))
	}
	if text := complaint(log, out); text != "" {
		return &runtimeError{text}
	}
	return fmt.Errorf("it ended with %w and said nothing", failed)
}

// helper runs this program as the helper, which becomes the runtime.
func (d *Driver) helper(ctx context.Context, k *call, out *os.File) error {
	ask, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = ask.Close(); _ = tell.Close() }()
	hear, answer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = hear.Close(); _ = answer.Close() }()
	cmd := &exec.Cmd{
		Path: d.Exe, Args: []string{HelperName}, Dir: k.c.Bundle, Env: helperEnv(),
		ExtraFiles:  []*os.File{ask, answer},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if k.io != nil && !k.io.TTY {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = std(k.streams[0]), std(k.streams[1]), std(k.streams[2])
	} else {
		cmd.Stdout, cmd.Stderr = out, out
	}
	switch {
	case k.fresh:
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS
		cmd.ExtraFiles = append(cmd.ExtraFiles, k.more...)
	case k.c.Mounts != nil:
		k.req.Join = true
		cmd.ExtraFiles = append(cmd.ExtraFiles, k.c.Mounts)
	}
	defer d.Hold()()
	if err := cmd.Start(); err != nil {
		return err
	}
	_, _ = ask.Close(), answer.Close()
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
	defer stop()
	var nsErr error
	if k.fresh {
		k.c.Mounts, nsErr = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid))
	}
	if k.place != nil {
		nsErr = errors.Join(nsErr, k.place(cmd.Process.Pid))
	}
	if nsErr != nil { // it hears nothing, and ends
		_ = tell.Close()
		_ = cmd.Wait()
		return nsErr
	}
	sendErr := json.NewEncoder(tell).Encode(k.req)
	_ = tell.Close()
	var a reply
	hearErr := json.NewDecoder(hear).Decode(&a) // EOF once it has become the runtime
	err = cmd.Wait()
	switch {
	case hearErr == nil:
		return a.err()
	case err != nil:
		return err
	}
	return sendErr
}

// std makes a stream that is not there the null device.
func std(f *os.File) io.ReadWriter {
	if f == nil {
		return nil
	}
	return f
}

func helperEnv() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{"PATH=" + path}
}

func memory() (*os.File, error) {
	fd, err := unix.MemfdCreate("runtime-output", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	return os.NewFile(uintptr(fd), "output"), nil
}

// errNotInstalled tells of a runtime whose program is not there.
func errNotInstalled(path string, err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return errs.Newf(errs.Unavailable, "%s is not installed", path)
	}
	return errs.Newf(errs.Unavailable, "%s cannot be run: %w", path, err)
}
