//go:build linux

package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Keep starts a process in a control group of version 2 that keeps it populated
// until the last copy of the returned descriptor is closed. It is nobody's
// child: it may outlive this program. Each container that systemd makes a scope
// for has one, so it is not a copy of this program but one of two pages.
func Keep(group *os.File) (*os.File, error) {
	code := keepCode()
	if code == nil {
		return nil, errors.New("no program that keeps a control group for this processor")
	}
	prog, err := unix.MemfdCreate("skiff-hold", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	defer func() { _ = unix.Close(prog) }()
	if _, err := unix.Write(prog, smallProgram(code)); err != nil {
		return nil, fmt.Errorf("write program: %w", err)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(p[0]) }()
	hold := os.NewFile(uintptr(p[1]), "hold")
	// Opened to be read: what is open to be written cannot be executed.
	exe := "/proc/self/fd/" + strconv.Itoa(prog)
	ro, err := unix.Open(exe, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = hold.Close()
		return nil, &os.PathError{Op: "open", Path: exe, Err: err}
	}
	_ = unix.Close(prog)
	prog = ro
	f := &forked{
		user: -1, time: -1, cgroup: int(group.Fd()), files: []uintptr{uintptr(p[0])},
		exe: "/proc/self/fd/" + strconv.Itoa(ro), argv: []string{"skiff-hold"},
	}
	pid, err := f.start()
	runtime.KeepAlive(group)
	if err != nil {
		_ = hold.Close()
		return nil, err
	}
	// It forks first of all and goes; what stays is its child.
	var status unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil && status != 0 {
		err = fmt.Errorf("ended with status %#x", int(status))
	}
	if err != nil {
		_ = hold.Close()
		return nil, fmt.Errorf("keep a control group: %w", err)
	}
	return hold, nil
}

// smallProgram is the ELF file of some machine code: fork and go, and in the
// child read one byte of descriptor 0 and go.
func smallProgram(code []byte) []byte {
	const (
		base    = 0x400000
		headers = 64 + 2*56
	)
	e := binary.NativeEndian
	out := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} // 64 bits, little-endian
	u16 := func(v ...uint16) {
		for _, n := range v {
			out = e.AppendUint16(out, n)
		}
	}
	u32 := func(v ...uint32) {
		for _, n := range v {
			out = e.AppendUint32(out, n)
		}
	}
	u64 := func(v ...uint64) {
		for _, n := range v {
			out = e.AppendUint64(out, n)
		}
	}
	size := uint64(headers + len(code))
	u16(2, keepMachine)            // an executable
	u32(1)                         // version
	u64(base+headers, 64, 0)       // entry, program headers, sections
	u32(0)                         // flags
	u16(64, 56, 2, 64, 0, 0)       // sizes and counts
	u32(1, 5)                      // load, to be read and executed
	u64(0, base, base, size, size) // offset, addresses, sizes
	u64(0x10000)                   // alignment: the largest page
	u32(0x6474e551, 6)             // a stack that is not executed
	u64(0, 0, 0, 0, 0, 16)
	return append(out, code...)
}
