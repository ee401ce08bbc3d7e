// Package seccomp compiles an OCI seccomp profile to a BPF program.
//
// The kernel runs a new filter once for every system call number when it is
// loaded, so a linear list of 400 comparisons costs each container start more
// than half a millisecond. The programs made here are a binary search over
// ranges of numbers with the same answer instead: some ten instructions deep.
//
// Where a profile is silent on a system call that is newer than all it names,
// the answer is ENOSYS and not the profile's refusal, so that libraries fall
// back to the older call.
package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:generate go run gen/main.go

// Program is a compiled filter, ready to load.
type Program struct {
	Code  []byte `json:"code"`            // struct sock_filter, one after the other
	Flags uint   `json:"flags,omitempty"` // of seccomp(2)

	// Where the filter leaves decisions to somebody else: the socket to send its
	// descriptor to, and what to send along.
	Listener string `json:"listener,omitempty"`
	Metadata string `json:"metadata,omitempty"`
}

// Listens tells whether the filter leaves decisions to a listener.
func (p *Program) Listens() bool { return p != nil && p.Listener != "" }

const (
	maxInstructions = 4096 // BPF_MAXINSNS
	instructionSize = int(unsafe.Sizeof(unix.SockFilter{}))
)

// An abi is one system call table of a machine.
type abi struct {
	audit uint32
	table string
	x32   bool // numbers from 0x40000000 belong to the x32 table, which is refused
}

func abiOf(a specs.Arch) (abi, bool) {
	switch a {
	case specs.ArchX86_64:
		return abi{unix.AUDIT_ARCH_X86_64, tableX8664, true}, true
	case specs.ArchX86:
		return abi{unix.AUDIT_ARCH_I386, tableX86, false}, true
	case specs.ArchAARCH64:
		return abi{unix.AUDIT_ARCH_AARCH64, tableARM64, false}, true
	case specs.ArchARM:
		return abi{unix.AUDIT_ARCH_ARM, tableARM, false}, true
	}
	return abi{}, false
}

func (a abi) numbers() map[string]uint32 {
	m := make(map[string]uint32, 512)
	for line := range strings.Lines(a.table) {
		name, nr, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, _ := strconv.ParseUint(nr, 10, 32)
		m[name] = uint32(n)
	}
	return m
}

// Compile makes the program of a profile. native is the machine's own
// architecture, always confined even if the profile does not name it.
// Architectures that cannot run on such a machine are left out: a call made
// with another table than those confined kills the process.
func Compile(p *specs.LinuxSeccomp, native specs.Arch) (*Program, error) {
	notifies, err := checkListener(p)
	if err != nil {
		return nil, err
	}
	flags, err := filterFlags(p.Flags)
	if err != nil {
		return nil, err
	}
	def, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	arches, err := architectures(p.Architectures, native)
	if err != nil {
		return nil, err
	}
	prog := []unix.SockFilter{load(offArch)}
	for _, a := range arches {
		block, err := compileABI(p, a, def)
		if err != nil {
			return nil, err
		}
		// Skip the block unless the call was made with this table.
		prog = append(prog, jump(unix.BPF_JEQ, a.audit, 1, 0), always(len(block)))
		prog = append(prog, block...)
	}
	prog = append(prog, ret(unix.SECCOMP_RET_KILL_PROCESS))
	if len(prog) > maxInstructions {
		return nil, fmt.Errorf("seccomp: profile needs %d BPF instructions, the kernel takes %d", len(prog), maxInstructions)
	}
	if !notifies {
		// A listener is told of nothing: there is none, nor anybody who waits for it.
		flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	out := &Program{Code: unsafe.Slice((*byte)(unsafe.Pointer(&prog[0])), len(prog)*instructionSize), Flags: flags}
	if notifies {
		out.Listener, out.Metadata = p.ListenerPath, p.ListenerMetadata
	}
	return out, nil
}

// checkListener tells whether any call is left to a listener, which must be
// named then.
func checkListener(p *specs.LinuxSeccomp) (notifies bool, err error) {
	notifies = slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify })
	switch {
	case p.DefaultAction == specs.ActNotify:
		return false, fmt.Errorf("seccomp: %s cannot be the default action", specs.ActNotify)
	case notifies && p.ListenerPath == "":
		return false, fmt.Errorf("seccomp: %s needs a listenerPath", specs.ActNotify)
	case p.ListenerPath == "" && p.ListenerMetadata != "":
		return false, fmt.Errorf("seccomp: listenerMetadata without a listenerPath")
	}
	return notifies, nil
}

func architectures(named []specs.Arch, native specs.Arch) ([]abi, error) {
	first, ok := abiOf(native)
	if !ok {
		return nil, fmt.Errorf("seccomp: no system call table for architecture %q", native)
	}
	out := []abi{first}
	for _, a := range named {
		runs := native == specs.ArchX86_64 && a == specs.ArchX86 || native == specs.ArchAARCH64 && a == specs.ArchARM
		if !runs || a == native {
			continue
		}
		next, ok := abiOf(a)
		if !ok {
			return nil, fmt.Errorf("seccomp: no system call table for architecture %q", a)
		}
		if len(out) == 1 || out[1].audit != next.audit {
			out = append(out, next)
		}
	}
	return out, nil
}

func filterFlags(in []specs.LinuxSeccompFlag) (uint, error) {
	var out uint
	for _, f := range in {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC": // exec leaves one thread: nothing to synchronise
		case specs.LinuxSeccompFlagLog:
			out |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			out |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			out |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, fmt.Errorf("seccomp: flag %q is not supported", f)
		}
	}
	return out, nil
}

func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		if *errno > 4095 {
			return 0, fmt.Errorf("seccomp: errno %d is out of range", *errno)
		}
		data = uint32(*errno)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fmt.Errorf("seccomp: action %q is not supported", a)
}
