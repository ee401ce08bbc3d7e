package seccomp

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data; both supported families are little-endian.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

const x32Bit = 0x40000000

// A rule answers a system call if all its conditions hold.
type rule struct {
	conds  []specs.LinuxSeccompArg
	action uint32
}

// verdict is what becomes of one system call: the first rule that holds, else
// the profile's default.
type verdict []rule

// A span is a range of system call numbers, up to the next span's start, with
// one compiled answer.
type span struct {
	from uint32
	code []unix.SockFilter
}

func compileABI(p *specs.LinuxSeccomp, a abi, def uint32) ([]unix.SockFilter, error) {
	nrs := a.numbers()
	verdicts := make(map[uint32]verdict)
	newest := uint32(0)
	for _, s := range p.Syscalls {
		act, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, arg := range s.Args {
			if arg.Index > 5 {
				return nil, fmt.Errorf("seccomp: %v: no argument %d", s.Names, arg.Index)
			}
		}
		for _, name := range s.Names {
			nr, ok := nrs[name]
			if !ok {
				continue // of another architecture or a newer kernel
			}
			newest = max(newest, nr)
			verdicts[nr] = verdicts[nr].add(s.Args, act)
		}
	}
	spans, err := spansOf(verdicts, def, newest)
	if err != nil {
		return nil, err
	}
	tree := search(spans)
	out := []unix.SockFilter{load(offNr)}
	if a.x32 {
		// Kernels without x32 answer so themselves.
		out = append(out, jump(unix.BPF_JGE, x32Bit, 0, 1), ret(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
	}
	return append(out, tree...), nil
}

// add appends a profile entry. An entry that tests the same argument more than
// once means "any of", as in every engine's profiles; others mean "all of". An
// entry without conditions outweighs those with.
func (v verdict) add(args []specs.LinuxSeccompArg, act uint32) verdict {
	if len(v) == 1 && len(v[0].conds) == 0 {
		return v
	}
	if len(args) == 0 {
		return verdict{{action: act}}
	}
	seen := 0
	for _, a := range args {
		if seen&(1<<a.Index) != 0 {
			for _, each := range args {
				v = append(v, rule{[]specs.LinuxSeccompArg{each}, act})
			}
			return v
		}
		seen |= 1 << a.Index
	}
	return append(v, rule{args, act})
}

// spansOf merges neighbouring numbers with the same answer.
func spansOf(verdicts map[uint32]verdict, def, newest uint32) ([]span, error) {
	defCode := []unix.SockFilter{ret(def)}
	var out []span
	put := func(from uint32, code []unix.SockFilter) {
		if n := len(out); n > 0 && slices.Equal(out[n-1].code, code) {
			return
		}
		out = append(out, span{from, code})
	}
	put(0, defCode)
	nrs := make([]uint32, 0, len(verdicts))
	for nr := range verdicts {
		nrs = append(nrs, nr)
	}
	slices.Sort(nrs)
	for _, nr := range nrs {
		code, err := leaf(verdicts[nr], def)
		if err != nil {
			return nil, err
		}
		if nr == 0 {
			out = out[:0]
		}
		put(nr, code)
		if _, ok := verdicts[nr+1]; !ok {
			put(nr+1, defCode)
		}
	}
	if len(nrs) > 0 && def&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO {
		if n := len(out); out[n-1].from == newest+1 {
			out = out[:n-1]
		}
		put(newest+1, []unix.SockFilter{ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))})
	}
	return out, nil
}

// leaf compiles the answer to one system call.
func leaf(v verdict, def uint32) ([]unix.SockFilter, error) {
	var out []unix.SockFilter
	for _, r := range v {
		if len(r.conds) == 0 {
			return append(out, ret(r.action)), nil
		}
		// Compile backwards, so that each condition knows how far the next rule is.
		code := []unix.SockFilter{ret(r.action)}
		for _, c := range slices.Backward(r.conds) {
			test, err := condition(c, len(code))
			if err != nil {
				return nil, err
			}
			code = append(test, code...)
		}
		out = append(out, code...)
	}
	return append(out, ret(def)), nil
}

// condition compiles one comparison of a 64-bit argument: it falls through if
// it holds, and jumps over the rest of its rule, of the given length, if not.
func condition(c specs.LinuxSeccompArg, rest int) ([]unix.SockFilter, error) {
	lo := load(uint32(offArgs + 8*c.Index))
	hi := load(uint32(offArgs + 8*c.Index + 4))
	vlo, vhi := uint32(c.Value), uint32(c.Value>>32)
	if rest > 200 {
		return nil, fmt.Errorf("seccomp: too many conditions in one rule")
	}
	fail := uint8(rest)
	switch c.Op {
	case specs.OpEqualTo:
		return []unix.SockFilter{hi, jump(unix.BPF_JEQ, vhi, 0, fail+2), lo, jump(unix.BPF_JEQ, vlo, 0, fail)}, nil
	case specs.OpNotEqual:
		return []unix.SockFilter{hi, jump(unix.BPF_JEQ, vhi, 0, 2), lo, jump(unix.BPF_JEQ, vlo, fail, 0)}, nil
	case specs.OpMaskedEqual:
		mlo, mhi := vlo, vhi
		vlo, vhi = uint32(c.ValueTwo), uint32(c.ValueTwo>>32)
		return []unix.SockFilter{hi, and(mhi), jump(unix.BPF_JEQ, vhi, 0, fail+3), lo, and(mlo), jump(unix.BPF_JEQ, vlo, 0, fail)}, nil
	case specs.OpGreaterThan:
		return []unix.SockFilter{hi, jump(unix.BPF_JGT, vhi, 3, 0), jump(unix.BPF_JEQ, vhi, 0, fail+2), lo, jump(unix.BPF_JGT, vlo, 0, fail)}, nil
	case specs.OpGreaterEqual:
		return []unix.SockFilter{hi, jump(unix.BPF_JGT, vhi, 3, 0), jump(unix.BPF_JEQ, vhi, 0, fail+2), lo, jump(unix.BPF_JGE, vlo, 0, fail)}, nil
	case specs.OpLessThan:
		return []unix.SockFilter{hi, jump(unix.BPF_JGT, vhi, fail+3, 0), jump(unix.BPF_JEQ, vhi, 0, 2), lo, jump(unix.BPF_JGE, vlo, fail, 0)}, nil
	case specs.OpLessEqual:
		return []unix.SockFilter{hi, jump(unix.BPF_JGT, vhi, fail+3, 0), jump(unix.BPF_JEQ, vhi, 0, 2), lo, jump(unix.BPF_JGT, vlo, fail, 0)}, nil
	}
	return nil, fmt.Errorf("seccomp: operator %q is not supported", c.Op)
}

// search lays out a binary search over the spans; the number is loaded.
func search(s []span) []unix.SockFilter {
	if len(s) == 1 {
		return s[0].code
	}
	mid := len(s) / 2
	left, right := search(s[:mid]), search(s[mid:])
	var out []unix.SockFilter
	if len(left) < 256 {
		out = append(out, jump(unix.BPF_JGE, s[mid].from, uint8(len(left)), 0))
	} else { // conditional jumps reach 255 instructions only
		out = append(out, jump(unix.BPF_JGE, s[mid].from, 0, 1), always(len(left)))
	}
	return append(append(out, left...), right...)
}

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func jump(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func always(n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}
}

func and(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}
}

func ret(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}
