package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"

	"github.com/skiff-containers/skiff/client"
)

// onSocket serves h on a unix socket and counts connections.
func onSocket(t *testing.T, path string, h http.HandlerFunc) (srv *httptest.Server, opened func() int) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	n := 0
	srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			mu.Lock()
			n++
			mu.Unlock()
		}
	}}}
	srv.Start()
	return srv, func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func TestUnixSocketConnections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Has("checkpoint"): // never answered
			<-r.Context().Done()
		case r.Method == http.MethodHead, r.Method == http.MethodPost:
			w.Header().Set("Api-Version", "1.56")
		default:
			_, _ = w.Write([]byte("[]"))
		}
	}
	srv, opened := onSocket(t, path, handler)
	c, err := client.New(client.WithHost("unix://" + path))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	use := func(what string) {
		t.Helper()
		if _, err := c.ContainerList(ctx, client.ContainerListOptions{}); err != nil {
			t.Fatalf("%s: list: %v", what, err)
		}
		if _, err := c.Ping(ctx); err != nil { // no body at all
			t.Fatalf("%s: ping: %v", what, err)
		}
		if err := c.ContainerStart(ctx, "a", client.ContainerStartOptions{}); err != nil {
			t.Fatalf("%s: start: %v", what, err)
		}
	}
	use("first")
	use("second")
	if n := opened(); n != 1 {
		t.Errorf("%d connections for calls one after the other, want 1", n)
	}

	// An ended context cuts an answer short, and its connection is not used again.
	short, cancel := context.WithCancel(ctx)
	go cancel()
	if err := c.ContainerStart(short, "a", client.ContainerStartOptions{CheckpointID: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}
	use("after a cancelled call")

	// The next daemon is reached though the last one's connection was kept.
	srv.CloseClientConnections()
	srv.Close()
	srv, _ = onSocket(t, path, handler)
	defer srv.Close()
	use("after the daemon's restart")
}
