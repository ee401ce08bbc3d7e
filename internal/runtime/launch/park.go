//go:build linux

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// A parked child was cloned ahead of the container it is for: its runtime is up,
// it is in a process namespace of its own and in a control group that will be
// the container's. It has nothing of any container: no descriptor but its
// control socket, no mounts but the shim's, which it leaves only when it is told
// to, so that it sees what the host has mounted since and keeps nothing mounted
// that the host unmounts. It is told once, and never again. When the other end
// of its socket closes, it ends: that is also how a shim that is killed leaves
// none behind. (A signal on the parent's death would come too early: the parent,
// to the kernel, is the thread that cloned it.)

// parkedArg makes a launcher park: argv[1].
const parkedArg = "parked"

// Parked is such a child.
type Parked struct{ child *Child }

// Parkable tells whether a parked child can become this container's process.
// What it cannot are namespaces that are given by the clone, and what its parent
// prepares beside the clone.
func Parkable(l *runtime.Launch, prog *seccomp.Program) bool {
	s := l.Spec
	if s == nil || s.Linux == nil || s.Linux.IntelRdt != nil || len(s.Linux.NetDevices) > 0 || s.Hooks != nil || prog.Listens() {
		return false
	}
	if slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return len(m.UIDMappings) > 0 }) {
		return false
	}
	own := 0
	for _, n := range s.Linux.Namespaces {
		switch n.Type {
		case specs.PIDNamespace, specs.MountNamespace:
			if n.Path != "" {
				return false
			}
			own++
		case specs.CgroupNamespace:
			if n.Path != "" {
				return false
			}
		case specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace:
		default:
			return false
		}
	}
	return own == 2
}

// Park clones a child ahead of its use. Its control group must exist.
func (h *Host) Park(g *cgroup.Group) (*Parked, error) {
	s := &spawning{
		host: h, req: &request{}, group: g, files: &inherited{first: fdMore}, args: []string{InitName, parkedArg},
		ns: &namespaces{user: -1, time: -1, mount: -1, flags: unix.CLONE_NEWPID},
	}
	c, err := s.spawn()
	if err != nil {
		return nil, fmt.Errorf("park: %w", err)
	}
	return &Parked{c}, nil
}

// Alive tells whether it still waits.
func (p *Parked) Alive() bool {
	poll := []unix.PollFd{{Fd: int32(p.child.PidFD), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return n == 0 && err == nil
}

// PID is its number.
func (p *Parked) PID() int { return p.child.PID }

// End ends and reaps a child that has not become a container's.
func (p *Parked) End() {
	p.child.Abort()
	_ = unix.PidfdSendSignal(p.child.PidFD, unix.SIGKILL, nil, 0)
	for {
		// By descriptor: if somebody else has reaped it, its number may be another's.
		err := unix.Waitid(unix.P_PIDFD, p.child.PidFD, nil, unix.WEXITED, nil)
		switch {
		case errors.Is(err, unix.EAGAIN):
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.child.PidFD), Events: unix.POLLIN}}, -1)
			continue
		case errors.Is(err, unix.EINTR):
			continue
		}
		break
	}
	_ = unix.Close(p.child.PidFD)
}

// An arrival tells a parked child where to go, before it learns what to become.
// Its standard streams come along, and the namespaces to join.
type arrival struct {
	Join    []int // flags of setns, a descriptor each
	Unshare int
}

func (a *arrival) fields(c *coder) {
	list(c, &a.Join, num[int])
	num(c, &a.Unshare)
}

// occupy makes a parked child the one that would have been cloned.
func (s *spawning) occupy(p *Parked) (*Child, error) {
	null, err := s.host.null.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	a := &arrival{Unshare: int(s.ns.flags &^ unix.CLONE_NEWPID)}
	var fds []int
	for _, f := range s.streams {
		if f == nil {
			f = null
		}
		fds = append(fds, int(f.Fd()))
	}
	for _, j := range s.ns.join {
		a.Join, fds = append(a.Join, j.flags), append(fds, j.fd)
	}
	msg, err := encode(a)
	if err != nil {
		return nil, err
	}
	if _, _, err := p.child.conn.WriteMsgUnix(msg, unix.UnixRights(fds...), nil); err != nil {
		return nil, fmt.Errorf("instruct the parked child: %w", err)
	}
	p.child.req = s.req
	return p.child, nil
}

// arrive is the child's half: it waits, and goes where it is told to.
func arrive() error {
	r := &rightsFD{fd: fdControl}
	var a arrival
	if err := decode(r, &a); err != nil {
		os.Exit(1) // nobody needs it any more
	}
	if len(r.got) != 3+len(a.Join) {
		return errors.New("launcher: descriptors are missing")
	}
	for i, fd := range r.got {
		if i < 3 {
			if err := unix.Dup3(fd, i, 0); err != nil {
				return fmt.Errorf("standard streams: %w", err)
			}
		} else if err := unix.Setns(fd, a.Join[i-3]); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		_ = unix.Close(fd)
	}
	if err := unix.Unshare(a.Unshare); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	return tellMounts()
}

// tellMounts gives the parent the mount namespace, which shall outlive this
// process, however short its life.
func tellMounts() error {
	fd, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own mount namespace: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	msg, err := encode(&answer{Mounts: true})
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(fdControl, msg, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("hand over the mount namespace: %w", err)
	}
	return nil
}

// rightsFD reads a socket and keeps the descriptors that come along.
type rightsFD struct {
	fd  int
	got []int
}

func (r *rightsFD) Read(p []byte) (int, error) {
	oob := make([]byte, 256)
	for {
		n, oobn, _, _, err := unix.Recvmsg(r.fd, p, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return n, err
		}
		for _, m := range msgs {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return n, err
			}
			r.got = append(r.got, fds...)
		}
		return n, nil
	}
}
