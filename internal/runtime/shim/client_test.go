//go:build linux

package shim

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// A stream takes a connection; its end brings another.
func TestStreamLeavesASpare(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	came := make(chan *net.UnixConn, 8)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			came <- conn.(*net.UnixConn)
			go func() {
				var req request
				if _, err := receive(conn.(*net.UnixConn), &req); err == nil {
					_ = send(conn.(*net.UnixConn), &response{})
				}
			}()
		}
	}()
	c := &Client{o: Options{RunDir: dir}, closed: make(chan struct{}), inflight: map[key]chan struct{}{}}
	s, err := c.Attach(t.Context(), "c", "", runtime.Attach{}, runtime.IO{}, runtime.Log{})
	if err != nil {
		t.Fatal(err)
	}
	(<-came).Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	(<-came).Close() // the spare
	if err := s.Close(); err == nil {
		t.Error("closed twice")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.spare()
	if len(came) != 0 {
		t.Error("a closed client has dialed")
	}
}
