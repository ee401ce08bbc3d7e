//go:build linux

package shim

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

func frame(body string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// A request that none of the checks thought of costs itself, not the shim.
func TestPanicIsAnAnswer(t *testing.T) {
	var log strings.Builder
	s := &server{log: slog.New(slog.NewTextHandler(&log, nil)), containers: map[string]*container{"x": {main: &process{}}}}
	resp, err := s.handled(t.Context(), &request{Op: "pids", ID: "x"}) // of no control group
	if resp != nil || !errs.Is(err, errs.Internal) || !strings.Contains(err.Error(), "pids") {
		t.Errorf("%+v, %v", resp, err)
	}
	if !strings.Contains(log.String(), "verbs.go") {
		t.Errorf("the log says not where: %s", log.String())
	}
}

// FuzzMessage feeds the decoder what a client might send, and what it lets pass
// to all that looks at a request before anything is made.
func FuzzMessage(f *testing.F) {
	f.Add(frame(`{"op":"hello"}`))
	f.Add(frame(`{"op":"start","launch":{"id":"x","spec":{"process":{"args":["true"]}}},"netns":true,"stdio":[true,false,true]}`))
	f.Add(frame(`{"op":"kill","signal":-1}`))
	f.Add(frame(`{"op":"start","launch":{"id":"x","external":{"name":"r","path":"r"},"spec":{"root":{"path":"/x"},"process":null,"linux":{}}}}`))
	f.Add(frame(`{"op":"start","launch":{"id":"x","rootfs":{"lower":["/x"]},"spec":{"process":{"args":["x"]},"linux":{"cgroupsPath":"/x","namespaces":[{"type":"user"}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}},"hooks":{}}}}`))
	f.Add(frame(`{"op":"exec","exec":{"containerID":"x","execID":"y","process":null}}`))
	f.Add([]byte{255, 255, 255, 255, 0})
	f.Add([]byte{4, 0, 0, 0, 'n', 'u', 'l', 'l'})
	f.Fuzz(func(t *testing.T, data []byte) {
		var req request
		if readMessage(bytes.NewReader(data), &req) != nil {
			return
		}
		_ = req.adopt(nil)
		_ = validID(req.ID)
		s := &server{host: &launch.Host{Cgroups: &cgroup.System{}}, profiles: make(map[specs.LinuxSeccompAction]*seccomp.Program)}
		if checkExec(req.Exec) == nil {
			_ = req.Exec.Process.Args[0]
			_ = launch.CheckExec(req.Exec)
			_, _ = s.profile(req.Exec.Seccomp)
		}
		if checkLaunch(req.Launch) == nil {
			l := req.Launch
			_ = l.Spec.Process.Args[0]
			tellExternal(l)
			prog, _ := s.profile(l.Spec.Linux.Seccomp)
			if g, err := s.group(l.Spec); err == nil {
				_ = kindOf(l, g)
			}
			_, _, _ = launch.Parkable(l, prog), ownsPIDs(l.Spec), aftermathOf(l)
			_ = launch.Check(l)
		}
	})
}

func TestDescriptorsTravel(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	req := request{Op: "start", Launch: &runtime.Launch{ID: "x"}, NetNS: true, Stdio: [3]bool{false, true, false}}
	if err := send(a, &req, int(r.Fd()), int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	var got request
	files, err := receive(b, &got)
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	defer closeAll(files)
	if err := got.adopt(files); err != nil {
		t.Fatal(err)
	}
	if got.Launch.NetNS != files[0] || got.Launch.Stdio[1] != files[1] || got.Launch.Stdio[0] != nil {
		t.Errorf("adopted %+v", got.Launch)
	}
	if err := got.adopt(files[:1]); !errs.Is(err, errs.Invalid) {
		t.Errorf("a missing descriptor gives %v", err)
	}
}

func TestErrorsTravel(t *testing.T) {
	for _, err := range []error{errs.New(errs.Conflict, "busy"), &runtime.StartError{Code: 127, Text: "not found"}, &runtime.StartError{Code: 125, Text: "no user", Invalid: true}} {
		back := failure(err).err()
		if back.Error() != err.Error() || errs.KindOf(back) != errs.KindOf(err) {
			t.Errorf("%v comes back as %v", err, back)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "a\x00", "-x", string(make([]byte, 200))} {
		if validID(id) == nil {
			t.Errorf("%q is taken", id)
		}
	}
	if err := validID("ab-C_1.2"); err != nil {
		t.Error(err)
	}
}

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer func() { _ = f.Close() }()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}
