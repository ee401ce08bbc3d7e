package sockets_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/sys/sockets"
)

func pair(t *testing.T) (client, server *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: l.Addr().String(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func TestHungUp(t *testing.T) {
	client, server := pair(t)
	if sockets.HungUp(server) {
		t.Error("an open connection")
	}
	_ = client.CloseWrite()
	time.Sleep(time.Millisecond)
	if sockets.HungUp(server) {
		t.Error("a half-closed connection")
	}
	_ = client.Close()
	if !sockets.HungUp(server) {
		t.Error("a closed connection is not seen")
	}
}

func TestPeer(t *testing.T) {
	_, server := pair(t)
	cred, ok := sockets.Peer(server)
	if !ok || int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Getuid() {
		t.Errorf("peer %+v %v", cred, ok)
	}
}

func TestUnread(t *testing.T) {
	client, server := pair(t)
	if n, ok := sockets.Unread(server); !ok || n != 0 {
		t.Errorf("nothing sent: %d %v", n, ok)
	}
	if _, err := server.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if n, _ := sockets.Unread(server); n == 0 {
		t.Error("sent and not read: 0")
	}
	if _, err := client.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if n, _ := sockets.Unread(server); n != 0 {
		t.Errorf("read: %d", n)
	}
}
