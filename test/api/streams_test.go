//go:build root

package api

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"golang.org/x/net/websocket"
)

// hijack takes a connection over by an upgrade.
func (e *engine) hijack(path, body string) (*net.UnixConn, *bufio.Reader) {
	e.t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: e.Sock, Net: "unix"})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: skiff\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	r := bufio.NewReader(c)
	rep, err := http.ReadResponse(r, nil)
	if err != nil || rep.StatusCode != http.StatusSwitchingProtocols {
		e.t.Fatalf("%s: %v %v", path, rep, err)
	}
	return c, r
}

func (e *engine) run(name, body string) {
	e.t.Helper()
	id := e.must("POST", "/containers/create?name="+name, body, "Id")
	e.must("POST", "/containers/"+id+"/start", "", "")
}

// TestStreams: attach and exec, by upgrade and by websocket, with frames and
// without; a client that stops sending still gets what comes.
func TestStreams(t *testing.T) {
	e := start(t)
	const sorter = `{"Image":"img","Cmd":["sh","-c","echo to-err >&2; cat; echo end"],"OpenStdin":true,"StdinOnce":true%s}`
	t.Run("frames and half-close", func(t *testing.T) {
		e.t = t
		e.must("POST", "/containers/create?name=one", fmt.Sprintf(sorter, ""), "")
		c, r := e.hijack("/containers/one/attach?stdin=1&stdout=1&stderr=1&stream=1", "")
		e.must("POST", "/containers/one/start", "", "")
		_, _ = io.WriteString(c, "input\n")
		_ = c.CloseWrite()
		var out, errOut bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, &errOut, r); err != nil {
			t.Fatal(err)
		}
		if out.String() != "input\nend\n" || errOut.String() != "to-err\n" {
			t.Errorf("stdout %q, stderr %q", out.String(), errOut.String())
		}
	})
	t.Run("a terminal is raw", func(t *testing.T) {
		e.t = t
		e.must("POST", "/containers/create?name=two", fmt.Sprintf(sorter, `,"Tty":true`), "")
		c, r := e.hijack("/containers/two/attach?stdin=1&stdout=1&stderr=1&stream=1", "")
		e.must("POST", "/containers/two/start", "", "")
		_, _ = io.WriteString(c, "input\n\x04")
		out, err := io.ReadAll(r)
		if err != nil || !strings.Contains(string(out), "to-err\r\n") || !strings.HasSuffix(string(out), "input\r\nend\r\n") {
			t.Errorf("%q %v", out, err)
		}
	})
	t.Run("detach keys", func(t *testing.T) {
		e.t = t
		e.run("three", `{"Image":"img","Cmd":["cat"],"OpenStdin":true,"Tty":true}`)
		c, r := e.hijack("/containers/three/attach?stdin=1&stdout=1&stream=1&detachKeys=ctrl-a,q", "")
		_, _ = io.WriteString(c, "\x01q")
		if _, err := io.ReadAll(r); err != nil {
			t.Error(err)
		}
		if got := e.must("GET", "/containers/three/json", "", "State/Status"); got != "running" {
			t.Errorf("after detaching it is %s", got)
		}
	})
	t.Run("exec", func(t *testing.T) {
		e.t = t
		id := e.must("POST", "/containers/three/exec", `{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","wc -c; echo bad >&2; exit 3"]}`, "Id")
		c, r := e.hijack("/exec/"+id+"/start", `{}`)
		go func() { _, _ = io.Copy(c, io.LimitReader(zeros{}, 1<<20)); _ = c.CloseWrite() }()
		var out, errOut bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, &errOut, r); err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(out.String()) != "1048576" || errOut.String() != "bad\n" {
			t.Errorf("stdout %q, stderr %q", out.String(), errOut.String())
		}
		if got := e.must("GET", "/exec/"+id+"/json", "", "ExitCode"); got != "3" {
			t.Errorf("exit code %s", got)
		}
	})
	t.Run("websocket", func(t *testing.T) {
		e.t = t
		e.must("POST", "/containers/create?name=four", fmt.Sprintf(sorter, ""), "")
		ws := e.websocket("/containers/four/attach/ws?stdin=1&stdout=1&stderr=1&stream=1")
		e.must("POST", "/containers/four/start", "", "")
		if _, err := io.WriteString(ws, "input\n"); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		buf := make([]byte, 100)
		for !strings.Contains(got.String(), "input\n") || !strings.Contains(got.String(), "to-err\n") {
			n, err := ws.Read(buf)
			if err != nil {
				t.Fatalf("after %q: %v", got.String(), err)
			}
			got.Write(buf[:n])
		}
		_ = ws.Close() // the only client with stdin: cat ends
		e.must("POST", "/containers/four/wait", "", "")
	})
	t.Run("logs through attach", func(t *testing.T) {
		e.t = t
		_, r := e.hijack("/containers/one/attach?logs=1&stdout=1", "")
		var out bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, io.Discard, r); err != nil || out.String() != "input\nend\n" {
			t.Errorf("%q %v", out.String(), err)
		}
	})
}

