package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// call is struct seccomp_data.
type call struct {
	nr, arch uint32
	args     [6]uint64
}

// interpret runs a program as the kernel does.
func interpret(t *testing.T, p *Program, c call) uint32 {
	t.Helper()
	data := binary.LittleEndian.AppendUint32(nil, c.nr)
	data = binary.LittleEndian.AppendUint32(data, c.arch)
	data = binary.LittleEndian.AppendUint64(data, 0)
	for _, a := range c.args {
		data = binary.LittleEndian.AppendUint64(data, a)
	}
	prog := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&p.Code[0])), len(p.Code)/instructionSize)
	var acc uint32
	for pc := 0; ; pc++ {
		if pc >= len(prog) {
			t.Fatalf("%+v runs past the end", c)
		}
		in := prog[pc]
		branch := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(data[in.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			branch(acc == in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			branch(acc > in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			branch(acc >= in.K)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %#v", in)
		}
	}
}

// decide answers a call by the profile itself, slowly.
func decide(p *specs.LinuxSeccomp, a abi, nrs map[string]uint32, c call) uint32 {
	def, _ := action(p.DefaultAction, p.DefaultErrnoRet)
	if a.x32 && c.nr >= x32Bit {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	newest, known, conditional, plain := uint32(0), false, []uint32{}, []uint32{}
	for _, s := range p.Syscalls {
		act, _ := action(s.Action, s.ErrnoRet)
		for _, n := range s.Names {
			nr, ok := nrs[n]
			if !ok {
				continue
			}
			newest, known = max(newest, nr), true
			if nr != c.nr {
				continue
			}
			if len(s.Args) == 0 {
				plain = append(plain, act)
			} else if holds(s.Args, c) {
				conditional = append(conditional, act)
			}
		}
	}
	switch {
	case len(plain) > 0:
		return plain[0]
	case len(conditional) > 0:
		return conditional[0]
	case c.nr > newest && known && def&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO:
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	return def
}

func holds(args []specs.LinuxSeccompArg, c call) bool {
	seen, anyOf, all, some := map[uint]bool{}, false, true, false
	for _, a := range args {
		anyOf = anyOf || seen[a.Index]
		seen[a.Index] = true
		v := c.args[a.Index]
		ok := map[specs.LinuxSeccompOperator]bool{
			specs.OpEqualTo: v == a.Value, specs.OpNotEqual: v != a.Value, specs.OpLessThan: v < a.Value, specs.OpLessEqual: v <= a.Value,
			specs.OpGreaterThan: v > a.Value, specs.OpGreaterEqual: v >= a.Value, specs.OpMaskedEqual: v&a.Value == a.ValueTwo,
		}[a.Op]
		all, some = all && ok, some || ok
	}
	return all || anyOf && some
}

func dockers(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_CHROOT"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDockersProfile(t *testing.T) {
	p := dockers(t)
	prog, err := Compile(p, specs.ArchX86_64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(prog.Code)/instructionSize)
	for _, name := range []specs.Arch{specs.ArchX86_64, specs.ArchX86} {
		a, _ := abiOf(name)
		nrs := a.numbers()
		for nr := range uint32(600) {
			for _, args := range [][6]uint64{{}, {0x7e020000, 1, 2, 3, 4, 5}, {8}, {0xffffffff}, {40, 0, 38}, {1 << 40}} {
				c := call{nr, a.audit, args}
				if got, want := interpret(t, prog, c), decide(p, a, nrs, c); got != want {
					t.Fatalf("%s: call %d %x: %#x, want %#x", name, nr, args, got, want)
				}
			}
		}
	}
	if got := interpret(t, prog, call{nr: 1, arch: unix.AUDIT_ARCH_AARCH64}); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("a foreign table: %#x", got)
	}
	if got := interpret(t, prog, call{nr: x32Bit + 1, arch: unix.AUDIT_ARCH_X86_64}); got != unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) {
		t.Errorf("x32: %#x", got)
	}
}

// Random profiles, random calls: the program says what the profile says.
func TestRandomProfiles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	a, _ := abiOf(specs.ArchX86_64)
	nrs := a.numbers()
	var names []string
	for n := range nrs {
		names = append(names, n)
	}
	slices.Sort(names)
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	values := []uint64{0, 1, 7, 1 << 31, 1 << 32, 1<<32 + 1, 1<<64 - 1, 0xff00ff00ff00ff00}
	pick := func() uint64 { return values[rnd.IntN(len(values))] }
	for range 30 {
		errno := uint(rnd.IntN(100) + 1)
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno}
		for range rnd.IntN(40) {
			s := specs.LinuxSyscall{Action: []specs.LinuxSeccompAction{specs.ActAllow, specs.ActKill, specs.ActLog, specs.ActErrno}[rnd.IntN(4)]}
			for range 1 + rnd.IntN(8) {
				s.Names = append(s.Names, names[rnd.IntN(20)*len(names)/20])
			}
			for range rnd.IntN(4) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(rnd.IntN(6)), Value: pick(), ValueTwo: pick(), Op: ops[rnd.IntN(len(ops))]})
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		prog, err := Compile(p, specs.ArchX86_64)
		if err != nil {
			t.Fatal(err)
		}
		for nr := range uint32(500) {
			c := call{nr, a.audit, [6]uint64{pick(), pick(), pick(), pick(), pick(), pick()}}
			if got, want := interpret(t, prog, c), decide(p, a, nrs, c); got != want {
				t.Fatalf("call %d %x: %#x, want %#x\n%+v", nr, c.args, got, want, p.Syscalls)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	big := uint(5000)
	for name, p := range map[string]*specs.LinuxSeccomp{
		"metadata for nobody": {DefaultAction: specs.ActAllow, ListenerMetadata: "x"},
		"notify by default":   {DefaultAction: specs.ActNotify, ListenerPath: "/x"},
		"an unknown action":   {DefaultAction: "SCMP_ACT_DANCE"},
		"notify":              {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActNotify}}},
		"an errno too large":  {DefaultAction: specs.ActErrno, DefaultErrnoRet: &big},
		"an unknown flag":     {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
		"an unknown operator": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "X"}}}}},
		"a seventh argument":  {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
	} {
		if _, err := Compile(p, specs.ArchX86_64); err == nil {
			t.Errorf("%s compiles", name)
		}
	}
}

func TestListener(t *testing.T) {
	p := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: "/x", ListenerMetadata: "m",
		Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv},
	}
	const base = unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	prog, err := Compile(p, specs.ArchX86_64)
	if err != nil || prog.Listens() || prog.Flags != base {
		t.Errorf("without a call for it: %v, %+v", err, prog)
	}
	p.Syscalls = []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
	prog, err = Compile(p, specs.ArchX86_64)
	if err != nil || !prog.Listens() || prog.Metadata != "m" || prog.Flags != base|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV {
		t.Errorf("with a call for it: %v, %+v", err, prog)
	}
}

// The tables are those of the module they were made from.
func TestTables(t *testing.T) {
	for table, info := range map[string]*arch.Info{tableX8664: arch.X86_64, tableX86: arch.I386, tableARM64: arch.AARCH64, tableARM: arch.ARM} {
		want := map[string]uint32{}
		for nr, name := range info.SyscallNumbers {
			want[name] = uint32(nr)
		}
		if d := cmp.Diff(want, abi{table: table}.numbers()); d != "" {
			t.Error(strconv.Quote(info.Name), d)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	p := dockers(b)
	for b.Loop() {
		if _, err := Compile(p, specs.ArchX86_64); err != nil {
			b.Fatal(err)
		}
	}
}
