//go:build linux

package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// Both ends write whole messages to a stream socket: 4 bytes of length, then
// the fields in order. Both are the same program, so nothing names or numbers
// them. encoding/json would cost the child, a fresh process, most of a
// millisecond to learn about these types.

const maxMessage = 16 << 20

// A message walks its own fields; the coder writes them, or reads them.
type message interface{ fields(c *coder) }

type coder struct {
	buf     []byte
	reading bool
	bad     bool // what was read is no such message
}

func encode(m message) ([]byte, error) {
	c := &coder{buf: make([]byte, 4, 8192)}
	m.fields(c)
	size := len(c.buf) - 4
	if size > maxMessage {
		return nil, fmt.Errorf("message of %d bytes is too long", size)
	}
	binary.LittleEndian.PutUint32(c.buf, uint32(size)) //nolint:gosec // ≤ maxMessage
	return c.buf, nil
}

func decode(r io.Reader, m message) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxMessage {
		return fmt.Errorf("message of %d bytes is too long", n)
	}
	c := &coder{buf: make([]byte, n), reading: true}
	if _, err := io.ReadFull(r, c.buf); err != nil {
		return err
	}
	m.fields(c)
	if c.bad || len(c.buf) > 0 {
		return errors.New("malformed message")
	}
	return nil
}

// num codes any number, in as few bytes as it takes.
func num[T ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64](c *coder, p *T) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, uint64(*p)) //nolint:gosec // the same bits, back and forth
		return
	}
	v, n := binary.Uvarint(c.buf)
	if n <= 0 {
		c.bad, c.buf = true, nil
		return
	}
	*p, c.buf = T(v), c.buf[n:]
}

func (c *coder) flag(p *bool) {
	var n uint
	if *p {
		n = 1
	}
	num(c, &n)
	*p = n != 0
}

// size codes how many of something follow, each of at least one byte.
func (c *coder) size(n int) int {
	num(c, &n)
	if c.reading && (n < 0 || n > len(c.buf)) {
		c.bad, c.buf = true, nil
		return 0
	}
	return n
}

func text[T ~string | ~[]byte](c *coder, p *T) {
	n := c.size(len(*p))
	if !c.reading {
		c.buf = append(c.buf, *p...)
		return
	}
	*p, c.buf = T(c.buf[:n]), c.buf[n:]
}

// list codes a slice; an empty one comes back as nil.
func list[T any](c *coder, p *[]T, item func(*coder, *T)) {
	n := c.size(len(*p))
	if c.reading {
		*p = nil
		if n > 0 {
			*p = make([]T, n)
		}
	}
	for i := range *p {
		item(c, &(*p)[i])
	}
}

func texts(c *coder, p *[]string) { list(c, p, text[string]) }

// maybe codes what a pointer points to, if it does.
func maybe[T any](c *coder, p **T, item func(*coder, *T)) {
	has := *p != nil
	c.flag(&has)
	if !has {
		*p = nil
		return
	}
	if c.reading {
		*p = new(T)
	}
	item(c, *p)
}

func (a *answer) fields(c *coder) {
	c.flag(&a.Console)
	c.flag(&a.Mounts)
	c.flag(&a.Listener)
	c.flag(&a.Hooks)
	c.flag(&a.Reaper)
	c.flag(&a.Created)
	c.flag(&a.Ready)
	num(c, &a.Code)
	text(c, &a.Text)
	c.flag(&a.Invalid)
}

func (r *request) fields(c *coder) {
	text(c, &r.ID)
	c.flag(&r.Exec)
	maybe(c, &r.Spec, worldFields)
	maybe(c, &r.Process, commandFields)
	maybe(c, &r.Rootfs, rootfsFields)
	maybe(c, &r.User, func(c *coder, u *runtime.User) {
		text(c, &u.Spec)
		texts(c, &u.Groups)
	})
	maybe(c, &r.Seccomp, func(c *coder, p *seccomp.Program) {
		text(c, &p.Code)
		num(c, &p.Flags)
		text(c, &p.Listener)
		text(c, &p.Metadata)
	})
	c.flag(&r.ByPage)
	c.flag(&r.TTY)
	num(c, &r.Console[0])
	num(c, &r.Console[1])
	c.flag(&r.Init)
	c.flag(&r.NetNS)
	c.flag(&r.OwnIO)
	text(c, &r.MountPoint)
	list(c, &r.Cgroups, func(c *coder, m *cgroup.Mount) {
		text(c, &m.Name)
		text(c, &m.Host)
		texts(c, &m.Options)
	})
	text(c, &r.CgroupPath)
	text(c, &r.PIDsFile)
	text(c, &r.PIDsMax)
	maybe(c, &r.Hooks, hookFields)
	c.flag(&r.Shared)
	num(c, &r.Gate)
	num(c, &r.Files[0])
	num(c, &r.Files[1])
	c.flag(&r.NoNewKeyring)
	num(c, &r.MountNS)
	num(c, &r.GroupNS)
	list(c, &r.Tasks, num[int])
	num(c, &r.Made.Root)
	list(c, &r.Made.Sources, num[int])
	c.flag(&r.Made.Dev)
	num(c, &r.Made.PIDs)
	c.flag(&r.Made.Sysctls)
	c.flag(&r.UserNS)
}

