package apiserver

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestExecProcess(t *testing.T) {
	f := newFake()
	s, socket := listen(t, f)
	startCat(t, s, false)
	for _, tc := range []struct{ body, want string }{
		{`{"Cmd":["echo","hi"],"AttachStdout":true}`, "\x01\x00\x00\x00\x00\x00\x00\x03hi\n" + "\x10\x00\x00\x00\x00\x00\x00\x0e" + `{"ExitCode":0}`},
		{`{"Cmd":["echo","hi"],"AttachStdout":true,"Tty":true}`, "\x01\x00\x00\x00\x00\x00\x00\x03hi\n" + "\x10\x00\x00\x00\x00\x00\x00\x0e" + `{"ExitCode":0}`},
		{`{"Cmd":["exit","9"],"AttachStdout":true}`, "\x10\x00\x00\x00\x00\x00\x00\x0e" + `{"ExitCode":9}`},
	} {
		head := fmt.Sprintf("POST /containers/c/exec HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: %d\nConnection: Upgrade\nUpgrade: skiff-process\n\n%s", len(tc.body), tc.body)
		_, r, res := dial(t, socket, head)
		out, err := io.ReadAll(r)
		if err != nil || string(out) != tc.want {
			t.Errorf("%s: %q %v, want %q", tc.body, out, err, tc.want)
		}
		if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "skiff-process" ||
			res.Header.Get("Content-Type") != "application/vnd.skiff.process-stream" || f.execs[res.Header.Get("Skiff-Exec-Id")] == nil {
			t.Errorf("%s: %s %v", tc.body, res.Status, res.Header)
		}
	}
	body := `{"Cmd":["echo"]}`
	_, r, res := dial(t, socket, fmt.Sprintf("POST /containers/nosuch/exec HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: %d\nConnection: Upgrade\nUpgrade: skiff-process\n\n%s", len(body), body))
	if text, _ := io.ReadAll(io.LimitReader(r, res.ContentLength)); res.StatusCode != http.StatusNotFound || !strings.Contains(string(text), "No such container") {
		t.Errorf("no container: %s %s", res.Status, text)
	}
}
