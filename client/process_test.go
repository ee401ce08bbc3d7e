package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestCopyProcess(t *testing.T) {
	frame := func(kind byte, text string) string {
		return string([]byte{kind, 0, 0, 0, 0, 0, byte(len(text) >> 8), byte(len(text))}) + text
	}
	for name, tc := range map[string]struct {
		in, out, err string
		code         int // -1: unknown
		fails        string
	}{
		"all":         {in: frame(1, "a") + frame(2, "b") + frame(1, "c") + frame(16, `{"ExitCode":3}`), out: "ac", err: "b", code: 3},
		"unknown":     {in: frame(16, `{"ExitCode":null}`), code: -1},
		"empty frame": {in: frame(1, "") + frame(16, `{"ExitCode":0}`)},
		"no end":      {in: frame(1, "a"), out: "a", code: -1, fails: "the daemon went away"},
		"half a head": {in: "\x01\x00", code: -1, fails: "the daemon went away"},
		"cut off":     {in: frame(1, "abc")[:9], out: "a", code: -1, fails: "the daemon went away"},
		"end cut off": {in: frame(16, `{"ExitCode":0}`)[:12], code: -1, fails: "the daemon went away"},
		"the daemon":  {in: frame(3, "oh"), code: -1, fails: "error from daemon in stream: oh"},
		"other kind":  {in: frame(9, "oh"), code: -1, fails: "unrecognized stream: 9"},
		"no document": {in: frame(16, `{`), code: -1, fails: "the stream's last frame"},
		"long end":    {in: "\x10\x00\x00\x00\x01\x00\x00\x00", code: -1, fails: "16777216 bytes"},
	} {
		var out, errOut strings.Builder
		code, err := copyProcess(bufio.NewReader(strings.NewReader(tc.in)), &out, &errOut)
		got := -1
		if code != nil {
			got = *code
		}
		if out.String() != tc.out || errOut.String() != tc.err || got != tc.code {
			t.Errorf("%s: %q %q %d", name, out.String(), errOut.String(), got)
		}
		if (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCopyProcess(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x01a\x10\x00\x00\x00\x00\x00\x00\x0e{\"ExitCode\":0}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		code, err := copyProcess(bufio.NewReader(bytes.NewReader(in)), &out, &out)
		if code != nil && err != nil || out.Len() > len(in) {
			t.Errorf("%v %v, %d bytes of %d", code, err, out.Len(), len(in))
		}
	})
}

// A daemon without the process protocol only declares the exec.
func TestExecRunOfOthers(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/nosuch/") {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"No such container: nosuch"}`)
			return
		}
		var in container.ExecCreateRequest
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Cmd) != 1 {
			t.Errorf("%v %v", in, err)
		}
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(container.ExecCreateResponse{ID: "e1"})
	}))
	defer srv.Close()
	c, err := New(WithHost("tcp://" + srv.Listener.(*net.TCPListener).Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req := container.ExecCreateRequest{Cmd: []string{"true"}}
	if id, conn, err := c.ExecRun(t.Context(), "c", req); id != "e1" || conn != nil || err != nil {
		t.Errorf("%q %v %v", id, conn, err)
	}
	if _, _, err := c.ExecRun(t.Context(), "nosuch", req); err == nil || !strings.Contains(err.Error(), "No such container: nosuch") {
		t.Errorf("no container: %v", err)
	}
}
