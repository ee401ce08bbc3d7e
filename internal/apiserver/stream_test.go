package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/net/websocket"

	"github.com/skiff-containers/skiff/internal/engine/builds"
	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// dial sends a request as it is and returns the connection and the answer.
func dial(t *testing.T, socket, head string) (*net.UnixConn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, r, res
}

func httpClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

func do(t testing.TB, c *http.Client, method, path, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://skiff"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

const attach = "POST /v%s/containers/c/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\nHost: x\nContent-Length: 0\n%s\n"

const upgrade = "Connection: Upgrade\nUpgrade: tcp\n"

func startCat(t *testing.T, s *Server, tty bool) {
	t.Helper()
	call(t, s, "POST", "/containers/create?name=c", fmt.Sprintf(`{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"Tty":%v}`, tty))
	call(t, s, "POST", "/containers/c/start", "")
}

func TestAttachHalfClose(t *testing.T) {
	for name, tc := range map[string]struct {
		version, headers string
		tty              bool
		code             int
		ctype            string
	}{
		"with upgrade":           {"1.42", upgrade, false, 101, "application/vnd.docker.multiplexed-stream"},
		"with upgrade, terminal": {"1.42", upgrade, true, 101, "application/vnd.docker.raw-stream"},
		"with upgrade, old":      {"1.41", upgrade, false, 101, "application/vnd.docker.raw-stream"},
		"without":                {"1.42", "", false, 200, "application/vnd.docker.raw-stream"},
	} {
		t.Run(name, func(t *testing.T) {
			s, socket := listen(t, newFake())
			startCat(t, s, tc.tty)
			// Input right behind the request, as an eager client sends it.
			c, r, res := dial(t, socket, fmt.Sprintf(attach, tc.version, tc.headers)+"early ")
			if res.StatusCode != tc.code || res.Header.Get("Content-Type") != tc.ctype || res.Header.Get("Api-Version") == "" {
				t.Fatalf("%s %v", res.Status, res.Header)
			}
			_, _ = io.WriteString(c, "late")
			_ = c.CloseWrite()
			var out bytes.Buffer
			var err error
			if tc.tty {
				_, err = io.Copy(&out, r)
			} else {
				_, err = stdcopy.StdCopy(&out, &out, r)
			}
			if err != nil || out.String() != "early late" {
				t.Errorf("got %q, %v", &out, err)
			}
		})
	}
}

// TestGoneClientIsNoticed: a closed connection ends a session that prints
// nothing, a half-closed one does not.
func TestGoneClientIsNoticed(t *testing.T) {
	f := newFake()
	b := f.backends()
	watched := &watch{Containers: b.Containers, closed: make(chan struct{})}
	b.Containers = watched
	s := New(Options{Backends: b})
	call(t, s, "POST", "/containers/create?name=c", `{"Image":"busybox","Cmd":["sleep"]}`)
	call(t, s, "POST", "/containers/c/start", "")
	socket := serve(t, s)
	c, _, _ := dial(t, socket, fmt.Sprintf(attach, "1.42", upgrade))
	_ = c.CloseWrite()
	select {
	case <-watched.closed:
		t.Error("half closed: the session ended")
	case <-time.After(20 * time.Millisecond):
	}
	_ = c.Close()
	select {
	case <-watched.closed:
	case <-time.After(10 * time.Second):
		t.Error("closed: the session goes on")
	}
}

type watch struct {
	Containers
	once   sync.Once
	closed chan struct{}
}

func (w *watch) Attach(ctx context.Context, id string, o containers.AttachOptions) (containers.Session, error) {
	s, err := w.Containers.Attach(ctx, id, o)
	return &watchedSession{s, w}, err
}

type watchedSession struct {
	containers.Session
	w *watch
}

func (s *watchedSession) Close() error {
	s.w.once.Do(func() { close(s.w.closed) })
	return s.Session.Close()
}

func serve(t *testing.T, s *Server) (socket string) {
	t.Helper()
	socket = t.TempDir() + "/s"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return socket
}

func TestWaitAnswersAtOnce(t *testing.T) {
	s, socket := listen(t, newFake())
	call(t, s, "POST", "/containers/create?name=c", `{"Image":"busybox","Cmd":["exit","3"]}`)
	res := do(t, httpClient(socket), "POST", "/containers/c/wait?condition=next-exit", "") // has headers before there is a result
	call(t, s, "POST", "/containers/c/start", "")
	var got container.WaitResponse
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got.StatusCode != 3 || res.StatusCode != http.StatusOK {
		t.Errorf("%+v %v", got, err)
	}
}

func TestFollowedLogsAndEventsEndOnShutdown(t *testing.T) {
	f := newFake()
	s := New(Options{Backends: f.backends()})
	startCat(t, s, false)
	socket := serve(t, s)
	client := httpClient(socket)
	open := []*http.Response{
		do(t, client, "GET", "/containers/c/logs?follow=1&stdout=1", ""),
		do(t, client, "GET", "/events", ""),
		do(t, client, "GET", "/containers/c/stats", ""),
	}
	conn, r, _ := dial(t, socket, fmt.Sprintf(attach, "1.42", upgrade))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	for _, res := range open {
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Errorf("%s did not end well: %v", res.Header.Get("Content-Type"), err)
		}
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("attached stream goes on")
	}
	_ = conn.Close()
	if _, err := client.Get("http://skiff/_ping"); err == nil {
		t.Error("still answering")
	}
}

