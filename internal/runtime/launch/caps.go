//go:build linux

package launch

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// In the kernel's order: the index is the number.
const capNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE " +
	"AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// capSet is a set of capabilities, one bit each.
type capSet uint64

// capsOf is the set of those that are known.
func capsOf(names []string) (set capSet, unknown []string) {
	known := strings.Fields(capNames)
	for _, n := range names {
		if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(n, "CAP_"+k) }); i >= 0 {
			set |= 1 << i
		} else {
			unknown = append(unknown, n)
		}
	}
	return set, unknown
}

// Ungrantable lists the capabilities that a process asks for and that it will
// not have: those nobody knows and, but for a user namespace, which has all of
// its own, those that this program may not give.
func Ungrantable(c *specs.LinuxCapabilities, userns bool) (out []string) {
	if c == nil {
		return nil
	}
	have := bounding()
	for _, names := range [][]string{c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient} {
		for _, n := range names {
			set, unknown := capsOf([]string{n})
			if (len(unknown) > 0 || !userns && set&^have != 0) && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

type capabilities struct{ bounding, effective, permitted, inheritable, ambient capSet }

func parseCaps(c *specs.LinuxCapabilities) *capabilities {
	if c == nil {
		c = &specs.LinuxCapabilities{}
	}
	out := &capabilities{}
	for _, f := range []struct {
		to   *capSet
		from []string
	}{{&out.bounding, c.Bounding}, {&out.effective, c.Effective}, {&out.permitted, c.Permitted}, {&out.inheritable, c.Inheritable}, {&out.ambient, c.Ambient}} {
		*f.to, _ = capsOf(f.from) // whoever made this process has told of the others
	}
	// What this launcher itself lacks cannot be given; a container that asks for
	// everything gets everything there is.
	have := bounding()
	out.bounding &= have
	out.permitted &= have
	out.effective &= out.permitted
	out.inheritable &= have
	out.ambient &= out.permitted & out.inheritable
	return out
}

func bounding() capSet {
	var set capSet
	for c := range 64 {
		r, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			break // the first number the kernel does not know
		}
		if r == 1 {
			set |= 1 << c
		}
	}
	return set
}

// dropBounding takes from this thread, for good, what may never be gained.
func (c *capabilities) dropBounding() error {
	have := bounding()
	for i := range 64 {
		if have&^c.bounding&(1<<i) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", i, err)
		}
	}
	return nil
}

func (c *capabilities) apply() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(c.effective), Permitted: uint32(c.permitted), Inheritable: uint32(c.inheritable)},
		{Effective: uint32(c.effective >> 32), Permitted: uint32(c.permitted >> 32), Inheritable: uint32(c.inheritable >> 32)},
	}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for i := range 64 {
		if c.ambient&(1<<i) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(i), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", i, err)
		}
	}
	return nil
}
