package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostFromEnv(t *testing.T) {
	t.Setenv(EnvHost, "")
	t.Setenv(EnvDockerHost, "")
	if h, named := HostFromEnv(); h != DefaultHost || named {
		t.Error(h, named)
	}
	t.Setenv(EnvDockerHost, "tcp://a:1")
	if h, named := HostFromEnv(); h != "tcp://a:1" || !named {
		t.Error(h, named)
	}
	t.Setenv(EnvHost, "unix:///b")
	if h, _ := HostFromEnv(); h != "unix:///b" {
		t.Error(h)
	}
}

func TestSSHArgs(t *testing.T) {
	for in, want := range map[string]string{
		"ssh://host":                "-T -- host skiff system dial-stdio",
		"ssh://me@host:22/run/x.s":  "-l me -p 22 -T -- host skiff -H 'unix:///run/x.s' system dial-stdio",
		"ssh://host/it's":           `-T -- host skiff -H 'unix:///it'\''s' system dial-stdio`,
		"ssh://":                    "error",
		"ssh://me:pw@host":          "error",
		"ssh://host?x=y":            "error",
		"ssh://-oProxyCommand=x/":   "error",
		"ssh://-oProxyCommand=x@h/": "error",
	} {
		args, err := sshArgs(in)
		got := strings.Join(args, " ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: got %s, want %s (%v)", in, got, want, err)
		}
	}
}

func TestCommandConn(t *testing.T) {
	conn, err := dialCommand("cat")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if diff := cmp.Diff("hello", string(got)); diff != "" || err != nil {
		t.Error(err, diff)
	}
	bad, err := dialCommand("sh", "-c", "echo no such host >&2")
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if _, err := bad.Read(make([]byte, 1)); err == nil {
		t.Error("no error from a command that printed nothing")
	}
}

func TestConnectionFailed(t *testing.T) {
	host := "unix://" + filepath.Join(t.TempDir(), "sock")
	c, err := New(WithHost(host))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if Listens(t.Context(), host) {
		t.Error("something listens")
	}
	if _, err := c.ContainerList(t.Context(), ContainerListOptions{}); !IsConnectionFailed(err) {
		t.Error(err)
	}
	if _, err := c.ContainerAttach(t.Context(), "x", ContainerAttachOptions{}); !IsConnectionFailed(err) {
		t.Error(err)
	}
}

// The daemon need not be Skiff's.
func ExampleNew() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.50")
		if strings.HasSuffix(r.URL.Path, "/containers/json") {
			_, _ = io.WriteString(w, `[{"Id":"0123","Names":["/web"]}]`)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()

	c, err := New(WithHost("tcp://" + l.Addr().String()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	list, err := c.ContainerList(context.Background(), ContainerListOptions{All: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, ctr := range list {
		fmt.Println(ctr.ID, ctr.Names[0])
	}
	// Output: 0123 /web
}
