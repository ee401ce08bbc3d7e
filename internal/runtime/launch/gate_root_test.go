//go:build root

package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func gated(t *testing.T, script string) (*box, string) {
	t.Helper()
	b := newBox(t, script)
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "gate")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	gate, err := NewGate(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gate.Close() })
	b.o.Gate = gate
	return b, path
}

func TestGateHoldsTheCommand(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*specs.Spec)
	}{
		{"plain", func(*specs.Spec) {}},
		{"user", func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1001} }},
		{"seccomp", func(s *specs.Spec) {
			profile, err := seccomp.GetDefaultProfile(s)
			if err != nil {
				t.Fatal(err)
			}
			s.Linux.Seccomp = profile
		}},
		{"seccomp and no new privileges", func(s *specs.Spec) {
			s.Process.NoNewPrivileges = true
			// What the gate needs of the thread that waits is little more than read.
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{
				Names: []string{"accept", "accept4", "socket", "connect", "recvfrom", "recvmsg", "sendto", "sendmsg", "dup3"}, Action: specs.ActKillProcess,
			}}}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, path := gated(t, "echo started")
			tc.set(b.l.Spec)
			if err := b.start(); err != nil {
				t.Fatal(err)
			}
			_ = b.o.Gate.Close() // the one who created it is gone
			if b.out.Len() > 0 {
				t.Error("the command runs before it was started")
			}
			if err := Release(t.Context(), path, ""); err != nil {
				t.Fatal(err)
			}
			if code := b.wait(); code != 0 || b.out.String() != "started\n" {
				t.Errorf("code %d, printed %q, %q", code, b.out.String(), b.err.String())
			}
			if err := Release(t.Context(), path, ""); !errs.Is(err, errs.Conflict) {
				t.Errorf("a second start: %v", err)
			}
		})
	}
}

func TestGateTellsWhyTheCommandFails(t *testing.T) {
	b, path := gated(t, "")
	b.l.Spec.Process.Args = []string{"/bin/broken"}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	_ = b.o.Gate.Close()
	var se *runtime.StartError
	if err := Release(t.Context(), path, ""); !errors.As(err, &se) || se.Code != 126 {
		t.Errorf("error is %v", err)
	}
	b.wait()
}

func TestGateTellsThatTheChildIsGone(t *testing.T) {
	b, path := gated(t, "echo started")
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	_ = b.o.Gate.Close()
	if err := unix.PidfdSendSignal(b.child.PidFD, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	b.wait()
	if err := Release(t.Context(), path, ""); !errs.Is(err, errs.Conflict) {
		t.Errorf("error is %v", err)
	}
	if err := Release(t.Context(), path+"x", ""); !errs.Is(err, errs.Conflict) {
		t.Errorf("without a gate: %v", err)
	}
	if b.out.Len() > 0 {
		t.Error("the command ran")
	}
}
