//go:build linux

package launch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// attributes are what the kernel keeps per thread and the command inherits.
func (s *setup) attributes() error {
	p := s.req.Process
	if p.SelinuxLabel != "" {
		if err := s.writeProc("thread-self/attr/exec", p.SelinuxLabel); err != nil {
			return fmt.Errorf("selinux label %q: %w", p.SelinuxLabel, err)
		}
	}
	if p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" {
		err := s.writeProc("thread-self/attr/apparmor/exec", "exec "+p.ApparmorProfile)
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("apparmor profile %q is not loaded", p.ApparmorProfile)
		}
		if err != nil {
			return fmt.Errorf("apparmor profile %q: %w", p.ApparmorProfile, err)
		}
	}
	if io := p.IOPriority; io != nil {
		class, err := ioClass(io.Class)
		if err != nil {
			return err
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, 1, 0, uintptr(class<<13|io.Priority)); errno != 0 {
			return fmt.Errorf("I/O priority %s %d: %w", io.Class, io.Priority, errno)
		}
	}
	if p.Scheduler != nil {
		attr, err := schedAttr(p.Scheduler)
		if err != nil {
			return err
		}
		if err := unix.SchedSetAttr(0, attr, 0); err != nil {
			return fmt.Errorf("scheduler %s: %w", p.Scheduler.Policy, err)
		}
	}
	if p.CPUs != "" {
		if err := setAffinity(p.CPUs); err != nil {
			return err
		}
	}
	if p.Personality != "" {
		const linux32 = 0x8
		domain := uintptr(0)
		if p.Personality == specs.PerLinux32 {
			domain = linux32
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, domain, 0, 0); errno != 0 {
			return fmt.Errorf("personality %s: %w", p.Personality, errno)
		}
	}
	if p.MemoryPolicy != nil {
		return setMemoryPolicy(p.MemoryPolicy)
	}
	return nil
}

func ioClass(c specs.IOPriorityClass) (int, error) {
	switch c {
	case specs.IOPRIO_CLASS_RT:
		return 1, nil
	case specs.IOPRIO_CLASS_BE:
		return 2, nil
	case specs.IOPRIO_CLASS_IDLE:
		return 3, nil
	}
	return 0, errs.Newf(errs.Invalid, "I/O priority class %q is not known", c)
}

func schedAttr(s *specs.Scheduler) (*unix.SchedAttr, error) {
	attr := &unix.SchedAttr{Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	switch s.Policy {
	case specs.SchedOther:
		attr.Policy = unix.SCHED_NORMAL
	case specs.SchedFIFO:
		attr.Policy = unix.SCHED_FIFO
	case specs.SchedRR:
		attr.Policy = unix.SCHED_RR
	case specs.SchedBatch:
		attr.Policy = unix.SCHED_BATCH
	case specs.SchedISO:
		attr.Policy = 4 // reserved by the kernel, which refuses it
	case specs.SchedIdle:
		attr.Policy = unix.SCHED_IDLE
	case specs.SchedDeadline:
		attr.Policy = unix.SCHED_DEADLINE
	default:
		return nil, errs.Newf(errs.Invalid, "scheduler policy %q is not known", s.Policy)
	}
	for _, f := range s.Flags {
		switch f {
		case specs.SchedFlagResetOnFork:
			attr.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
		case specs.SchedFlagReclaim:
			attr.Flags |= unix.SCHED_FLAG_RECLAIM
		case specs.SchedFlagDLOverrun:
			attr.Flags |= unix.SCHED_FLAG_DL_OVERRUN
		case specs.SchedFlagKeepPolicy:
			attr.Flags |= unix.SCHED_FLAG_KEEP_POLICY
		case specs.SchedFlagKeepParams:
			attr.Flags |= unix.SCHED_FLAG_KEEP_PARAMS
		case specs.SchedFlagUtilClampMin:
			attr.Flags |= unix.SCHED_FLAG_UTIL_CLAMP_MIN
		case specs.SchedFlagUtilClampMax:
			attr.Flags |= unix.SCHED_FLAG_UTIL_CLAMP_MAX
		default:
			return nil, errs.Newf(errs.Invalid, "scheduler flag %q is not known", f)
		}
	}
	return attr, nil
}

// setAffinity binds the calling thread to processors.
func setAffinity(list string) error {
	nums, err := ranges(list, 64*len(unix.CPUSet{}))
	if err != nil {
		return errs.Newf(errs.Invalid, "processors %q: %v", list, err)
	}
	var set unix.CPUSet
	for _, n := range nums {
		set.Set(n)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("processors %q: %w", list, err)
	}
	return nil
}

// ranges reads a list as the kernel writes them: "0-3,7". All are below limit.
func ranges(list string, limit int) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(last)
		}
		if err != nil || from < 0 || to < from || to >= limit {
			return nil, fmt.Errorf("%q is no range of numbers below %d", part, limit)
		}
		for n := from; n <= to; n++ {
			out = append(out, n)
		}
	}
	return out, nil
}

