//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// LimitDevices lets the group use the devices that the rules allow, and those
// that every container needs; no other one, whatever the group above may use.
func (g *Group) LimitDevices(rules []specs.LinuxDeviceCgroup) error {
	var err error
	if g.sys.Unified() {
		err = attachDevices(g.dir(""), withDefaultDevices(rules))
	} else {
		err = g.limitDevicesV1(rules)
	}
	if err != nil {
		return fmt.Errorf("devices of control group %s: %w", g.path, err)
	}
	return nil
}

// withDefaultDevices adds the rules that every container needs: the devices the
// OCI specification promises, and making device nodes (not using them). The
// first rule of the list is the one that is for all devices, denied unless the
// given ones say otherwise.
func withDefaultDevices(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	out := []specs.LinuxDeviceCgroup{{Access: "rwm"}}
	for _, r := range joinAccess(rules) {
		if matchesAll(r) { // whatever was said before
			out[0].Allow, out = r.Allow, out[:1]
			continue
		}
		out = append(out, r)
	}
	if out[0].Allow && len(out) == 1 {
		return out
	}
	add := func(kind string, major, minor int64, access string) {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		out = append(out, r)
	}
	add("c", -1, -1, "m")
	add("b", -1, -1, "m")
	for _, minor := range []int64{3, 5, 7, 8, 9} { // null, zero, full, random, urandom
		add("c", 1, minor, "rwm")
	}
	for _, minor := range []int64{0, 1, 2} { // tty, console, ptmx
		add("c", 5, minor, "rwm")
	}
	add("c", 136, -1, "rwm") // pts
	return out
}

// joinAccess adds to a rule that allows what earlier ones allow of the same
// devices, as the lists of version 1 do: who may read and may write may do both at
// once.
func joinAccess(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	out := slices.Clone(rules)
	for i := range out {
		for j := i - 1; j >= 0 && out[i].Allow && out[j].Allow; j-- {
			if sameDevices(out[i], out[j]) {
				out[i].Access = eitherAccess(out[i].Access, out[j].Access)
				break // that one has those before it
			}
		}
	}
	return out
}

func sameDevices(a, b specs.LinuxDeviceCgroup) bool {
	return a.Type == b.Type && deviceNumber(a.Major) == deviceNumber(b.Major) && deviceNumber(a.Minor) == deviceNumber(b.Minor)
}

func eitherAccess(a, b string) string {
	if a == "" || b == "" { // any
		return ""
	}
	for _, c := range b {
		if !strings.ContainsRune(a, c) {
			a += string(c)
		}
	}
	return a
}

// matchesAll tells a rule for all kinds and numbers, which is one for any access.
func matchesAll(r specs.LinuxDeviceCgroup) bool {
	return (r.Type == "" || r.Type == "a") && wild(r.Major) && wild(r.Minor) && (r.Access == "" || strings.Contains(r.Access, "r") && strings.Contains(r.Access, "w") && strings.Contains(r.Access, "m"))
}

func wild(n *int64) bool { return n == nil || *n < 0 }

func deviceNumber(n *int64) string {
	if wild(n) {
		return "*"
	}
	return strconv.FormatInt(*n, 10)
}

// limitDevicesV1 says the rules in the words of version 1, which keeps a list of
// exceptions from its first rule.
func (g *Group) limitDevicesV1(rules []specs.LinuxDeviceCgroup) error {
	if err := checkExceptions(rules); err != nil {
		return err
	}
	w := &writer{g: g}
	// Rules of one sort that follow each other go to their file in one go.
	file, batch := "", []string(nil)
	for _, r := range withDefaultDevices(rules) {
		to := "devices.deny"
		if r.Allow {
			to = "devices.allow"
		}
		if to != file {
			w.set("devices", file, batch...)
			file, batch = to, nil
		}
		kind, access := r.Type, r.Access
		if access == "" {
			access = "rwm"
		}
		switch {
		case matchesAll(r):
			kind = "a"
		case kind == "" || kind == "a":
			// One rule for both kinds exists only for everything.
			batch = append(batch, "b "+deviceNumber(r.Major)+":"+deviceNumber(r.Minor)+" "+access)
			kind = "c"
		}
		batch = append(batch, kind+" "+deviceNumber(r.Major)+":"+deviceNumber(r.Minor)+" "+access)
	}
	w.set("devices", file, batch...)
	return w.err
}

