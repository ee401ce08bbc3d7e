//go:build linux

package shim

import (
	"bytes"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// FuzzFrames takes a process's output apart in pieces of any size and looks
// whether a client that was attached gets each stream whole.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("hello\x00\x01\x00\x00world"), uint8(3), uint8(1))
	f.Add([]byte{}, uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, piece, which uint8) {
		h := newHub(nil, runtime.IO{})
		c := newAttached(nil, key{}, runtime.Attach{Stdout: true, Stderr: true}, h)
		want := [3][]byte{}
		for i := 0; len(data) > 0; i++ {
			n := min(len(data), int(piece)+1)
			stream := byte(1 + (int(which)>>(i%8))&1)
			c.put(stream, data[:n])
			want[stream] = append(want[stream], data[:n]...)
			data = data[n:]
		}
		out, errOut, err := runtimetest.Demux(bytes.NewReader(c.queue))
		if err != nil || out != string(want[1]) || errOut != string(want[2]) {
			t.Errorf("got %q, %q, %v, want %q, %q", out, errOut, err, want[1], want[2])
		}
	})
}

// FuzzConversation lets a client say whatever it likes to a shim that has one
// container, which has ended: every request but those that start a process is
// carried out, and the shim is there for the next client.
func FuzzConversation(f *testing.F) {
	say := func(bodies ...string) (all []byte) {
		for _, b := range bodies {
			all = append(all, frame(b)...)
		}
		return all
	}
	f.Add(say(`{"op":"hello"}`, `{"op":"list"}`, `{"op":"kill","id":"c","signal":9,"all":true}`, `{"op":"delete","id":"c"}`, `{"op":"pids","id":"c"}`))
	f.Add(say(`{"op":"update","id":"c","resources":{"memory":{"limit":1},"pids":{"limit":-1},"unified":{"memory.high":"1"},"devices":[{"access":"x"}]}}`, `{"op":"pause","id":"c"}`, `{"op":"resume","id":"c"}`))
	f.Add(say(`{"op":"resize","id":"c","execID":"e","height":1,"width":70000}`, `{"op":"checkpoint","id":"c","checkpoint":null}`, `{"op":"nope","id":"c"}`, `null`, `{"op":"delete","id":"other"}`))
	f.Add(say(`{"op":"attach","id":"c","want":{"stdout":true,"logs":true}}`))
	f.Add(say(`{"op":"attach","id":"later","want":{"stdin":true,"stdout":true},"io":{"tty":true}}`))
	f.Add(append(say(`{"op":"events"}`), 255, 255, 255, 255))
	f.Add(say(`{"op":"start","launch":{"id":"x","spec":{"process":{"args":["a"]},"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"},"namespaces":[{"type":"pid"}]}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for r := bytes.NewReader(data); ; {
			var req request
			if readMessage(r, &req) != nil || req.adopt(nil) != nil {
				break
			}
			switch req.Op {
			case "start", "exec", "upgrade": // as far as they can be followed without a process
				if l := req.Launch; l != nil && l.Spec != nil && l.Spec.Linux != nil && l.Spec.Linux.Seccomp != nil {
					_, _ = seccomp.Compile(l.Spec.Linux.Seccomp, seccomp.Native())
					_ = ownsPIDs(l.Spec)
				}
				return
			}
		}
		s := endedShim(t)
		ours, theirs := pair(t)
		done := make(chan struct{})
		go func() { defer close(done); s.connection(s.newLink(theirs)) }()
		_ = ours.SetDeadline(time.Now().Add(10 * time.Second))
		go func() { _, _ = io.Copy(io.Discard, ours) }()
		_, _ = ours.Write(data)
		_ = ours.CloseWrite()
		go func() { // a stream or events end when nobody is there
			time.Sleep(20 * time.Millisecond)
			_ = ours.Close()
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("the connection does not end after %q", data)
		}
		if resp := s.hello(); resp.Version != version {
			t.Errorf("it greets with %+v", resp)
		}
	})
}

// endedShim is a shim with a container "c" that has ended.
func endedShim(t *testing.T) *server {
	t.Helper()
	s, err := newServer(t.TempDir(), func(runtime.Log) (LogWriter, error) { return nil, nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Skip(err)
	}
	s.build = "fuzz"
	s.buildOnce.Do(func() {})
	group, err := s.host.Cgroups.Open("/skiff-fuzz-none/c")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{rec: record{ID: "c", Exit: &runtime.Exit{ID: "c"}}, hub: newHub(s.log, runtime.IO{}), done: make(chan struct{})}
	p.hub.close()
	close(p.done)
	c := &container{id: "c", dir: t.TempDir(), group: group, own: true, main: p, execs: make(map[string]*process), cleared: make(chan struct{})}
	close(c.cleared)
	s.containers["c"] = c
	return s
}