func memoryMode(p *specs.LinuxMemoryPolicy) (uintptr, error) {
	modes := []specs.MemoryPolicyModeType{ // in the kernel's order
		specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave, specs.MpolLocal, specs.MpolPreferredMany, specs.MpolWeightedInterleave,
	}
	mode := uintptr(0)
	for mode < uintptr(len(modes)) && modes[mode] != p.Mode {
		mode++
	}
	if mode == uintptr(len(modes)) {
		return 0, errs.Newf(errs.Invalid, "memory policy mode %q is not known", p.Mode)
	}
	for _, f := range p.Flags {
		switch f {
		case specs.MpolFNumaBalancing:
			mode |= unix.MPOL_F_NUMA_BALANCING
		case specs.MpolFRelativeNodes:
			mode |= unix.MPOL_F_RELATIVE_NODES
		case specs.MpolFStaticNodes:
			mode |= unix.MPOL_F_STATIC_NODES
		default:
			return 0, errs.Newf(errs.Invalid, "memory policy flag %q is not known", f)
		}
	}
	return mode, nil
}

const maxNodes = 1024

func setMemoryPolicy(p *specs.LinuxMemoryPolicy) error {
	mode, err := memoryMode(p)
	if err != nil {
		return err
	}
	var mask [maxNodes / 64]uint64
	ptr, size := unsafe.Pointer(nil), uintptr(0)
	if p.Nodes != "" {
		nodes, err := ranges(p.Nodes, maxNodes)
		if err != nil {
			return errs.Newf(errs.Invalid, "memory policy nodes: %v", err)
		}
		for _, n := range nodes {
			mask[n/64] |= 1 << (n % 64)
		}
		ptr, size = unsafe.Pointer(&mask[0]), maxNodes+1
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, mode, uintptr(ptr), size); errno != 0 {
		return fmt.Errorf("memory policy %s of nodes %q: %w", p.Mode, p.Nodes, errno)
	}
	return nil
}

// checkAttributes refuses what could only fail in the child.
func checkAttributes(p *specs.Process) error {
	if p.SelinuxLabel != "" && !selinuxEnabled() {
		return errs.Newf(errs.Unsupported, "selinux label %q: SELinux is not enabled on this host", p.SelinuxLabel)
	}
	if p.Scheduler != nil {
		if _, err := schedAttr(p.Scheduler); err != nil {
			return err
		}
	}
	if p.IOPriority != nil {
		if _, err := ioClass(p.IOPriority.Class); err != nil {
			return err
		}
	}
	if a := p.ExecCPUAffinity; a != nil {
		for _, list := range []string{a.Initial, a.Final} {
			if list == "" {
				continue
			}
			if _, err := ranges(list, 64*len(unix.CPUSet{})); err != nil {
				return errs.Newf(errs.Invalid, "processors %q: %v", list, err)
			}
		}
	}
	return nil
}
