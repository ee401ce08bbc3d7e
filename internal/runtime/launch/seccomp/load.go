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

// Load confines the calling thread. It needs no_new_privs or CAP_SYS_ADMIN.
func (p *Program) Load() error {
	n := len(p.Code) / instructionSize
	if n == 0 || n > maxInstructions || len(p.Code)%instructionSize != 0 {
		return fmt.Errorf("seccomp: not a program: %d bytes", len(p.Code))
	}
	filter := make([]unix.SockFilter, n)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&filter[0])), len(p.Code)), p.Code)
	prog := unix.SockFprog{Len: uint16(n), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.Flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: load filter: %w", errno)
	}
	return nil
}
