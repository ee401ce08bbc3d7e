//go:build linux

// Package shim is the parent of all containers: one small process that starts
// them with the launcher, owns their streams, writes their logs and remembers
// how they ended, while the daemon comes and goes.
//
// [Main] is the process, [Ensure] starts it or finds it, [Client] speaks to it.
// All it must not forget is below its run directory, so that the next shim
// adopts the containers of one that was killed:
//
//	shim.sock      where clients connect (the directory is 0700, peers are checked)
//	shim.lock      held by whoever is the shim
//	keep.sock      of the keeper
//	parked/N     link to the control group of a child that waits for a container
//	c/ID/p-EXEC    record of a process: pid, start time, streams; later how it ended
//	c/ID/p-EXEC~   the same of one that is not the command yet, or not settled yet
//	c/ID/N-EXEC    fifo of stream N
//	c/ID/jN        journal of stream N: what is between its fifo and the log
//	c/ID/root      where the container's root is mounted before it becomes "/"
package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/runtime/oci"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// NewLog opens the log that a container's output goes to; nil with nil error
// if none is kept.
type NewLog func(runtime.Log) (LogWriter, error)

// server is the shim.
type server struct {
	dir    string // run directory
	host   *launch.Host
	newLog NewLog
	log    *slog.Logger
	pool   bufferPool
	vault  vault
	lot    lot
	found  map[string]*os.File // in the keeper, while containers are adopted
	lock   *os.File            // held on the run directory
	kept   *handover           // of the program this process was before, while it is taken over
	execve func(path string, argv, env []string) error

	runtimes *oci.Driver // others than the built-in one
	orphans  orphanage

	mu         sync.Mutex // guards all below and the fields of containers and processes
	containers map[string]*container
	waiting    map[string]*hub // attached to before start
	watchers   map[*runtime.ExitQueue]struct{}
	links      map[*link]struct{}
	listener   *net.UnixListener
	turn       turn // while this program gives way to another one

	calm *sync.Cond // on mu: something of links or turn has changed

	buildOnce sync.Once
	build     string // digest of this program

	profilesMu sync.Mutex // guards profiles
	profiles   map[specs.LinuxSeccompAction]*seccomp.Program
}

// container is what the shim keeps of one.
type container struct {
	id    string
	dir   string
	group *cgroup.Group
	own   bool // has a process namespace of its own: all ends with its first process
	ext   *external

	// verbs keeps apart what must not overlap: a clone's thread visits the group,
	// so nobody may freeze it then.
	verbs sync.Mutex

	begun   chan struct{} // closed when its start is over; nil if another shim's
	main    *process      // nil while it starts
	execs   map[string]*process
	ended   []*process    // execs, oldest first
	mounts  *os.File      // its mount namespace: unmounting waits until this is closed
	cleared chan struct{} // closed when that is done
}

// process is one that the shim started, or adopted.
type process struct {
	rec   record
	hub   *hub
	pidfd *os.File
	child bool          // ours to reap
	done  chan struct{} // closed when exit is recorded

	settling bool // its end is being recorded; guarded by server.mu
}

func newServer(dir string, newLog NewLog, log *slog.Logger) (*server, error) {
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	groups.Hold, groups.Keep = launch.Hold, launch.Keep
	s := &server{
		dir: dir, newLog: newLog, log: log,
		host:       &launch.Host{Cgroups: groups, Exe: "/proc/self/exe"},
		containers: make(map[string]*container), waiting: make(map[string]*hub), watchers: make(map[*runtime.ExitQueue]struct{}),
		links: make(map[*link]struct{}), execve: unix.Exec,
		profiles: make(map[specs.LinuxSeccompAction]*seccomp.Program),
	}
	s.runtimes = &oci.Driver{Exe: s.host.Exe, Root: filepath.Join(dir, "oci"), Init: s.initFile, Hold: s.orphans.hold}
	s.calm = sync.NewCond(&s.mu)
	s.lot.s = s
	s.vault.s, s.vault.files = s, make(map[string]*os.File)
	return s, nil
}

// serve answers clients until the listener is closed.
func (s *server) serve(l *net.UnixListener) error {
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
	for {
		c, err := l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.awaitReopening()
		case err != nil:
			return err
		default:
			go s.connection(s.newLink(c))
		}
	}
}

