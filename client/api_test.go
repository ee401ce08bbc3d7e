package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

// daemon serves a handler; seen collects the requests' methods and addresses.
func daemon(t *testing.T, h http.HandlerFunc) (c *Client, seen *[]string) {
	t.Helper()
	seen = new([]string)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*seen = append(*seen, r.Method+" "+r.URL.String())
		h(w, r)
	}))
	t.Cleanup(srv.Close)
	c, err := New(WithHost("tcp://" + srv.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, seen
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// oldDaemon knows versions up to 1.43.
func oldDaemon(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.43")
	v, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
	if r.URL.Path != "/_ping" && lessVersion("1.43", v) {
		fail(w, 400, "client version "+v+" is too new. Maximum supported API version is 1.43")
		return
	}
	_, _ = io.WriteString(w, `[]`)
}

func TestVersions(t *testing.T) {
	ctx := t.Context()
	c, seen := daemon(t, oldDaemon)
	for range 2 {
		if _, err := c.ContainerList(ctx, ContainerListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"GET /v" + MaxAPIVersion + "/containers/json", "GET /v1.43/containers/json", "GET /v1.43/containers/json"}
	if d := cmp.Diff(want, *seen); d != "" {
		t.Error(d)
	}
	if err := c.needs(ctx, "1.44", "x"); err == nil {
		t.Error("1.43 has what 1.44 brought")
	}

	// A body that can be sent but once: ask first.
	c, seen = daemon(t, oldDaemon)
	body, err := c.ImageLoad(ctx, strings.NewReader("tar"), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = body.Close()
	if d := cmp.Diff([]string{"HEAD /_ping", "POST /v1.43/images/load?quiet=1"}, *seen); d != "" {
		t.Error(d)
	}

	t.Setenv("DOCKER_API_VERSION", "v1.50")
	c, _ = daemon(t, oldDaemon)
	if _, err := c.ContainerList(ctx, ContainerListOptions{}); err == nil || c.APIVersion() != "1.50" {
		t.Error("a version that was asked for is not kept:", err)
	}
}

func TestErrors(t *testing.T) {
	for status, is := range map[int]func(error) bool{
		404: errdefs.IsNotFound, 409: errdefs.IsConflict, 400: errdefs.IsInvalidArgument, 401: errdefs.IsUnauthorized, 500: errdefs.IsInternal,
	} {
		c, _ := daemon(t, func(w http.ResponseWriter, _ *http.Request) { fail(w, status, "why") })
		err := c.ContainerPause(t.Context(), "x")
		if !is(err) || err.Error() != "Error response from daemon: why" {
			t.Errorf("%d: %v", status, err)
		}
		if _, err := c.ContainerAttach(t.Context(), "x", ContainerAttachOptions{}); !is(err) || err.Error() != "Error response from daemon: why" {
			t.Errorf("attach, %d: %v", status, err)
		}
	}
	c, seen := daemon(t, func(http.ResponseWriter, *http.Request) {})
	for _, err := range []error{c.ContainerPause(t.Context(), " "), c.NetworkRemove(t.Context(), ""), c.VolumeRemove(t.Context(), "", true)} {
		if !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	}
	if len(*seen) > 0 {
		t.Error("sent:", *seen)
	}
}

func TestQueries(t *testing.T) {
	c, seen := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "json") {
			_, _ = io.WriteString(w, "[]")
		} else {
			_, _ = io.WriteString(w, "{}")
		}
	})
	ctx, zero, ten := t.Context(), 0, 10
	_, _ = c.ContainerList(ctx, ContainerListOptions{All: true, Limit: -1, Filters: Filters{}.Add("label", "a=b")})
	_ = c.ContainerStop(ctx, "x", ContainerStopOptions{Timeout: &zero, Signal: "INT"})
	_ = c.ContainerStop(ctx, "x", ContainerStopOptions{Timeout: &ten})
	_ = c.ContainerResize(ctx, "x", ConsoleSize{Width: 80})
	_ = c.ImageTag(ctx, "a", "me/b")
	_, _ = c.ContainerCommit(ctx, "x", ContainerCommitOptions{Reference: "b:1", NoPause: true, Changes: []string{"USER a", "CMD b"}})
	_, _ = c.VolumePrune(ctx, true, nil)
	var got []string
	for _, s := range *seen {
		u, err := url.QueryUnescape(strings.ReplaceAll(s, "/v"+MaxAPIVersion, ""))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, u)
	}
	want := []string{
		`GET /containers/json?all=1&filters={"label":{"a=b":true}}`,
		`POST /containers/x/stop?signal=INT&t=0`,
		`POST /containers/x/stop?t=10`,
		`POST /containers/x/resize?h=0&w=80`,
		`POST /images/a/tag?repo=docker.io/me/b&tag=latest`,
		`POST /commit?changes=USER a&changes=CMD b&container=x&pause=0&repo=docker.io/library/b&tag=1`,
		`POST /volumes/prune?filters={"all":{"true":true}}`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestUpgrade(t *testing.T) {
	c, _ := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		fmt.Fprintf(rw, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Type: x/y\r\n\r\nhello ", r.Header.Get("Upgrade"))
		_ = rw.Flush()
		sent, _ := io.ReadAll(rw)
		_, _ = conn.Write(sent)
	})
	conn, err := c.ContainerAttach(t.Context(), "x", ContainerAttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "world")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "hello world" || conn.MediaType != "x/y" {
		t.Errorf("%q %q %v", got, conn.MediaType, err)
	}
}

// Whoever gives up waiting for an upgrade is let go.
func TestUpgradeCancelled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		cancel()
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
	c, err := New(WithHost("tcp://" + l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecAttach(ctx, "x", container.ExecStartRequest{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTimestamp(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.FixedZone("x", 3600))
	for in, want := range map[string]string{
		"10m":                       "1778047089", // 06:58:09 +01:00
		"0":                         "0",
		"1136073845":                "1136073845",
		"1136073845.5":              "1136073845.5",
		"2006-01-02":                "1136156400.000000000",
		"2006-01-02Z":               "1136160000.000000000",
		"2006-01-02T15":             "1136210400.000000000",
		"2006-01-02T15:04":          "1136210640.000000000",
		"2006-01-02T15:04:05":       "1136210645.000000000",
		"2006-01-02T15:04:05.25":    "1136210645.250000000",
		"2006-01-02T15:04:05.25Z":   "1136214245.250000000",
		"2006-01-02T15:04:05-07:00": "1136239445.000000000",
		"2006-01-02T15:04Z":         "1136214240.000000000",
		"":                          "error",
		"yesterday":                 "error",
		"12:00":                     "error",
		"1.x":                       "error",
		"2006-13-02":                "error",
	} {
		got, err := Timestamp(in, now)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, want %s (%v)", in, got, want, err)
		}
	}
}
