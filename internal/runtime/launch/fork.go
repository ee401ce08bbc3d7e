//go:build linux

package launch

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/holder"
)

// The kernel lets only a process of a single thread join a user or a time
// namespace. A Go program never is one; the child of a plain fork is, until it
// executes something. What it may do until then is little: system calls on
// values that were made before, and nothing that allocates, locks or grows the
// stack. [syscall.ForkExec] keeps to the same rules.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// A forked child joins namespaces, becomes root of its user namespace, makes
// others and executes a program.
type forked struct {
	user, time int       // namespaces to join; -1: none
	flags      uintptr   // namespaces to make then
	cgroup     int       // born into; -1: where the parent is
	files      []uintptr // its descriptors, from 0 on
	exe        string
	argv, env  []string
}

type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// start runs on a thread that is thrown away afterwards; the program is a child
// of this process even where it takes two forks to get there.
func (f *forked) start() (pid int, err error) {
	exe, err := syscall.BytePtrFromString(f.exe)
	if err != nil {
		return 0, err
	}
	argv, err := syscall.SlicePtrFromStrings(f.argv)
	if err != nil {
		return 0, err
	}
	env, err := syscall.SlicePtrFromStrings(f.env)
	if err != nil {
		return 0, err
	}
	// Copies out of the way of what they become.
	fds := make([]uintptr, len(f.files))
	for i, from := range f.files {
		fd, err := unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, len(f.files))
		if err != nil {
			return 0, fmt.Errorf("descriptor %d: %w", i, err)
		}
		defer func() { _ = unix.Close(fd) }()
		fds[i] = uintptr(fd)
	}
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(report[0]) }()
	args := &cloneArgs{exitSignal: uint64(unix.SIGCHLD)}
	if f.cgroup >= 0 {
		args.flags, args.cgroup = unix.CLONE_INTO_CGROUP, uint64(f.cgroup)
	}
	slash := [2]byte{'/', 0}
	first, errno := forkInto(f, args, exe, argv, env, fds, &slash, uintptr(report[1]))
	_ = unix.Close(report[1])
	if errno != 0 {
		return 0, fmt.Errorf("fork: %w", errno)
	}
	pid = first
	var word [4]byte
	for {
		n, rerr := readFull(report[0], word[:])
		if rerr != nil || n < len(word) {
			break // it has executed the program
		}
		if v := int(int32(binary.NativeEndian.Uint32(word[:]))); v > 0 {
			pid = v
		} else {
			err = fmt.Errorf("enter user namespace: %w", syscall.Errno(-v))
		}
	}
	if pid != first || err != nil {
		reapChild(first)
	}
	if pid != first && err != nil {
		reapChild(pid)
	}
	return pid, err
}

func readFull(fd int, buf []byte) (int, error) {
	done := 0
	for done < len(buf) {
		n, err := unix.Read(fd, buf[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return done, err
		}
		done += n
	}
	return done, nil
}

func reapChild(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// forkInto is the fork and all the child does. What it reports: the number of
// the process that executes the program, if it is not the first; a failure, as
// a negative number.
//
//go:noinline
//go:norace
//go:nocheckptr
func forkInto(f *forked, args *cloneArgs, exe *byte, argv, env []*byte, fds []uintptr, slash *[2]byte, report uintptr) (int, syscall.Errno) {
	var (
		pid    uintptr
		errno  syscall.Errno
		word   int32
		i      int
		flags  = f.flags &^ unix.CLONE_NEWPID
		newPID = f.flags&unix.CLONE_NEWPID != 0
	)
	syscall.ForkLock.Lock()
	runtimeBeforeFork()
	if f.cgroup >= 0 {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0, 0, 0, 0)
	} else {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	}
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		syscall.ForkLock.Unlock()
		return int(pid), errno
	}
	runtimeAfterForkInChild()
	if f.time >= 0 {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(f.time), unix.CLONE_NEWTIME, 0); errno != 0 {
			goto fail
		}
	}
	if f.user >= 0 {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(f.user), unix.CLONE_NEWUSER, 0); errno != 0 {
			goto fail
		}
		// Its root before namespaces are made, whose files (those of message
		// queues) are of who makes them.
		// A namespace made by somebody without privileges may forbid this one.
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 && errno != unix.EPERM {
			goto fail
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
			goto fail
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
			goto fail
		}
	}
	if flags != 0 {
		if _, _, errno = syscall.RawSyscall(unix.SYS_UNSHARE, flags, 0, 0); errno != 0 {
			goto fail
		}
	}
	if newPID {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWPID|unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			goto fail
		}
		if pid != 0 {
			word = int32(pid)
			_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(&word)), 4)
			for {
				_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		goto fail
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(slash)), 0, 0); errno != 0 {
		goto fail
	}
	for i = 0; i < len(fds); i++ {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, fds[i], uintptr(i), 0); errno != 0 {
			goto fail
		}
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(exe)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
fail:
	word = -int32(errno)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(&word)), 4)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

// Hold starts a process that ends when it is released, or with this one.
func Hold() (pid int, release func(), err error) {
	h, err := holder.Start(0)
	if err != nil {
		return 0, nil, err
	}
	return h.PID, h.Close, nil
}

// writeOnce writes a file of the kernel's in one call, as some must be.
func writeOnce(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}
