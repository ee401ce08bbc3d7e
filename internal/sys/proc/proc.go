//go:build linux

// Package proc names processes without mistaking one for another: by pidfd, and
// by pid together with the time it started.
package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stat returns the fields of /proc/PID/stat from the third on, numbered as
// proc(5) does.
func stat(pid int) (field func(n int) string, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, err
	}
	// The command, field 2, may hold anything, also spaces and parentheses.
	i := strings.LastIndexByte(string(data), ')')
	fields := strings.Fields(string(data[i+1:]))
	if len(fields) < 50 {
		return nil, fmt.Errorf("/proc/%d/stat: too few fields", pid)
	}
	return func(n int) string { return fields[n-3] }, nil
}

// StartTicks returns when a process started, in clock ticks since boot.
func StartTicks(pid int) (uint64, error) {
	field, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(field(22), 10, 64)
}

// ZombieExit returns the wait status of a process that has ended and was not
// reaped yet, by whoever its parent is; EAGAIN if it is no such process.
func ZombieExit(pid int, ticks uint64) (unix.WaitStatus, error) {
	field, err := stat(pid)
	if err != nil || field(3) != "Z" || field(22) != strconv.FormatUint(ticks, 10) {
		return 0, unix.EAGAIN
	}
	code, err := strconv.Atoi(field(52))
	return unix.WaitStatus(code), err
}

// Open returns a non-blocking pidfd of the process that started at ticks, or
// ESRCH if that one is gone.
func Open(pid int, ticks uint64) (int, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	// The descriptor is taken first: what the stat file says after that is about
	// this process, or about nobody.
	if now, err := StartTicks(pid); err != nil || now != ticks {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("process %d started at %d: %w", pid, ticks, unix.ESRCH)
	}
	return fd, nil
}

// OpenNamespace opens a namespace of the process that started at ticks ("net":
// the kinds are named as in /proc/PID/ns), or fails with ESRCH if that one is
// gone. Ticks of 0 stand for a process that is certainly there.
func OpenNamespace(pid int, ticks uint64, kind string) (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		return nil, fmt.Errorf("open %s namespace of process %d: %w", kind, pid, err)
	}
	if ticks == 0 {
		return f, nil
	}
	// Taken first, as in Open.
	if now, err := StartTicks(pid); err != nil || now != ticks {
		_ = f.Close()
		return nil, fmt.Errorf("process %d started at %d: %w", pid, ticks, unix.ESRCH)
	}
	return f, nil
}

// Wait reaps the child behind pidfd, which must have ended.
func Wait(pidfd int) (unix.WaitStatus, error) { return wait(pidfd, 0) }

// Peek is Wait that leaves the child to be reaped.
func Peek(pidfd int) (unix.WaitStatus, error) { return wait(pidfd, unix.WNOWAIT) }

func wait(pidfd, flags int) (unix.WaitStatus, error) {
	var info siginfoChld
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(&info)), uintptr(unix.WEXITED|unix.WNOHANG|flags), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		break
	}
	if info.signo == 0 {
		return 0, unix.EAGAIN
	}
	return info.waitStatus(), nil
}

// EndedChild returns a child that has ended and leaves it to be waited for; 0 if
// there is none.
func EndedChild() int {
	var info siginfoChld
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno != 0 || info.signo == 0 {
		return 0
	}
	return int(info.pid)
}

// siginfoChld is siginfo_t of SIGCHLD on 64-bit machines.
type siginfoChld struct {
	signo, errno, code, _ int32
	pid, uid              int32
	status                int32
	_                     [100]byte
}

func (i *siginfoChld) waitStatus() unix.WaitStatus {
	const (
		exited = 1
		dumped = 3
	)
	switch i.code {
	case exited:
		return unix.WaitStatus(i.status & 0xff << 8)
	case dumped:
		return unix.WaitStatus(i.status | 0x80)
	}
	return unix.WaitStatus(i.status)
}

type pidfdInfo struct {
	mask, cgroupID           uint64
	pid, tgid, ppid          uint32
	ruid, rgid, euid, egid   uint32
	suid, sgid, fsuid, fsgid uint32
	exitCode                 int32
	_                        [64]byte
}

// ExitOf returns the wait status of an ended process that is not our child. It
// is known once its parent has reaped it (EAGAIN before), from kernel 6.15 on
// (ENOTTY before).
func ExitOf(pidfd int) (unix.WaitStatus, error) {
	info := pidfdInfo{mask: unix.PIDFD_INFO_EXIT}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), uintptr(unix.PIDFD_GET_INFO), uintptr(unsafe.Pointer(&info)))
	switch {
	case errno == unix.ENOTTY, errno == unix.EINVAL:
		return 0, unix.ENOTTY
	case errno != 0 && !errors.Is(errno, unix.ESRCH):
		return 0, errno
	case errno != 0 || info.mask&unix.PIDFD_INFO_EXIT == 0:
		return 0, unix.EAGAIN
	}
	return unix.WaitStatus(info.exitCode), nil
}

// Code is the exit code of a status, in the shells' way: 128+n for signal n.
func Code(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
