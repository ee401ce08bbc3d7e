//go:build linux

package shim

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// vault is the shim's side of the keeper.
type vault struct {
	s *server

	mu    sync.Mutex // guards all below, and is held while writing
	conn  *net.UnixConn
	pid   int                 // of a keeper that is this process's child, or 0
	files map[string]*os.File // what the keeper has; the shim's own to close
}

// keepPatience is how long a keeper may take to say what it has.
const keepPatience = 2 * time.Second

// What the keeper has of a process, by the end of its name.
const (
	keptStdin  = ":0" // or the terminal
	keptStdout = ":1"
	keptStderr = ":2"
	keptPIDFD  = ":p"
	keptScope  = ":g" // a pipe to what keeps systemd from removing its control group
)

// parts are the descriptors of a process that it must not lose.
func (p *process) parts(e *ends) map[string]*os.File {
	name := key{p.rec.ID, p.rec.ExecID}.String()
	m := map[string]*os.File{name + keptPIDFD: p.pidfd, name + keptStdin: e.stdin}
	if !p.rec.IO.TTY {
		m[name+keptStdout], m[name+keptStderr] = e.out[0], e.out[1]
	}
	for k, f := range m {
		if f == nil {
			delete(m, k)
		}
	}
	return m
}

// warm starts a keeper ahead of its use.
func (v *vault) warm() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.conn == nil {
		if err := v.open(); err != nil {
			v.s.log.Error("no keeper", "err", err)
		}
	}
}

// put gives descriptors to the keeper, which is started if there is none. Once
// they are sent, they are safe, whoever is killed.
func (v *vault) put(files map[string]*os.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.Copy(v.files, files)
	if v.conn == nil || v.send(files) != nil {
		v.restock()
	}
}

// drop lets the keeper close what it has under these names.
func (v *vault) drop(names ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dropThese(names)
}

// dropThese is drop; v.mu is held.
func (v *vault) dropThese(names []string) {
	names = slices.DeleteFunc(names, func(n string) bool { return v.files[n] == nil })
	for _, n := range names {
		delete(v.files, n)
	}
	if len(names) > 0 && v.conn != nil && send(v.conn, &keepMessage{Op: "drop", Keys: names}) != nil {
		v.hangUp()
	}
}

// dropProcess lets the keeper close all it has of a process, unless another one
// has its name by now.
func (v *vault) dropProcess(p *process) {
	v.mu.Lock()
	defer v.mu.Unlock()
	name := key{p.rec.ID, p.rec.ExecID}.String()
	if f := v.files[name+keptPIDFD]; f == nil || f == p.pidfd {
		v.dropThese([]string{name + keptStdin, name + keptStdout, name + keptStderr, name + keptPIDFD})
	}
}

// send gives up to maxFDs descriptors to the keeper.
func (v *vault) send(files map[string]*os.File) error {
	var fds []int
	m := &keepMessage{Op: "keep"}
	for name, f := range files {
		n := numbers{}
		if fd := n.of(f); n.err == nil { // or it is closed, and dropped next
			m.Keys, fds = append(m.Keys, name), append(fds, fd)
		}
	}
	if len(fds) == 0 {
		return nil
	}
	err := send(v.conn, m, fds...)
	if err != nil {
		v.hangUp()
	}
	return err
}

func (v *vault) sendAll() error {
	for name, f := range v.files {
		if err := v.send(map[string]*os.File{name: f}); err != nil {
			return err
		}
	}
	return nil
}

func (v *vault) hangUp() {
	if v.conn != nil {
		_ = v.conn.Close()
		v.conn = nil
	}
}