// checkExceptions refuses a rule that takes back a part of an earlier one: the
// kernel looks for the whole one in its list, finds none and keeps silent.
func checkExceptions(rules []specs.LinuxDeviceCgroup) error {
	base := specs.LinuxDeviceCgroup{}
	var before []specs.LinuxDeviceCgroup
	both := func(a, b *int64) (meet, same bool) {
		return wild(a) || wild(b) || *a == *b, wild(a) && wild(b) || !wild(a) && !wild(b) && *a == *b
	}
	for _, r := range rules {
		if matchesAll(r) {
			base, before = r, nil
			continue
		}
		if r.Allow != base.Allow {
			before = append(before, r)
			continue
		}
		for _, e := range before {
			majors, sameMajor := both(r.Major, e.Major)
			minors, sameMinor := both(r.Minor, e.Minor)
			kinds := r.Type == e.Type || r.Type == "" || r.Type == "a" || e.Type == "" || e.Type == "a"
			access := r.Access == "" || e.Access == "" || strings.ContainsAny(r.Access, e.Access)
			if kinds && access && majors && minors && !(sameMajor && sameMinor) {
				return fmt.Errorf("rules %s and %s: version 1 of control groups cannot except a device from a rule for several", ruleText(e), ruleText(r))
			}
		}
	}
	return nil
}

func ruleText(r specs.LinuxDeviceCgroup) string {
	return fmt.Sprintf("%q", r.Type+" "+deviceNumber(r.Major)+":"+deviceNumber(r.Minor)+" "+r.Access)
}

// Instructions of the device program: 64-bit eBPF, as few forms as it takes.
type insn struct {
	op   uint8
	regs uint8 // dst | src<<4
	off  int16
	imm  int32
}

const (
	ldxW   = unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM
	and32  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	rsh32  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	mov32x = unix.BPF_ALU | 0xb0 | unix.BPF_X // BPF_MOV
	mov64  = 0x07 | 0xb0 | unix.BPF_K         // BPF_ALU64
	jne    = unix.BPF_JMP | 0x50 | unix.BPF_K
	exit   = unix.BPF_JMP | 0x90
)

// deviceProgram answers an access by the last rule that matches it, else no.
// Context: access type (low half: kind, high half: access), major, minor.
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]insn, error) {
	const kind, access, major, minor, tmp = 2, 3, 4, 5, 6
	prog := []insn{
		{op: ldxW, regs: kind | 1<<4, off: 0},
		{op: and32, regs: kind, imm: 0xffff},
		{op: ldxW, regs: access | 1<<4, off: 0},
		{op: rsh32, regs: access, imm: 16},
		{op: ldxW, regs: major | 1<<4, off: 4},
		{op: ldxW, regs: minor | 1<<4, off: 8},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		var tests []insn
		switch r.Type {
		case "c", "u":
			tests = append(tests, insn{op: jne, regs: kind, imm: unix.BPF_DEVCG_DEV_CHAR})
		case "b":
			tests = append(tests, insn{op: jne, regs: kind, imm: unix.BPF_DEVCG_DEV_BLOCK})
		case "a", "":
		default:
			return nil, fmt.Errorf("device rule: type %q", r.Type)
		}
		mask := int32(0)
		for _, c := range r.Access {
			switch c {
			case 'm':
				mask |= unix.BPF_DEVCG_ACC_MKNOD
			case 'r':
				mask |= unix.BPF_DEVCG_ACC_READ
			case 'w':
				mask |= unix.BPF_DEVCG_ACC_WRITE
			default:
				return nil, fmt.Errorf("device rule: access %q", r.Access)
			}
		}
		if mask != 0 && mask != 7 {
			if r.Allow { // all that is asked for must be allowed
				tests = append(tests, insn{op: mov32x, regs: tmp | access<<4}, insn{op: and32, regs: tmp, imm: ^mask & 7}, insn{op: jne, regs: tmp, imm: 0})
			} else { // any of what is asked for is denied: skip if none
				tests = append(tests, insn{op: mov32x, regs: tmp | access<<4}, insn{op: and32, regs: tmp, imm: mask}, insn{op: jne, regs: tmp, imm: 0, off: 1}, insn{op: unix.BPF_JMP | unix.BPF_JA})
			}
		}
		for _, n := range []*int64{r.Major, r.Minor} { // the program compares 32 bits
			if !wild(n) && *n > math.MaxUint32 {
				return nil, fmt.Errorf("device rule: number %d", *n)
			}
		}
		if !wild(r.Major) {
			tests = append(tests, insn{op: jne, regs: major, imm: int32(*r.Major)})
		}
		if !wild(r.Minor) {
			tests = append(tests, insn{op: jne, regs: minor, imm: int32(*r.Minor)})
		}
		verdict := int32(0)
		if r.Allow {
			verdict = 1
		}
		for j := range tests { // every open jump leads behind this rule
			if (tests[j].op == jne || tests[j].op == unix.BPF_JMP|unix.BPF_JA) && tests[j].off == 0 {
				tests[j].off = int16(len(tests) - j - 1 + 2)
			}
		}
		prog = append(append(prog, tests...), insn{op: mov64, imm: verdict}, insn{op: exit})
		if len(tests) == 0 {
			return prog, nil // nothing before this rule can matter
		}
	}
	return append(prog, insn{op: mov64, imm: 0}, insn{op: exit}), nil
}

