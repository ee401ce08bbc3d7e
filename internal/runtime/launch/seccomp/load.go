package seccomp

import (
	"fmt"
	"runtime"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Native is the architecture of this program.
func Native() specs.Arch {
	switch runtime.GOARCH {
	case "amd64":
		return specs.ArchX86_64
	case "arm64":
		return specs.ArchAARCH64
	case "arm":
		return specs.ArchARM
	case "386":
		return specs.ArchX86
	}
	return specs.Arch(runtime.GOARCH)
}

// Load confines the calling thread. It needs no_new_privs or CAP_SYS_ADMIN. For
// a program with a listener its descriptor is returned.
func (p *Program) Load() (listener int, err error) {
	n := len(p.Code) / instructionSize
	if n == 0 || n > maxInstructions || len(p.Code)%instructionSize != 0 {
		return -1, fmt.Errorf("seccomp: not a program: %d bytes", len(p.Code))
	}
	filter := make([]unix.SockFilter, n)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&filter[0])), len(p.Code)), p.Code)
	prog := unix.SockFprog{Len: uint16(n), Filter: &filter[0]}
	flags := p.Flags
	if p.Listens() {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, fmt.Errorf("seccomp: load filter: %w", errno)
	}
	if !p.Listens() {
		return -1, nil
	}
	return int(fd), nil
}