// slowBuild waits for the go, to be caught in the middle by a shutdown.
type slowBuild struct {
	Builds
	begun, proceed chan struct{}
}

func (b *slowBuild) Build(ctx context.Context, _ builds.Options, _ io.Reader, p progress.Sink) (string, error) {
	p.Emit(progress.Event{Stream: "begun\n"})
	close(b.begun)
	select {
	case <-b.proceed:
		p.Emit(progress.Event{Stream: "finished\n"})
		return "id", nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	b := newFake().backends()
	slow := &slowBuild{b.Builds, make(chan struct{}), make(chan struct{})}
	b.Builds = slow
	s := New(Options{Backends: b})
	socket := serve(t, s)
	res := do(t, httpClient(socket), "POST", "/build", "")
	<-slow.begun
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	<-s.closing.Done()
	close(slow.proceed)
	body, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(body), "finished") {
		t.Errorf("%s %v", body, err)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestShutdownHasALimit(t *testing.T) {
	b := newFake().backends()
	slow := &slowBuild{b.Builds, make(chan struct{}), make(chan struct{})}
	b.Builds = slow
	s := New(Options{Backends: b})
	socket := serve(t, s)
	res := do(t, httpClient(socket), "POST", "/build", "")
	<-slow.begun
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	_, _ = io.Copy(io.Discard, res.Body) // ends: the request was cut off
}

func TestServeEndsWithItsContext(t *testing.T) {
	s := New(Options{Backends: newFake().backends()})
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// failing cuts off after the first bytes.
type failing struct{ Containers }

func (failing) Export(_ context.Context, _ string, w io.Writer) error {
	_, _ = w.Write(make([]byte, 100<<10))
	return errors.New("disk on fire")
}

func TestLateFailureCutsTheAnswer(t *testing.T) {
	b := newFake().backends()
	b.Containers = failing{b.Containers}
	s := New(Options{Backends: b})
	res := do(t, httpClient(serve(t, s)), "GET", "/containers/c/export", "")
	if _, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Error("half an archive looks complete")
	}
}

func TestExecStream(t *testing.T) {
	f := newFake()
	s, socket := listen(t, f)
	startCat(t, s, false)
	id := call(t, s, "POST", "/containers/c/exec", `{"Cmd":["echo","hi"],"Tty":true}`).json["Id"]
	body := `{"Tty":true,"ConsoleSize":[40,120]}`
	head := fmt.Sprintf("POST /exec/%v/start HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: %d\n%s\n%s", id, len(body), upgrade, body)
	_, r, res := dial(t, socket, head)
	out, err := io.ReadAll(r)
	if err != nil || string(out) != "hi\n" || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Errorf("%q %v %s %v", out, err, res.Status, res.Header)
	}
	if size := f.execs[fmt.Sprint(id)].size; size != [2]uint{40, 120} {
		t.Errorf("size %v", size)
	}
}

func TestAttachWebsocket(t *testing.T) {
	s, socket := listen(t, newFake())
	startCat(t, s, false)
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	conf, _ := websocket.NewConfig("ws://x/v1.42/containers/c/attach/ws?stream=1&stdin=1&stdout=1", "http://x")
	ws, err := websocket.NewClient(conf, c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	_ = ws.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := ws.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(ws, got); err != nil || string(got) != "hello" { // raw, no frames of docker's
		t.Errorf("%q %v", got, err)
	}
}

func TestGRPC(t *testing.T) {
	_, socket := listen(t, newFake())
	t.Run("upgrade", func(t *testing.T) {
		for _, path := range []string{"grpc", "session"} {
			c, r, res := dial(t, socket, "POST /"+path+" HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: h2c\n\nPRI")
			if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "h2c" {
				t.Fatalf("%s: %s %v", path, res.Status, res.Header)
			}
			_ = c.CloseWrite()
			if got, err := io.ReadAll(r); err != nil || string(got) != "PRI" {
				t.Errorf("%s: %q %v", path, got, err)
			}
		}
		if _, _, res := dial(t, socket, "POST /grpc HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: tcp\n\n"); res.StatusCode != http.StatusBadRequest {
			t.Errorf("another protocol: %s", res.Status)
		}
	})
	t.Run("native", func(t *testing.T) {
		var p http.Protocols
		p.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: &http.Transport{Protocols: &p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://skiff/moby.buildkit.v1.Control/Info", nil)
		r.Header.Set("Content-Type", "application/grpc")
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != "HTTP/2.0" || res.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%q %v %v", body, err, res.Trailer)
		}
		res2 := do(t, client, "GET", "/_ping", "")
		if res2.ProtoMajor != 2 || res2.StatusCode != http.StatusOK {
			t.Errorf("the API over HTTP/2: %s %s", res2.Proto, res2.Status)
		}
		if res := do(t, client, "POST", "/containers/c/attach", ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("attach over HTTP/2: %s", res.Status)
		}
	})
}

func TestProgressDoesNotWaitForAClient(t *testing.T) {
	pr, pw := io.Pipe()
	defer func() { _ = pr.Close() }()
	rep := newReporter(&slowWriter{header: http.Header{}, w: pw}, apiVersion{1, 50})
	for i := range 200_000 { // nobody reads: counters are dropped, not kept, and nobody waits
		rep.Emit(progress.Event{ID: "layer", Status: "Downloading", Current: int64(i), Total: 1 << 40})
	}
	if n := rep.queue.Len(); n > maxQueue+1000 {
		t.Errorf("%d bytes wait", n)
	}
	go func() { _, _ = io.Copy(io.Discard, pr) }()
	rep.Emit(progress.Event{Status: "done"})
	if err := rep.finish(nil); err != nil {
		t.Error(err)
	}
	rep.Emit(progress.Event{Status: "too late"}) // must not reach a finished answer
}

type slowWriter struct {
	header http.Header
	w      io.Writer
}

func (w *slowWriter) Header() http.Header         { return w.header }
func (w *slowWriter) WriteHeader(int)             {}
func (w *slowWriter) Write(p []byte) (int, error) { return w.w.Write(p) }

type thousand struct {
	Containers
	list []container.Summary
}

func (c thousand) List(context.Context, containers.ListOptions) ([]container.Summary, error) {
	return c.list, nil
}

func BenchmarkContainerList(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			backends := newFake().backends()
			list := make([]container.Summary, n)
			for i := range list {
				list[i] = container.Summary{
					ID: strings.Repeat("a", 64), Names: []string{fmt.Sprintf("/web-%d", i)}, Image: "nginx:1", ImageID: "sha256:" + strings.Repeat("b", 64),
					Command: "nginx -g 'daemon off;'", Status: "Up 3 hours", State: container.StateRunning,
					Labels:          map[string]string{"com.docker.compose.project": "p", "com.docker.compose.service": "web", "com.docker.compose.oneoff": "False"},
					NetworkSettings: &container.NetworkSettingsSummary{}, Mounts: []container.MountPoint{{Type: "volume", Name: "data", Destination: "/data"}},
					Ports: []container.PortSummary{{PrivatePort: 80, PublicPort: 8080, Type: "tcp"}},
				}
			}
			backends.Containers = thousand{backends.Containers, list}
			_, socket := listenTo(b, backends)
			client := httpClient(socket)
			b.ReportAllocs()
			for b.Loop() {
				res := do(b, client, "GET", "/v1.50/containers/json", "")
				size, err := io.Copy(io.Discard, res.Body)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(size)
			}
		})
	}
}

func BenchmarkPing(b *testing.B) {
	_, socket := listenTo(b, newFake().backends())
	client := httpClient(socket)
	b.ReportAllocs()
	for b.Loop() {
		res := do(b, client, "GET", "/_ping", "")
		_, _ = io.Copy(io.Discard, res.Body)
	}
}