// allowed tells whether the peer may command the shim: root and its own user.
func allowed(c *net.UnixConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := rc.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Getuid() {
		return errs.Newf(errs.Denied, "user %d may not command the shim", cred.Uid)
	}
	return nil
}

// A link is one client's connection.
type link struct {
	conn *net.UnixConn

	state  linkState // guarded by server.mu, as is client
	client *attached // of a stream
}

type linkState int

const (
	asking    linkState = iota // a request may be under way
	streaming                  // it carries a process's streams
	telling                    // it carries exits
	parked                     // nobody reads it
)

func (s *server) newLink(c *net.UnixConn) *link {
	l := &link{conn: c}
	s.mu.Lock()
	s.links[l] = struct{}{}
	s.mu.Unlock()
	return l
}

// become changes what a link is.
func (s *server) become(l *link, state linkState, c *attached) {
	s.mu.Lock()
	if l.state == asking && (state == streaming || state == telling) {
		// An upgrade that has just begun may have set one, to hear of no more requests.
		_ = l.conn.SetReadDeadline(never)
	}
	l.state, l.client = state, c
	s.calm.Broadcast()
	s.mu.Unlock()
}

// connection serves a link until it ends or is parked.
func (s *server) connection(l *link) {
	defer func() { // the containers of all must not end with one client's request
		if r := recover(); r != nil {
			s.log.Error("a connection failed", "panic", r, "stack", string(debug.Stack()))
			s.hangUp(l)
		}
	}()
	if err := allowed(l.conn); err != nil {
		s.log.Warn("refused a client", "err", err)
		s.hangUp(l)
		return
	}
	if !s.converse(l) {
		s.hangUp(l)
	}
}

func (s *server) hangUp(l *link) {
	_ = l.conn.Close()
	s.mu.Lock()
	delete(s.links, l)
	s.calm.Broadcast()
	s.mu.Unlock()
}

// converse answers requests; true if the link is parked, to be gone on with.
func (s *server) converse(l *link) (kept bool) {
	for {
		if s.park(l) {
			return true
		}
		var req request
		files, err := receive(l.conn, &req)
		if errors.Is(err, errNothingYet) {
			continue
		}
		if err == nil {
			err = req.adopt(files)
		}
		if err != nil {
			closeAll(files)
			if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
				_ = send(l.conn, failure(errs.With(errs.Invalid, err)))
			}
			return false
		}
		switch req.Op {
		case "attach":
			closeAll(files)
			return s.attach(l, &req)
		case "events":
			closeAll(files)
			s.become(l, telling, nil)
			s.events(l.conn)
			return false
		}
		again := s.answer(l, &req)
		closeAll(files)
		if !again {
			return false
		}
	}
}

// answer serves one request; false if the connection is broken.
func (s *server) answer(l *link, req *request) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var resp *response
	var err error
	switch req.Op {
	case "upgrade":
		err = s.upgrade(ctx, l, req.program) // and if all is well, never returns
	case "start", "exec":
		stop := cancelOnHangup(l.conn, cancel)
		resp, err = s.handled(ctx, req)
		stop()
	default:
		resp, err = s.handled(ctx, req)
	}
	if err != nil {
		resp = failure(err)
	}
	if send(l.conn, resp) == nil {
		return true
	}
	if err == nil {
		s.takeBack(req)
	}
	return false
}

// takeBack ends what was started for a client that has left meanwhile, where it
// has that one's own streams: nobody else will ask for it.
func (s *server) takeBack(req *request) {
	var err error
	switch {
	case req.Op == "start" && req.Launch.IO.Passed:
		var c *container
		if c, err = s.container(req.Launch.ID); err != nil {
			break // or it has been told to forget it
		}
		if err = s.kill(c, "", unix.SIGKILL, true); err == nil {
			<-c.main.done
			err = s.delete(c)
		}
	case req.Op == "exec" && req.Exec.IO.Passed:
		var c *container
		if c, err = s.container(req.Exec.ContainerID); err == nil {
			err = s.kill(c, req.Exec.ExecID, unix.SIGKILL, false)
		}
	}
	if err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict) {
		s.log.Error("cannot end what nobody waits for any more", "id", req.ID, "err", err)
	}
}