// TestAttachOnce: StdinOnce closes the container's stdin with its first client.
func TestAttachOnce(t *testing.T) {
	e := start(t)
	for once, want := range map[bool]string{true: "exited", false: "running"} {
		name := fmt.Sprintf("once-%v", once)
		e.must("POST", "/containers/create?name="+name, fmt.Sprintf(`{"Image":"img","Cmd":["cat"],"OpenStdin":true,"StdinOnce":%v}`, once), "")
		c, r := e.hijack("/containers/"+name+"/attach?stdin=1&stdout=1&stream=1", "")
		e.must("POST", "/containers/"+name+"/start", "", "")
		_, _ = io.WriteString(c, "x\n")
		if _, err := io.ReadFull(r, make([]byte, 8+2)); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if once {
			e.must("POST", "/containers/"+name+"/wait", "", "")
		}
		if got := e.must("GET", "/containers/"+name+"/json", "", "State/Status"); got != want {
			t.Errorf("StdinOnce %v: %s, want %s", once, got, want)
		}
	}
}

func (e *engine) websocket(path string) *websocket.Conn {
	e.t.Helper()
	c, err := net.Dial("unix", e.Sock)
	if err != nil {
		e.t.Fatal(err)
	}
	conf, err := websocket.NewConfig("ws://skiff"+path, "http://skiff")
	if err != nil {
		e.t.Fatal(err)
	}
	ws, err := websocket.NewClient(conf, c)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = ws.Close() })
	_ = ws.SetDeadline(time.Now().Add(30 * time.Second))
	return ws
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestLogsAsJSON: since 1.54 a log comes as JSON to those who ask for that, by
// format or by what they accept; before, both mean nothing.
func TestLogsAsJSON(t *testing.T) {
	e := start(t)
	id := e.must("POST", "/containers/create", `{"Image":"img","Cmd":["sh","-c","echo out; sleep 0.3; echo err >&2"]}`, "Id")
	e.must("POST", "/containers/"+id+"/start", "", "")
	e.must("POST", "/containers/"+id+"/wait", "", "")
	for _, c := range []struct {
		version, query, accept string
		code                   int
		ctype, begins          string
	}{
		{"v1.53", "", "", 200, "application/vnd.docker.multiplexed-stream", "\x01\x00"},
		{"v1.53", "&format=anything", "application/jsonl", 200, "application/vnd.docker.multiplexed-stream", "\x01\x00"},
		{"v1.54", "", "*/*", 200, "application/vnd.docker.multiplexed-stream", "\x01\x00"},
		{"v1.54", "&format=anything", "", 400, "application/json", `{"message":"unsupported log format"}`},
		{"v1.54", "&format=json", "", 200, "application/x-ndjson", `{"Line":"out\n","Source":"stdout","Timestamp":"2`},
		{"v1.54", "&format=json", "application/jsonl", 200, "application/jsonl", `{"Line":"out\n","Source":"stdout","Timestamp":"2`},
		{"v1.54", "", "text/plain, application/json-seq", 200, "application/json-seq", "\x1e" + `{"Line":"out\n","Source":"stdout","Timestamp":"2`},
	} {
		a := e.call("GET", "/"+c.version+"/containers/"+id+"/logs?stdout=1&stderr=1"+c.query, nil, "Accept", c.accept)
		if a.code != c.code || a.header.Get("Content-Type") != c.ctype || !strings.HasPrefix(string(a.body), c.begins) {
			t.Errorf("%s %s %s: %d %s %q", c.version, c.query, c.accept, a.code, a.header.Get("Content-Type"), a.body)
		}
		if c.code == 200 && !strings.Contains(string(a.body), "err\n") && !strings.Contains(string(a.body), `"Line":"err\n","Source":"stderr"`) {
			t.Errorf("%s %s %s: not all of it: %q", c.version, c.query, c.accept, a.body)
		}
	}
}