// loadProgram keeps signals away meanwhile: the kernel's verifier gives up
// (EAGAIN) when one is pending, and Go's scheduler sends them all the time.
func loadProgram(attr unsafe.Pointer, size uintptr) (fd uintptr, errno unix.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before); err == nil {
		defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) }()
	}
	for range 10 { // a signal may have been pending before
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(attr), size)
		if errno != unix.EAGAIN {
			break
		}
	}
	return fd, errno
}

// attachDevices makes the group of version 2 obey the rules, instead of those
// it had.
func attachDevices(dir string, rules []specs.LinuxDeviceCgroup) error {
	prog, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	license := []byte("Apache-2.0\x00")
	load := struct {
		kind, count     uint32
		insns, license  uint64
		logLevel, logSz uint32
		logBuf          uint64
		version, flags  uint32
		name            [16]byte
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(prog)),
		insns: uint64(uintptr(unsafe.Pointer(&prog[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
		name: [16]byte{'s', 'k', 'i', 'f', 'f', '_', 'd', 'e', 'v'},
	}
	fd, errno := loadProgram(unsafe.Pointer(&load), unsafe.Sizeof(load))
	runtime.KeepAlive(prog)
	runtime.KeepAlive(license)
	if errno != 0 {
		return fmt.Errorf("load device program: %w", errno)
	}
	defer func() { _ = unix.Close(int(fd)) }()
	group, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(group) }()
	old, err := attachedDevices(group)
	if err != nil {
		return err
	}
	attach := bpfAttach{target: uint32(group), prog: uint32(fd), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); errno != 0 {
		return fmt.Errorf("attach device program to %s: %w", dir, errno)
	}
	for _, id := range old { // several programs must all agree: drop those before
		err = errors.Join(err, detachDevices(group, id))
	}
	return err
}

type bpfAttach struct{ target, prog, kind, flags, replace uint32 }

func attachedDevices(group int) ([]uint32, error) {
	ids := make([]uint32, 64)
	query := struct {
		target, kind, flags, attachFlags uint32
		ids                              uint64
		count, _                         uint32
	}{target: uint32(group), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
	runtime.KeepAlive(ids)
	if errno != 0 {
		return nil, fmt.Errorf("query device programs: %w", errno)
	}
	return ids[:query.count], nil
}

func detachDevices(group int, id uint32) error {
	byID := struct{ id, next, flags uint32 }{id: id}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_GET_FD_BY_ID, uintptr(unsafe.Pointer(&byID)), unsafe.Sizeof(byID))
	if errno != 0 {
		return fmt.Errorf("open device program %d: %w", id, errno)
	}
	defer func() { _ = unix.Close(int(fd)) }()
	detach := bpfAttach{target: uint32(group), prog: uint32(fd), kind: unix.BPF_CGROUP_DEVICE}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_DETACH, uintptr(unsafe.Pointer(&detach)), unsafe.Sizeof(detach)); errno != 0 {
		return fmt.Errorf("detach device program %d: %w", id, errno)
	}
	return nil
}