// awaitStart waits until a container that is being started has started, or not.
func (s *server) awaitStart(id string) {
	s.mu.Lock()
	c := s.containers[id]
	s.mu.Unlock()
	if c != nil && c.begun != nil {
		<-c.begun
	}
}

func (s *server) hello() *response {
	s.buildOnce.Do(func() { s.build = ownBuild() })
	return &response{Version: version, PID: os.Getpid(), Build: s.build}
}

// handled is handle that answers a panic as a failure of the one request.
func (s *server) handled(ctx context.Context, req *request) (resp *response, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("a request failed", "op", req.Op, "panic", r, "stack", string(debug.Stack()))
			resp, err = nil, errs.Newf(errs.Internal, "shim: %s: %v", req.Op, r)
		}
	}()
	return s.handle(ctx, req)
}

func (s *server) handle(ctx context.Context, req *request) (*response, error) {
	switch req.Op {
	case "hello":
		return s.hello(), nil
	case "start":
		started, err := s.start(ctx, req.Launch)
		return &response{Started: started}, err
	case "exec":
		started, err := s.exec(ctx, req.Exec)
		return &response{Started: started}, err
	case "list":
		return &response{States: s.list()}, nil
	}
	if req.Op == "delete" {
		s.awaitStart(req.ID)
	}
	c, err := s.container(req.ID)
	if err != nil {
		if req.Op == "delete" && errs.Is(err, errs.NotFound) {
			s.dropWaiting(req.ID)
			return &response{}, nil
		}
		return nil, err
	}
	switch req.Op {
	case "kill":
		return &response{}, s.kill(c, req.ExecID, unix.Signal(req.Signal), req.All)
	case "resize":
		return &response{}, s.resize(c, req.ExecID, req.Height, req.Width)
	case "pause", "resume":
		return &response{}, s.freeze(c, req.Op == "pause")
	case "checkpoint":
		return &response{}, s.checkpoint(ctx, c, req.Checkpoint)
	case "update":
		return &response{}, s.update(c, req.Resources)
	case "pids":
		pids, err := s.pids(c)
		return &response{PIDs: pids}, err
	case "delete":
		return &response{}, s.delete(c)
	}
	return nil, errs.Newf(errs.Unsupported, "the shim does not know %q", req.Op)
}

func (s *server) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil || c.main == nil {
		return nil, errs.Newf(errs.NotFound, "the shim has no container %s", id)
	}
	return c, nil
}

// process finds one of a container.
func (s *server) process(c *container, execID string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if execID == "" {
		return c.main, nil
	}
	if p := c.execs[execID]; p != nil {
		return p, nil
	}
	return nil, errs.Newf(errs.NotFound, "container %s has no process %s", c.id, execID)
}

// cancelOnHangup cancels when the client goes away before it is answered.
func cancelOnHangup(c *net.UnixConn, cancel func()) (stop func()) {
	rc, err := c.SyscallConn()
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = rc.Read(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(p, 0)
			if err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
				cancel()
				return true
			}
			return n > 0
		})
	}()
	return func() {
		_ = c.SetReadDeadline(unixPast)
		<-done
		_ = c.SetReadDeadline(never)
	}
}

func validID(id string) error {
	ok := len(id) > 0 && len(id) <= 128 && id[0] != '.' && id[0] != '-'
	for _, b := range []byte(id) {
		ok = ok && (b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' || b == '.' || b == '-')
	}
	if !ok {
		return errs.Newf(errs.Invalid, "%q is no container or process id", id)
	}
	return nil
}

func (s *server) containerDir(id string) string { return filepath.Join(s.dir, "c", id) }

// group opens a container's control group.
func (s *server) group(spec *specs.Spec) (*cgroup.Group, error) {
	if spec == nil || spec.Linux == nil || spec.Linux.CgroupsPath == "" {
		return nil, errs.New(errs.Invalid, "start: the specification names no control group")
	}
	g, err := s.host.Cgroups.Open(spec.Linux.CgroupsPath)
	if err != nil {
		return nil, errs.With(errs.Invalid, fmt.Errorf("start: %w", err))
	}
	return g, nil
}
