//go:build linux

package shim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// The shim becomes another program without anybody noticing: the same process,
// so the same children; the same descriptors, so nothing that was printed or
// typed is lost. Everything is brought to a halt (requests are finished, not
// begun; exits are told, or not reaped yet; streams stand between two reads),
// written down (see handover), and executed. If that fails, all goes on.

// turn is the state of an upgrade. It is guarded by server.mu.
type turn struct {
	parking  bool // no request is begun
	idle     bool // the listener stands still
	holding  bool // no exit is begun
	settling int  // exits under way
	held     []heldExit
}

type heldExit struct {
	c *container
	p *process
}

const (
	quietLimit = 10 * time.Second // for what is under way
	probeLimit = 5 * time.Second
)

// upgrade makes this process the given program. It returns only if it cannot.
func (s *server) upgrade(ctx context.Context, l *link, program *os.File) error {
	if program == nil {
		return errs.New(errs.Invalid, "upgrade: no program")
	}
	path, err := sealedPath(program)
	if err != nil {
		return err
	}
	if err := probe(ctx, path); err != nil {
		return errs.With(errs.Invalid, fmt.Errorf("upgrade: %w", err))
	}
	if err := s.takeTurn(l); err != nil {
		return err
	}
	defer s.goOn()
	if err := s.standStill(l); err != nil {
		return errs.With(errs.Unavailable, fmt.Errorf("upgrade: %w", err))
	}
	s.lot.close()
	s.log.Info("the shim gives way to another program", "containers", len(s.containers))
	err = s.handOver(l, path)
	s.log.Error("the shim stays what it is", "err", err)
	return errs.With(errs.Internal, fmt.Errorf("upgrade: %w", err))
}

// sealedPath checks that nobody can change the program, and names it.
func sealedPath(program *os.File) (string, error) {
	rc, err := program.SyscallConn()
	if err != nil {
		return "", err
	}
	var path string
	var ferr error
	if err := rc.Control(func(fd uintptr) {
		path = "/proc/self/fd/" + itoa(int(fd))
		if have, err := unix.FcntlInt(fd, unix.F_GET_SEALS, 0); err != nil || have&seals != seals {
			ferr = errs.New(errs.Invalid, "upgrade: the program is not sealed")
		}
	}); err != nil {
		return "", err
	}
	return path, ferr
}

// probe runs the program to ask whether it understands what it would be given.
func probe(ctx context.Context, path string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = w.Close()
		return err
	}
	defer func() { _ = null.Close() }()
	p, err := os.StartProcess(path, []string{"skiff-shim", "--takes-over", strconv.Itoa(handoverFormat)}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, w, null}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("run the new program: %w", err)
	}
	_ = r.SetReadDeadline(time.Now().Add(probeLimit))
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(unixPast) })
	defer stop()
	text, rerr := io.ReadAll(io.LimitReader(r, 256))
	if rerr != nil {
		_ = p.Kill()
	}
	st, err := p.Wait()
	switch {
	case rerr != nil:
		return fmt.Errorf("the new program does not answer: %w", rerr)
	case err != nil:
		return err
	case !st.Success() || string(text) != takesOver(handoverFormat):
		return fmt.Errorf("the new program does not take over from this one (%s, %q)", st, strings.TrimSpace(string(text)))
	}
	return nil
}

func takesOver(format int) string { return "takes over " + strconv.Itoa(format) + "\n" }

// takeTurn takes the turn: from here on no request is begun.
func (s *server) takeTurn(l *link) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn.parking {
		return errs.New(errs.Conflict, "upgrade: another one is under way")
	}
	s.turn.parking = true
	if s.listener != nil {
		_ = s.listener.SetDeadline(unixPast)
	}
	for o := range s.links {
		if o != l && o.state == asking {
			_ = o.conn.SetReadDeadline(unixPast)
		}
	}
	return nil
}

// park reports whether a link is to wait now, between two requests.
func (s *server) park(l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.turn.parking {
		_ = l.conn.SetReadDeadline(never) // as an upgrade that failed may have left it
		return false
	}
	l.state = parked
	s.calm.Broadcast()
	return true
}

