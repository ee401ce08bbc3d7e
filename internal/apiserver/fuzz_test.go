package apiserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzRequest sends whatever query and body to each route, in any version: it is
// carried out or refused, and never is the daemon's fault.
func FuzzRequest(f *testing.F) {
	routes := allRoutes()
	for i, r := range routes {
		body := `{}`
		query := ""
		switch {
		case strings.HasSuffix(r.path, "/exec"):
			body = `{"Cmd":["sh"],"Env":["A=b"],"User":"1:1","WorkingDir":"/","DetachKeys":"ctrl-a","ConsoleSize":[1,2]}`
		case r.path == "/networks/create":
			body = `{"Name":"n","Driver":"bridge","IPAM":{"Config":[{"Subnet":"10.1.0.0/16","Gateway":"10.1.0.1","AuxiliaryAddresses":{"a":"10.1.0.2"}}]},"Options":{"com.docker.network.bridge.name":"b"}}`
		case strings.HasSuffix(r.path, "/connect"):
			body = `{"Container":"c","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.1.0.5"},"Aliases":["x"],"Links":["a:b"],"MacAddress":"02:42:ac:11:00:02"}}`
		case strings.HasSuffix(r.path, "/disconnect"):
			body = `{"Container":"c","Force":true}`
		case r.path == "/volumes/create":
			body = `{"Name":"v","Driver":"local","DriverOpts":{"type":"tmpfs","o":"size=1m","device":"tmpfs"},"Labels":{"a":"b"}}`
		case r.path == "/build":
			query, body = `t=a:b&buildargs={"A":"b"}&labels={"c":"d"}&cachefrom=["x"]&platform=linux/amd64&ulimits=[{"Name":"nofile","Soft":1}]&shmsize=1`, "FROM scratch"
		case r.path == "/auth":
			body = `{"username":"u","password":"p","serveraddress":"reg:5000"}`
		case r.path == "/events":
			query = `since=1700000000.5&until=1&filters={"type":["container"],"label":["a=b"]}`
		case r.method == http.MethodGet:
			query = `all=1&limit=-1&size=1&filters={"status":["running"],"until":["10m"]}&tail=all&since=0`
		}
		f.Add(uint16(i), query, body, uint8(51), "")
		f.Add(uint16(i), `filters={"label":{"a=b":true}}&repo=x&tag=y&h=1&w=2&signal=KILL&t=-1`, body, uint8(24), "eyJ1c2VybmFtZSI6InUifQ==")
	}
	names := regexp.MustCompile(`\{[^}]*\}`)
	f.Fuzz(func(t *testing.T, n uint16, query, body string, minor uint8, auth string) {
		r := routes[int(n)%len(routes)]
		s := New(Options{Backends: newFake().backends()})
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), callerKey{}, caller{access: Full, local: true}), 20*time.Millisecond)
		defer cancel()
		req := httptest.NewRequest(r.method, "/", strings.NewReader(body)).WithContext(ctx)
		req.URL.Path = "/v1." + strconv.Itoa(24+int(minor)%40) + names.ReplaceAllString(r.path, "x")
		req.URL.RawQuery = query
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Registry-Auth", auth)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, req) // what panics in it panics here
	})
}

// FuzzWebsocket sends whatever frames to an attached container.
func FuzzWebsocket(f *testing.F) {
	f.Add([]byte("\x81\x83\x01\x02\x03\x04abc"), false)
	f.Add([]byte("\x82\xfe\x00\x03\x01\x02\x03\x04abc\x88\x80\x00\x00\x00\x00"), true)
	f.Add([]byte("\x89\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"), false)
	f.Fuzz(func(t *testing.T, frames []byte, tty bool) {
		s, socket := listen(t, newFake())
		startCat(t, s, tty)
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		head := "GET /v1.42/containers/c/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n" +
			"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
		_, _ = io.WriteString(c, head+string(frames)) // it may hang up in the middle
		_ = c.(*net.UnixConn).CloseWrite()
		// Whatever it was, the answer ends when the client has.
		got, err := io.ReadAll(c)
		if !bytes.HasPrefix(got, []byte("HTTP/1.1 101")) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: %v", got, err)
		}
	})
}
