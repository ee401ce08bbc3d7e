//go:build root

package launch

import (
	"encoding/json"
	"net"
	"path/filepath"
	goruntime "runtime"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type verdict struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// agent takes one listener, and answers every call with an error of its own.
func agent(t *testing.T, path string) <-chan specs.ContainerProcessState {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	out := make(chan specs.ContainerProcessState, 1)
	go func() {
		defer close(out)
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		buf, oob := make([]byte, 8192), make([]byte, 256)
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
		var state specs.ContainerProcessState
		if err := json.Unmarshal(buf[:n], &state); err != nil {
			t.Error(err)
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(msgs) != 1 {
			t.Error(err)
			return
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil || len(fds) != 1 {
			t.Error(err)
			return
		}
		out <- state
		defer func() { _ = unix.Close(fds[0]) }()
		for {
			var n notification
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
				return
			}
			v := verdict{id: n.id, err: -int32(unix.EXDEV)}
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&v)))
		}
	}()
	return out
}

func TestSeccompListener(t *testing.T) {
	for _, noNew := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "agent")
		states := agent(t, path)
		b := newBox(t, "mkdir /x 2>&1")
		b.l.Spec.Process.NoNewPrivileges = noNew
		b.l.Spec.Annotations = map[string]string{"a": "b"}
		b.o.Bundle = "/bundle"
		b.l.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "some data",
			Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv},
			// Such calls the launcher itself makes, also to hand the listener over.
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "sendmsg", "nanosleep"}, Action: specs.ActNotify}},
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		pid := b.child.PID
		b.wait()
		if out := b.out.String(); out != "mkdir: can't create directory '/x': Invalid cross-device link\n" && out != "mkdir: can't create directory '/x': Cross-device link\n" {
			t.Errorf("printed %q", out)
		}
		s := <-states
		if s.Version != specs.Version || len(s.Fds) != 1 || s.Fds[0] != specs.SeccompFdName || s.Pid != pid || s.Metadata != "some data" ||
			s.State.ID != b.l.ID || s.State.Status != specs.StateCreating || s.State.Pid != pid || s.State.Bundle != "/bundle" || s.State.Annotations["a"] != "b" {
			t.Errorf("state %+v", s)
		}
	}
}

func TestSeccompListenerRefusals(t *testing.T) {
	b := newBox(t, "true")
	b.l.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: filepath.Join(t.TempDir(), "nobody"),
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}},
	}
	b.fails("seccomp listener")
	b = newBox(t, "true")
	b.l.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	b.fails("needs a listenerPath")
}

func TestSeccompFlags(t *testing.T) {
	actions := []specs.LinuxSyscall{{Names: []string{"getcwd"}, Action: specs.ActLog}, {Names: []string{"mkdir"}, Action: specs.ActTrap}}
	b := newBox(t, "grep Seccomp: /proc/self/status | cut -f 2; pwd; mkdir /tmp/x; echo $?")
	b.l.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Syscalls: actions,
		Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, "SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagWaitKillableRecv},
	}
	b.prints("2\n/\n159\n") // what is trapped ends by signal 31
	for want, flags := range map[uint64][]specs.LinuxSeccompFlag{
		0:                            {specs.LinuxSeccompFlagSpecAllow},
		unix.SECCOMP_FILTER_FLAG_LOG: {specs.LinuxSeccompFlagLog},
	} {
		b := newBox(t, "sleep 1000")
		b.l.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: actions, Flags: flags}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		if got := filterFlags(t, b.child.PID); got != want {
			t.Errorf("%v: the kernel tells flags %#x, want %#x", flags, got, want)
		}
	}
}

// filterFlags asks the kernel for the flags of a process's filter: of all, it
// tells SECCOMP_FILTER_FLAG_LOG only.
func filterFlags(t *testing.T, pid int) uint64 {
	t.Helper()
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.PtraceDetach(pid) }()
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	const getMetadata = 0x420d // PTRACE_SECCOMP_GET_METADATA
	var about struct{ filter, flags uint64 }
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getMetadata, uintptr(pid), unsafe.Sizeof(about), uintptr(unsafe.Pointer(&about)), 0, 0)
	if errno == unix.EIO {
		t.Skip("the kernel tells nothing of filters")
	}
	if errno != 0 {
		t.Fatal(errno)
	}
	return about.flags
}