func hookFields(c *coder, h *hookWork) {
	c.flag(&h.Runtime)
	list(c, &h.CreateContainer, oneHook)
	list(c, &h.StartContainer, oneHook)
	st := &h.State
	text(c, &st.Version)
	text(c, &st.ID)
	text(c, &st.Status)
	num(c, &st.Pid)
	text(c, &st.Bundle)
	pairs(c, &st.Annotations)
}

func oneHook(c *coder, h *specs.Hook) {
	text(c, &h.Path)
	texts(c, &h.Args)
	texts(c, &h.Env)
	maybe(c, &h.Timeout, num[int])
}

func rootfsFields(c *coder, r *runtime.Rootfs) {
	texts(c, &r.Lower)
	text(c, &r.Upper)
	text(c, &r.Work)
	c.flag(&r.Volatile)
	text(c, &r.Bind)
	c.flag(&r.Inside)
}

func worldFields(c *coder, w *world) {
	text(c, &w.Root.Path)
	c.flag(&w.Root.Readonly)
	text(c, &w.Hostname)
	text(c, &w.Domainname)
	list(c, &w.Mounts, func(c *coder, m *mount) {
		text(c, &m.Destination)
		text(c, &m.Type)
		text(c, &m.Source)
		texts(c, &m.Options)
	})
	k := &w.Linux
	pairs(c, &k.Sysctl)
	list(c, &k.Namespaces, func(c *coder, n *specs.LinuxNamespace) {
		text(c, &n.Type)
		text(c, &n.Path)
	})
	list(c, &k.Devices, deviceFields)
	text(c, &k.RootfsPropagation)
	texts(c, &k.MaskedPaths)
	texts(c, &k.ReadonlyPaths)
	text(c, &k.MountLabel)
}

func pairs(c *coder, p *map[string]string) {
	type pair struct{ key, value string }
	var all []pair
	for k, v := range *p {
		all = append(all, pair{k, v})
	}
	list(c, &all, func(c *coder, p *pair) {
		text(c, &p.key)
		text(c, &p.value)
	})
	if c.reading && len(all) > 0 {
		*p = make(map[string]string, len(all))
		for _, kv := range all {
			(*p)[kv.key] = kv.value
		}
	}
}

func deviceFields(c *coder, d *specs.LinuxDevice) {
	text(c, &d.Path)
	text(c, &d.Type)
	num(c, &d.Major)
	num(c, &d.Minor)
	maybe(c, &d.FileMode, num[os.FileMode])
	maybe(c, &d.UID, num[uint32])
	maybe(c, &d.GID, num[uint32])
}

func commandFields(c *coder, p *command) {
	maybe(c, &p.ConsoleSize, func(c *coder, b *specs.Box) {
		num(c, &b.Height)
		num(c, &b.Width)
	})
	num(c, &p.User.UID)
	num(c, &p.User.GID)
	maybe(c, &p.User.Umask, num[uint32])
	list(c, &p.User.AdditionalGids, num[uint32])
	text(c, &p.User.Username)
	texts(c, &p.Args)
	texts(c, &p.Env)
	text(c, &p.Cwd)
	maybe(c, &p.Capabilities, func(c *coder, l *specs.LinuxCapabilities) {
		for _, set := range []*[]string{&l.Bounding, &l.Effective, &l.Inheritable, &l.Permitted, &l.Ambient} {
			texts(c, set)
		}
	})
	list(c, &p.Rlimits, func(c *coder, r *specs.POSIXRlimit) {
		text(c, &r.Type)
		num(c, &r.Hard)
		num(c, &r.Soft)
	})
	c.flag(&p.NoNewPrivileges)
	text(c, &p.ApparmorProfile)
	maybe(c, &p.OOMScoreAdj, num[int])
	maybe(c, &p.IOPriority, func(c *coder, p *specs.LinuxIOPriority) {
		text(c, &p.Class)
		num(c, &p.Priority)
	})
	maybe(c, &p.Scheduler, func(c *coder, s *specs.Scheduler) {
		text(c, &s.Policy)
		num(c, &s.Nice)
		num(c, &s.Priority)
		list(c, &s.Flags, text[specs.LinuxSchedulerFlag])
		num(c, &s.Runtime)
		num(c, &s.Deadline)
		num(c, &s.Period)
	})
	text(c, &p.SelinuxLabel)
	text(c, &p.CPUs)
	text(c, &p.Personality)
	maybe(c, &p.MemoryPolicy, func(c *coder, p *specs.LinuxMemoryPolicy) {
		text(c, &p.Mode)
		text(c, &p.Nodes)
		list(c, &p.Flags, text[specs.MemoryPolicyFlagType])
	})
}