// open starts a keeper and connects to it. Its socket is made here, so that
// nobody waits for its start.
func (v *vault) open() error {
	path := filepath.Join(v.s.dir, keepSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	short, done, err := socketPath(v.s.dir, keepSocket)
	if err != nil {
		return err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	lf, err := l.File()
	if err != nil {
		return err
	}
	defer func() { _ = lf.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	p, err := os.StartProcess(v.s.host.Exe, []string{keeperName, v.s.dir}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []*os.File{null, null, os.Stderr, lf}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		_ = p.Kill()
		_, _ = p.Wait()
		return err
	}
	v.conn, v.pid = conn, p.Pid
	go v.attend(conn, p.Pid, func() {
		_, _ = p.Wait()
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.pid == p.Pid {
			v.pid = 0
		}
	})
	return nil
}

// attend waits for a keeper's end, and starts another if one is needed.
func (v *vault) attend(conn *net.UnixConn, pid int, reap func()) {
	var b [1]byte
	_, _ = conn.Read(b[:]) // it says nothing unasked
	reap()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.conn != conn {
		return
	}
	v.hangUp()
	if len(v.files) == 0 {
		return
	}
	v.s.log.Warn("the keeper has gone: starting another", "pid", pid)
	v.restock()
}

// restock starts a keeper and gives it all there is.
func (v *vault) restock() {
	err := v.open()
	if err == nil {
		err = v.sendAll()
	}
	if err != nil {
		v.s.log.Error("a kill of this shim would cost containers their streams", "err", err)
	}
}

// find connects to the keeper of an earlier shim and takes copies of all it has.
// The shim owns those it claims; the others are dropped by settle.
func (v *vault) find() (map[string]*os.File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	short, done, err := socketPath(v.s.dir, keepSocket)
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, nil // there is none
	}
	_ = conn.SetDeadline(time.Now().Add(keepPatience))
	found := make(map[string]*os.File)
	if err := send(conn, &keepMessage{Op: "list"}); err != nil {
		_ = conn.Close()
		return nil, unlessEnding(err)
	}
	for {
		var m keepMessage
		files, err := receive(conn, &m)
		if err == nil && len(m.Keys) == 1 && len(files) == 1 {
			found[m.Keys[0]] = files[0]
			continue
		}
		closeAll(files)
		if err != nil {
			_ = conn.Close()
			if len(found) == 0 {
				err = unlessEnding(err)
			}
			return found, err
		}
		_ = conn.SetDeadline(never)
		v.conn = conn
		return found, nil
	}
}

// unlessEnding forgives a keeper that hangs up unheard: it was about to end, which
// it does with nothing in its hands only, or killed a moment ago.
func unlessEnding(err error) error {
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// claim begins with what an earlier shim gave to the keeper: the records say
// what of it is still needed.
func (v *vault) claim(found map[string]*os.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, f := range v.files {
		if found[name] == nil && v.conn != nil {
			_ = v.send(map[string]*os.File{name: f})
		}
	}
	for name, f := range found {
		if v.files[name] != f { // nobody wants it, or it was passed on another way
			_ = f.Close()
		}
		if v.files[name] == nil && v.conn != nil {
			_ = send(v.conn, &keepMessage{Op: "drop", Keys: []string{name}})
		}
	}
	conn := v.conn
	if conn == nil {
		if len(v.files) > 0 {
			v.restock()
		}
		return
	}
	pid, err := peerPID(conn)
	if err != nil {
		return
	}
	go v.attend(conn, pid, func() {})
}

// inherit waits for a keeper that the program before this one has started.
func (v *vault) inherit(pid int) {
	v.mu.Lock()
	v.pid = pid
	v.mu.Unlock()
	go func() {
		_, _ = unix.Wait4(pid, nil, 0, nil)
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.pid == pid {
			v.pid = 0
		}
	}()
}

// child is the pid of a keeper that this process has started, or 0.
func (v *vault) child() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pid
}

// take takes over some of those found, or that the program before this one had.
func (v *vault) take(files map[string]*os.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.Copy(v.files, files)
}

// reach tells whether there is a keeper.
func (v *vault) reach() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.conn != nil
}

func peerPID(c *net.UnixConn) (pid int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cerr error
	err = rc.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); cerr == nil {
			pid = int(cred.Pid)
		}
	})
	return pid, errors.Join(err, cerr)
}
