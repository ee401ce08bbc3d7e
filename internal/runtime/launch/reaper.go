//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/proc"
)

// handlesEnv names the reaper's end of that pipe: first in its environment, which
// nobody sees, unlike its arguments.
const handlesEnv = "SKIFF_INIT_HANDLES="

// announceReaper gives the parent a pipe that closes when the reaper handles
// signals. Before it does, one would be lost, or end it: the first process of a
// namespace has no signal's usual end, and the Go runtime then exits.
func (s *setup) announceReaper() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	msg, err := encode(&answer{Reaper: true})
	if err == nil {
		err = unix.Sendmsg(fdControl, msg, unix.UnixRights(p[0]), nil, 0)
	}
	_ = unix.Close(p[0])
	if err != nil {
		return fmt.Errorf("announce the reaper: %w", err)
	}
	s.handles = p[1]
	return nil
}

// executeReaper runs this program once more, from its sealed copy and already
// confined like the command, as process 1 of the container.
func (s *setup) executeReaper() error {
	if _, err := unix.FcntlInt(uintptr(s.handles), unix.F_SETFD, 0); err != nil {
		return err
	}
	s.env = append([]string{handlesEnv + strconv.Itoa(s.handles)}, s.env...)
	argv, err := syscall.SlicePtrFromStrings(s.argv)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(s.env)
	if err != nil {
		return err
	}
	empty := [1]byte{}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(s.exe), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

// Reaper is process 1 of a container started with --init: it runs the command
// (args: "--", file, arguments from 0 on), passes signals on to it, reaps
// orphans and ends as the command does.
func Reaper(args []string) int {
	if len(args) < 4 || args[1] != "--" {
		_, _ = fmt.Fprintln(os.Stderr, ReaperName+": started by hand")
		return 125
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	env := os.Environ()
	if len(env) > 0 && strings.HasPrefix(env[0], handlesEnv) { // the command shall not get either
		if fd, err := strconv.Atoi(env[0][len(handlesEnv):]); err == nil {
			_ = unix.Close(fd)
		}
		env = env[1:]
	}
	tty := isTerminal(0)
	attr := &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: env, Sys: &syscall.SysProcAttr{Setpgid: !tty, Foreground: tty, Ctty: 0}}
	child, err := os.StartProcess(args[2], args[3:], attr)
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "exec %s: %v\n", args[3], err)
		if errors.Is(err, os.ErrNotExist) {
			return 127
		}
		return 126
	}
	for sig := range signals {
		switch sig {
		case syscall.SIGCHLD:
			if code, ended := reap(child.Pid); ended {
				return code
			}
		case syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU: // the Go runtime's own, and ours
		default:
			_ = child.Signal(sig)
		}
	}
	return 125
}

func reap(main int) (code int, ended bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == main {
			code, ended = proc.Code(ws), true
		}
	}
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
