//go:build linux

package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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

// A process's terminal or stdin, in the keeper.
func keptStdin(id, execID string) string { return key{id, execID}.String() + ":0" }

// put gives a descriptor to the keeper, which is started if there is none. Once
// it is sent, it is safe, whoever is killed.
func (v *vault) put(name string, f *os.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.files[name] = f
	if err := v.send("keep", name, f); err != nil {
		v.s.log.Error("a terminal or stdin would not outlive this shim", "name", name, "err", err)
	}
}

// drop lets the keeper close it.
func (v *vault) drop(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.files[name] == nil {
		return
	}
	delete(v.files, name)
	if v.conn != nil && send(v.conn, &keepMessage{Op: "drop", Key: name}) != nil {
		v.hangUp()
	}
}

func (v *vault) send(op, name string, f *os.File) error {
	if v.conn == nil { // it has been told of none
		if err := v.open(); err != nil {
			return err
		}
		return v.sendAll()
	}
	n := numbers{}
	fd := n.of(f)
	if n.err != nil {
		return n.err
	}
	err := send(v.conn, &keepMessage{Op: op, Key: name}, fd)
	if err != nil {
		v.hangUp()
		if err = v.open(); err == nil {
			err = v.sendAll()
		}
	}
	return err
}

func (v *vault) sendAll() error {
	for name, f := range v.files {
		n := numbers{}
		fd := n.of(f)
		if n.err != nil {
			continue // closed meanwhile: it is dropped next
		}
		if err := send(v.conn, &keepMessage{Op: "keep", Key: name}, fd); err != nil {
			v.hangUp()
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
	v.s.log.Warn("the keeper of terminals has gone: starting another", "pid", pid)
	err := v.open()
	if err == nil {
		err = v.sendAll()
	}
	if err != nil {
		v.s.log.Error("terminals and stdins would not outlive this shim", "err", err)
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
		return nil, err
	}
	for {
		var m keepMessage
		files, err := receive(conn, &m)
		if err == nil && m.Key != "" && len(files) == 1 {
			found[m.Key] = files[0]
			continue
		}
		closeAll(files)
		if err != nil { // it was about to end
			_ = conn.Close()
			return found, err
		}
		_ = conn.SetDeadline(never)
		v.conn = conn
		return found, nil
	}
}

// claim begins with what an earlier shim gave to the keeper: the records say
// what of it is still needed.
func (v *vault) claim(found map[string]*os.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, f := range found {
		if v.files[name] != f { // nobody wants it, or it was passed on another way
			_ = f.Close()
		}
		if v.files[name] == nil && v.conn != nil {
			_ = send(v.conn, &keepMessage{Op: "drop", Key: name})
		}
	}
	if v.conn == nil {
		return
	}
	conn := v.conn
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

// take takes over one of those found, or that the program before this one had.
func (v *vault) take(name string, f *os.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.files[name] = f
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
