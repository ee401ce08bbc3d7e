//go:build linux

// Package holder forks processes that do nothing but keep something alive: a new
// user namespace until it is open, a scope of systemd's until a container is in it.
package holder

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the child of a fork may do is little: system calls on values that were
// made before, and nothing that allocates, locks or grows the stack.
// [syscall.ForkExec] keeps to the same rules.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// A Holder is a process that only waits. It ends with this one, at the latest.
type Holder struct {
	PID  int
	stop int
}

// Start forks one, in new namespaces as the flags (CLONE_NEW…) say.
func Start(flags uintptr) (*Holder, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	pid, errno := fork(flags, uintptr(p[0]), uintptr(p[1]))
	_ = unix.Close(p[0])
	if errno != 0 {
		_ = unix.Close(p[1])
		return nil, fmt.Errorf("fork a holder: %w", errno)
	}
	return &Holder{PID: pid, stop: p[1]}, nil
}

// Close ends and reaps it.
func (h *Holder) Close() {
	_ = unix.Kill(h.PID, unix.SIGKILL) // not reaped: it is that one
	_ = unix.Close(h.stop)
	for {
		if _, err := unix.Wait4(h.PID, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// fork makes a child that waits for the end of the pipe r, whose other end is w,
// and goes.
//
//go:noinline
//go:norace
//go:nocheckptr
func fork(flags, r, w uintptr) (int, syscall.Errno) {
	var (
		pid   uintptr
		errno syscall.Errno
		buf   [1]byte
	)
	syscall.ForkLock.Lock()
	runtimeBeforeFork()
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		syscall.ForkLock.Unlock()
		return int(pid), errno
	}
	runtimeAfterForkInChild()
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, w, 0, 0)
	// Nobody shall wait for the end of what is open here too.
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, r-1, 0)
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, r+1, ^uintptr(0)>>32, 0)
	for {
		if _, _, errno = syscall.RawSyscall(unix.SYS_READ, r, uintptr(unsafe.Pointer(&buf)), 1); errno != unix.EINTR {
			break
		}
	}
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
