//go:build linux

package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The keeper is a small process that does nothing but hold what must outlive a
// shim that is killed: terminals and the writing ends of stdins, whose closing
// containers would see; the pipes they print to, which are gone with the last
// who has them; their pidfds, which know how they ended. It is started with the
// first container, and ends when it holds nothing and no shim has it.

// keeperName is the keeper's argv[0]; the next argument is the run directory.
const keeperName = "skiff-keep"

const (
	keepSocket = "keep.sock"
	fdListen   = 3
	keepIdle   = 5 * time.Second // how often a keeper without a shim looks whether it is still needed
	keepDead   = time.Minute     // how long it keeps what ended processes have left
)

// keepMessage is what shim and keeper say: "keep" (with a descriptor for each
// key), "drop", "list". The answer to the last is a message for each, and one
// without a key.
type keepMessage struct {
	Op   string   `json:"op,omitempty"`
	Keys []string `json:"keys,omitempty"`
}

type keeper struct {
	dir   string
	l     *net.UnixListener
	files map[string]*os.File
}

// keeperMain is the process. It returns the exit code.
func keeperMain(args []string) int {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	debug.SetGCPercent(20)
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE, unix.SIGINT)
	if len(args) < 2 {
		_, _ = fmt.Fprintln(os.Stderr, keeperName+": started by hand")
		return 2
	}
	unix.CloseOnExec(fdListen)
	f := os.NewFile(fdListen, "listener")
	l, err := net.FileListener(f)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, keeperName+":", err)
		return 1
	}
	_ = f.Close()
	u, ok := l.(*net.UnixListener)
	if !ok {
		return 1
	}
	k := &keeper{dir: args[1], l: u, files: make(map[string]*os.File)}
	k.run()
	return 0
}

func (k *keeper) run() {
	var dead time.Time
	for {
		_ = k.l.SetDeadline(time.Now().Add(keepIdle))
		c, err := k.l.AcceptUnix()
		switch {
		case err == nil:
			if allowed(c) == nil {
				k.serve(c)
			}
			_ = c.Close()
			dead = time.Time{}
			if len(k.files) == 0 {
				return
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return
		case k.needed():
			dead = time.Time{}
		case dead.IsZero():
			dead = time.Now()
		case time.Since(dead) > keepDead:
			return
		}
		if _, err := os.Lstat(filepath.Join(k.dir, keepSocket)); err != nil {
			return // the directory has gone
		}
	}
}

// serve does what a shim asks, until that one goes.
func (k *keeper) serve(c *net.UnixConn) {
	for {
		var m keepMessage
		files, err := receive(c, &m)
		if err != nil {
			closeAll(files)
			return
		}
		switch m.Op {
		case "keep":
			for i, name := range m.Keys {
				if i < len(files) {
					closeAll([]*os.File{k.files[name]})
					k.files[name], files[i] = files[i], nil
				}
			}
		case "drop":
			for _, name := range m.Keys {
				closeAll([]*os.File{k.files[name]})
				delete(k.files, name)
			}
		case "list":
			err = k.list(c)
		}
		closeAll(files)
		if err != nil {
			return
		}
	}
}

func (k *keeper) list(c *net.UnixConn) error {
	for name, f := range k.files {
		n := numbers{}
		fd := n.of(f)
		if n.err != nil {
			return n.err
		}
		if err := send(c, &keepMessage{Keys: []string{name}}, fd); err != nil {
			return err
		}
	}
	return send(c, &keepMessage{})
}

// needed tells whether any of the processes still lives.
func (k *keeper) needed() bool {
	for name, f := range k.files {
		if !strings.HasSuffix(name, keptPIDFD) {
			continue
		}
		n := numbers{}
		p := []unix.PollFd{{Fd: int32(n.of(f)), Events: unix.POLLIN}}
		if c, err := unix.Poll(p, 0); err != nil || c == 0 {
			return true
		}
	}
	return false
}
