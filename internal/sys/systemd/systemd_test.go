package systemd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A fakeBus answers each call as answer says, and records what was asked.
type fakeBus struct {
	t      *testing.T
	asked  chan *message
	answer func(*message) []*message
}

func newBus(t *testing.T, name string, answer func(*message) []*message) (*fakeBus, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := &fakeBus{t: t, asked: make(chan *message, 16), answer: answer}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return f, path
}

func (f *fakeBus) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	line, _ := r.ReadString('\n')
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if line != "\x00AUTH EXTERNAL "+uid+"\r\n" {
		_, _ = io.WriteString(conn, "REJECTED EXTERNAL\r\n")
		return
	}
	_, _ = io.WriteString(conn, "OK 0123456789abcdef\r\n")
	if line, _ = r.ReadString('\n'); line != "BEGIN\r\n" {
		f.t.Errorf("said %q", line)
		return
	}
	b := &bus{conn: conn, r: r}
	for {
		m, err := b.receive()
		if err != nil {
			return
		}
		f.asked <- m
		for i, a := range f.answer(m) {
			a.serial = uint32(100 + i)
			if a.kind != signal && a.replySerial == 0 {
				a.replySerial = m.serial
			}
			data, err := a.encode()
			if err != nil {
				f.t.Error(err)
			}
			if _, err := conn.Write(data); err != nil {
				return
			}
		}
	}
}

const job = "/org/freedesktop/systemd1/job/7"

func removed(job, result string) *message {
	return &message{
		kind: signal, path: managerPath, iface: managerName, member: "JobRemoved", signature: "uoss",
		body: body(func(e *encoder) { e.u32(7); e.string(job); e.string("x.scope"); e.string(result) }),
	}
}

func started() *message {
	return &message{kind: methodReturn, signature: "o", body: body(func(e *encoder) { e.string(job) })}
}

func fault(name string) *message {
	return &message{kind: errorReply, errorName: name, signature: "s", body: body(func(e *encoder) { e.string("no") })}
}

func TestStartScope(t *testing.T) {
	other := removed("/org/freedesktop/systemd1/job/6", "done")
	for name, tc := range map[string]struct {
		answers []*message
		want    string // part of the error
	}{
		"done":             {[]*message{started(), other, removed(job, "done")}, ""},
		"done before":      {[]*message{removed(job, "done"), started()}, ""},
		"failed":           {[]*message{started(), removed(job, "failed")}, `the job ended with "failed"`},
		"refused":          {[]*message{fault("org.freedesktop.systemd1.UnitExists")}, "UnitExists"},
		"not an answer":    {[]*message{{kind: methodReturn, replySerial: 99}, started(), removed(job, "done")}, ""},
		"strange answer":   {[]*message{{kind: methodReturn, signature: "u", body: make([]byte, 4)}}, "malformed"},
		"strange signal":   {[]*message{started(), {kind: signal, iface: managerName, member: "JobRemoved", signature: "s", body: body(func(e *encoder) { e.string("") })}}, "malformed"},
		"answer cut short": {[]*message{{kind: methodReturn, signature: "o", body: []byte{9, 0, 0, 0, 'x'}}}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, path := newBus(t, "private", func(*message) []*message { return tc.answers })
			m := &Manager{private: path}
			err := m.StartScope(t.Context(), "x.scope", []Property{
				{"Slice", "system.slice"},
				{"Delegate", true},
				{"TasksMax", uint64(5)},
				{"PIDs", []uint32{1, 2}},
				{"AllowedCPUs", []byte{3}},
				{"IOReadBandwidthMax", []DeviceLimit{{"/dev/block/8:0", 9}, {"/dev/block/8:1", 1}}},
			})
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestPropertiesOnTheWire(t *testing.T) {
	f, path := newBus(t, "private", func(*message) []*message { return []*message{{kind: methodReturn}} })
	m := &Manager{private: path}
	if err := m.SetProperties(t.Context(), "x.scope", []Property{{"TasksMax", uint64(5)}}); err != nil {
		t.Fatal(err)
	}
	got := <-f.asked
	want := []byte("\x07\x00\x00\x00x.scope\x00" + "\x01\x00\x00\x00" + // name, runtime
		"\x18\x00\x00\x00" + "\x00\x00\x00\x00" + // length, to the next structure
		"\x08\x00\x00\x00TasksMax\x00" + "\x01t\x00" + "\x05\x00\x00\x00\x00\x00\x00\x00")
	if !bytes.Equal(got.body, want) || got.signature != "sba(sv)" || got.destination != destination {
		t.Errorf("%q\nwant %q", got.body, want)
	}
	if err := m.SetProperties(t.Context(), "x.scope", []Property{{"X", 5}}); err == nil {
		t.Error("an int was sent")
	}
}

func TestGoneIsGone(t *testing.T) {
	_, path := newBus(t, "private", func(*message) []*message { return []*message{fault("org.freedesktop.systemd1.NoSuchUnit")} })
	m := &Manager{private: path}
	if err := m.Stop(t.Context(), "x.scope"); err != nil {
		t.Error(err)
	}
	if err := m.ResetFailed(t.Context(), "x.scope"); err != nil {
		t.Error(err)
	}
	if err := m.SetProperties(t.Context(), "x.scope", nil); !Is(err, "NoSuchUnit") {
		t.Error(err)
	}
}

func TestByWayOfTheBroker(t *testing.T) {
	f, path := newBus(t, "broker", func(m *message) []*message {
		if m.member == "StopUnit" {
			return []*message{started(), removed(job, "done")}
		}
		return []*message{{kind: methodReturn}}
	})
	m := &Manager{private: path + "-none", broker: path}
	if err := m.Stop(t.Context(), "x.scope"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(f.asked) > 0 {
		got = append(got, (<-f.asked).member)
	}
	if diff := cmp.Diff([]string{"Hello", "AddMatch", "Subscribe", "StopUnit"}, got); diff != "" {
		t.Error(diff)
	}
	if err := (&Manager{private: path + "-none", broker: path + "-none"}).Stop(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "systemd is not there") {
		t.Error(err)
	}
}

func TestGivesUp(t *testing.T) {
	_, path := newBus(t, "private", func(*message) []*message { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := (&Manager{private: path}).Stop(ctx, "x.scope"); err == nil {
		t.Error("waited for ever, and then no error")
	}
}

func TestNames(t *testing.T) {
	for slice, want := range map[string]string{
		"system.slice": "/system.slice", "a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice", "-.slice": "",
		"": "!", "a": "!", ".slice": "!", "a--b.slice": "!", "-a.slice": "!", "a/b.slice": "!", "../x.slice": "!", "a b.slice": "!",
	} {
		got, err := SlicePath(slice)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", slice, got, want)
		}
	}
	for _, tc := range [][3]string{{"skiff", "ab", "skiff-ab.scope"}, {"", "ab", "ab.scope"}, {"x", "", "!"}, {"x", "a/b", "!"}} {
		got, err := ScopeName(tc[0], tc[1])
		if err != nil {
			got = "!"
		}
		if got != tc[2] {
			t.Errorf("%v: %q", tc, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []*message{started(), removed(job, "done"), fault("a.b")} {
		data, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		_, _ = m.args("uoss")
		if m.order.Uint32([]byte{1, 0, 0, 0}) != 1 {
			return // written little-endian only
		}
		again, err := m.encode()
		if err != nil {
			return
		}
		if _, err := decode(again); err != nil {
			t.Fatalf("cannot read %q, written from %q: %v", again, data, err)
		}
	})
}