// awaitReopening is where the listener stands still.
func (s *server) awaitReopening() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.turn.parking {
		s.turn.idle = true
		s.calm.Broadcast()
		s.calm.Wait()
	}
	s.turn.idle = false
	_ = s.listener.SetDeadline(never)
}

// beginExit asks to reap a process and tell of its end.
func (s *server) beginExit(c *container, p *process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn.holding {
		s.turn.held = append(s.turn.held, heldExit{c, p})
		return false
	}
	s.turn.settling++
	p.settling = true
	return true
}

func (s *server) endExit(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.settling {
		p.settling = false
		s.turn.settling--
		s.calm.Broadcast()
	}
}

// standStill waits until nothing is under way, and stops the streams.
func (s *server) standStill(l *link) error {
	err := s.quiet("requests", func() bool {
		for o := range s.links {
			if o != l && o.state == asking {
				return false
			}
		}
		return s.turn.idle || s.listener == nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.turn.holding = true
	for _, p := range s.processes() {
		if p.settling {
			p.hub.hurry()
		}
		if p.hub.relay != nil && p.rec.Exit == nil {
			err = errs.Newf(errs.Conflict, "container %s has a terminal joined with passed descriptors", p.rec.ID)
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.quiet("exits", func() bool { return s.turn.settling == 0 }); err != nil {
		return err
	}
	s.mu.Lock()
	all := s.processes()
	var clients []*attached
	for o := range s.links {
		if o.state == streaming {
			clients = append(clients, o.client)
		}
	}
	s.mu.Unlock()
	for _, p := range all {
		p.hub.halt()
	}
	for _, c := range clients {
		c.halt()
	}
	return s.quiet("streams", func() bool {
		for o := range s.links {
			if o.state == streaming {
				return false
			}
		}
		return true
	})
}

// processes lists all; s.mu is held.
func (s *server) processes() []*process {
	var out []*process
	for _, c := range s.containers {
		if c.main != nil {
			out = append(out, c.main)
		}
		for _, p := range c.execs {
			out = append(out, p)
		}
	}
	return out
}

// quiet waits until ok, which is called with s.mu held.
func (s *server) quiet(what string, ok func() bool) error {
	late := false
	timer := time.AfterFunc(quietLimit, func() {
		s.mu.Lock()
		late = true
		s.calm.Broadcast()
		s.mu.Unlock()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !ok() {
		if late {
			return fmt.Errorf("%s are still under way after %v", what, quietLimit)
		}
		s.calm.Wait()
	}
	return nil
}

// goOn undoes standStill.
func (s *server) goOn() {
	s.mu.Lock()
	s.turn.parking, s.turn.holding = false, false
	held, all := s.turn.held, s.processes()
	s.turn.held = nil
	s.lot.open()
	var links []*link
	for l := range s.links {
		if l.state == parked {
			links = append(links, l)
		}
	}
	s.calm.Broadcast()
	s.mu.Unlock()
	for _, p := range all {
		if p.hub.isHalted() {
			p.hub.resume(&s.pool, s.reopenLog(&p.rec))
		}
	}
	for _, l := range links {
		_ = l.conn.SetDeadline(never)
		if l.client == nil {
			s.become(l, asking, nil)
			go s.connection(l)
			continue
		}
		l.client.unhalt()
		go func() {
			if !s.stream(l, l.client) {
				s.hangUp(l)
			}
		}()
	}
	for _, e := range held {
		go s.watch(e.c, e.p)
	}
}

// handOver writes everything down and executes the program.
func (s *server) handOver(l *link, path string) (err error) {
	h, err := s.inventory(l)
	if err != nil {
		return err
	}
	state, err := h.write()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(state) }()
	syscall.ForkLock.Lock() // no child may get them
	defer syscall.ForkLock.Unlock()
	pass := append(h.descriptors(), state)
	defer func() {
		for _, fd := range pass {
			unix.CloseOnExec(fd)
		}
	}()
	for _, fd := range pass {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	return s.execve(path, []string{"skiff-shim", "--run-dir", s.dir, "--handover", strconv.Itoa(state)}, os.Environ())
}

// ownBuild is the digest of the running program.
func ownBuild() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

var errNoHandover = errors.New("not a handover of this program's")
