package seccomp

import specs "github.com/opencontainers/runtime-spec/specs-go"

// The lists below are what a profile may name. A test compiles each.

// KnownActions lists the actions.
func KnownActions() []string {
	return strs(specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActLog, specs.ActNotify, specs.ActTrace, specs.ActTrap)
}

// KnownOperators lists the comparisons of arguments.
func KnownOperators() []string {
	return strs(specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessEqual, specs.OpLessThan, specs.OpMaskedEqual, specs.OpNotEqual)
}

// KnownArchs lists the architectures there are system call tables for.
func KnownArchs() []string {
	return strs(specs.ArchAARCH64, specs.ArchARM, specs.ArchX86, specs.ArchX86_64)
}

// KnownFlags lists the flags of a filter.
func KnownFlags() []string {
	return []string{string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow), "SECCOMP_FILTER_FLAG_TSYNC", string(specs.LinuxSeccompFlagWaitKillableRecv)}
}

func strs[T ~string](in ...T) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}
