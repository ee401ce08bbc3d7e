package apiserver

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// TestRequests: what is asked, and the status and text of the answer.
func TestRequests(t *testing.T) {
	s := New(Options{Backends: newFake().backends()})
	call(t, s, "POST", "/containers/create?name=web", `{"Image":"busybox","Cmd":["sleep"]}`)
	call(t, s, "POST", "/containers/web/start", "")
	big := `{"Image":"` + strings.Repeat("x", maxJSON) + `"}`
	for _, tc := range []struct {
		req, body string
		code      int
		want      string
	}{
		{"GET /v1.41/_ping", "", 200, "OK"},
		{"HEAD /_ping", "", 200, ""},
		{"GET /v1.99/_ping", "", 400, "client version 1.99 is too new. Maximum supported API version is 1.56"},
		{"GET /v2.0/_ping", "", 400, "client version 2.0 is too new"},
		{"GET /v1.23/_ping", "", 400, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade"},
		{"GET /v1.22/images/img/json", "", 200, "RepoTags"},
		{"GET /v1.2.3/_ping", "", 400, "invalid API version"},
		{"GET /v1./_ping", "", 400, "invalid API version"},
		{"GET /nothing", "", 404, "page not found"},
		{"GET /v1.41/nothing", "", 404, "page not found"},
		{"DELETE /containers/json", "", 404, "No such container: json"},
		{"PUT /info", "", 404, "page not found"},
		{"OPTIONS /v1.41/containers/json", "", 200, ""},
		{"POST /v1.24/containers/prune", "", 400, "requires minimum API version 1.25"},
		{"GET /containers/json?filters={", "", 400, "invalid filter"},
		{"GET /containers/json?limit=x", "", 400, `invalid value "x" for "limit"`},
		{"GET /containers/json?limit=%zz", "", 400, "invalid query"},
		{"GET /containers/no/json", "", 404, "No such container: no"},
		{"POST /containers/web/start", "", 304, ""},
		{"POST /containers/web/start", `{"Binds":[]}`, 400, "non-empty request body"},
		{"POST /containers/web/start?checkpoint=../c", "", 400, `invalid checkpoint ID "../c"`},
		{"POST /containers/web/start?checkpoint=c1", "", 400, "checkpoint is only supported in experimental mode"},
		{"POST /containers/web/stop?t=x", "", 400, `invalid value "x" for "t"`},
		{"POST /containers/web/resize?h=x&w=1", "", 400, `invalid resize height "x": invalid syntax`},
		{"POST /containers/web/resize?h=1", "", 400, `invalid resize width ""`},
		{"POST /containers/web/resize?h=-1&w=1", "", 400, `invalid resize height "-1": value out of range`},
		{"POST /containers/web/resize?h=5&w=10", "", 200, ""},
		{"POST /containers/web/wait?condition=never", "", 400, `invalid condition: "never"`},
		{"GET /containers/web/logs", "", 400, "must specify at least one of 'stdout' or 'stderr'"},
		{"GET /containers/web/logs?stdout=1&since=x", "", 400, `invalid value for "since"`},
		{"GET /containers/web/stats?stream=1&one-shot=1", "", 400, "cannot have stream=true and one-shot=true"},
		{"HEAD /containers/web/archive?path=/etc/hostname", "", 200, ""},
		{"GET /containers/web/archive", "", 400, "bad parameter: path cannot be empty"},
		{"GET /containers/web/archive?path=/missing", "", 404, "Could not find the file"},
		{"DELETE /containers/web", "", 409, "cannot remove container"},
		{"GET /networks/n1?verbose=bad", "", 400, `invalid value for verbose: bad: strconv.ParseBool: parsing \"bad\": invalid syntax`},
		{"POST /containers/create", "", 400, "malformed Content-Type header"},
		{"POST /containers/create", " ", 400, "invalid JSON: EOF"},
		{"POST /containers/create", "{", 400, "invalid JSON"},
		{"POST /containers/create", "{}{}", 400, "unexpected content after JSON"},
		{"POST /containers/create", "{} x", 400, "unexpected content after JSON"},
		{"POST /containers/create", "{}", 400, "config cannot be empty"},
		{"POST /containers/create", big, 400, "request body is larger than"},
		{"POST /containers/create", `{"Image":"busybox","Unknown":{"a":1}}`, 201, `"Id"`},
		{"POST /containers/create", `{"Image":"busybox","HostConfig":{"Dns":["x"]}}`, 400, "unable to parse IP"},
		{"POST /containers/create", `{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":""}]}}}`, 201, `"Id"`},
		{"POST /containers/create", `{"Image":"busybox","ExposedPorts":{"x":{}}}`, 400, "invalid port 'x'"},
		{"POST /containers/create?name=/web", `{"Image":"busybox"}`, 409, "is already in use"},
		{"POST /containers/create?platform=a/b/c/d/e", `{"Image":"busybox"}`, 400, "invalid component"},
		{"POST /containers/web/exec", `{}`, 400, "No exec command specified"},
		{"POST /exec/no/start", `{"Detach":true}`, 404, "No such exec instance"},
		{"POST /containers/web/attach/ws", "", 404, "page not found"},
		{"GET /containers/web/checkpoints", "", 501, "this experimental feature is disabled by default"},
		{"GET /images/missing/json", "", 404, "No such image: missing"},
		{"GET /images/a/json?platform={}", "", 400, "both OS and Architecture must be provided"},
		{"GET /images/a/json?manifests=1&platform={%22os%22:%22linux%22,%22architecture%22:%22amd64%22}", "", 400, "conflicting options"},
		{"GET /images/get", "", 400, "names is empty"},
		{"POST /images/create", "", 400, "fromImage and fromSrc"},
		{"POST /images/create?fromImage=UPPER", "", 400, "must be lowercase"},
		{"POST /images/create?fromImage=scratch", "", 403, "'scratch' is a reserved name"},
		{"POST /images/create?fromSrc=http://x/y.tar", "", 501, "importing from a URL is not supported"},
		{"POST /images/a/tag", "", 400, "repository name must not be empty"},
		{"POST /images/a/tag?repo=b&tag=c", "", 201, ""},
		{"POST /images/a@sha256:" + strings.Repeat("a", 64) + "/push", "", 400, "cannot push a digest reference"},
		{"GET /images/search?limit=-1&term=x", "", 400, "invalid limit specified"},
		{"GET /v1.55/images/x/attestations", "", 501, "not supported"},
		{"POST /auth", `{"password":"wrong"}`, 401, "unauthorized"},
		{"POST /networks/no/connect", `{"Container":"web"`, 400, "invalid JSON"},
		{"GET /networks/no", "", 404, "network no not found"},
		{"GET /networks/bridge?scope=swarm", "", 404, "network bridge not found"},
		{"POST /networks/create", `{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/33"}]}}`, 400, "invalid JSON"},
		{"DELETE /volumes/no", "", 404, "no such volume"},
		{"DELETE /volumes/no?force=1", "", 204, ""},
		{"PUT /volumes/no?version=1", "", 503, "only valid for cluster volumes"},
		{"POST /volumes/create", `{"ClusterVolumeSpec":{}}`, 503, "This node is not a swarm manager"},
		{"GET /swarm", "", 503, `This node is not a swarm manager. Use "docker swarm init"`},
		{"POST /swarm/init", "{}", 501, "swarm mode is not supported"},
		{"POST /swarm/leave", "", 503, "This node is not part of a swarm"},
		{"GET /secrets", "", 503, "not a swarm manager"},
		{"GET /v1.24/secrets", "", 400, "requires minimum API version 1.25"},
		{"GET /plugins/x/json", "", 404, `plugin "x" not found`},
		{"POST /plugins/pull", "", 501, "plugins are not supported"},
		{"POST /build?version=3", "", 400, `invalid version "3"`},
		{"POST /build?securityopt=x", "", 400, "security options are not supported"},
		{"POST /build?isolation=hyperv", "", 400, "unsupported isolation"},
		{"POST /build?squash=1", "", 400, "squash"},
		{"POST /build?buildargs=x", "", 400, `invalid JSON in "buildargs"`},
		{"POST /build?memory=x", "", 400, `invalid value "x" for "memory"`},
		{"POST /build/cancel", "", 400, "build ID not provided"},
		{"POST /grpc", "", 400, "no upgrade proto in request"},
		{"POST /session", "", 400, "no upgrade proto in request"},
		{"GET /events?since=10&until=5", "", 400, "cannot be after `until` time"},
		{"GET /events?filters={%22x%22:[%22y%22]}", "", 400, "invalid filter 'x'"},
		{"GET /system/df?type=x", "", 400, "unknown object type: x"},
		{"GET /system/df?type=volume", "", 200, "VolumeUsage"},
	} {
		t.Run(tc.req, func(t *testing.T) {
			method, path, _ := strings.Cut(tc.req, " ")
			got := call(t, s, method, path, tc.body)
			if got.code != tc.code || !strings.Contains(got.body, tc.want) && !strings.Contains(errorText(got), tc.want) {
				t.Errorf("got %d %s, want %d %q", got.code, got.body, tc.code, tc.want)
			}
			if got.code >= 400 && errorText(got) == "" && !strings.Contains(path, "v1.23") {
				t.Errorf("no message: %q", got.body)
			}
		})
	}
}

func errorText(a answered) string { m, _ := a.json["message"].(string); return m }

func TestHeaders(t *testing.T) {
	s := New(Options{Backends: newFake().backends(), Version: "7"})
	h := call(t, s, "HEAD", "/_ping", "").header
	for k, want := range map[string]string{
		"Api-Version": "1.56", "Ostype": "linux", "Docker-Experimental": "false", "Builder-Version": "2",
		"Swarm": "inactive", "Server": "Skiff/7 (linux)", "Cache-Control": "no-cache, no-store, must-revalidate",
	} {
		if h.Get(k) != want {
			t.Errorf("%s: %q, want %q", k, h.Get(k), want)
		}
	}
	if h := call(t, s, "GET", "/nothing", "").header; h.Get("Api-Version") != "1.56" || h.Get("Content-Type") != "application/json" {
		t.Errorf("an error's headers: %v", h)
	}
	if a := call(t, s, "GET", "/v1.20/info", ""); strings.HasPrefix(a.body, "{") {
		t.Errorf("clients that old print JSON as it is: %s", a.body)
	}
}

func TestWrongContentType(t *testing.T) {
	s := New(Options{Backends: newFake().backends()})
	for ct, want := range map[string]string{
		"text/plain":                      "unsupported Content-Type header (text/plain): must be 'application/json'",
		"application/json;":               "", // lenient, as docker
		"application/json; charset=utf-8": "",
		";":                               "malformed Content-Type header (;)",
	} {
		got := call(t, s, "POST", "/volumes/create", `{}`, "Content-Type", ct)
		if want == "" && got.code != 201 || want != "" && (got.code != 400 || !strings.Contains(errorText(got), want)) {
			t.Errorf("%q: %d %s", ct, got.code, got.body)
		}
	}
}

type panicking struct{ Containers }

func (panicking) List(context.Context, containers.ListOptions) ([]container.Summary, error) {
	panic("oh")
}

// A client that wants the connection closed may send its body to the end, though
// the answer is known before it.
func TestRefusedBodyIsRead(t *testing.T) {
	ts := httptest.NewServer(New(Options{Backends: newFake().backends()}))
	defer ts.Close()
	conn, err := net.Dial("tcp", ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "POST /v1.41/build?buildargs=bad HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-tar\r\nContent-Length: 5\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("before its body it got %q, %v", line, err)
	}
	if _, err := conn.Write([]byte("12345")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if rep, err := http.ReadResponse(in, nil); err != nil || rep.StatusCode != http.StatusBadRequest {
		t.Errorf("%v %v", rep, err)
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	b := newFake().backends()
	b.Containers = panicking{}
	got := call(t, New(Options{Backends: b}), "GET", "/containers/json", "")
	if got.code != 500 || strings.Contains(got.body, "oh") {
		t.Errorf("%d %s", got.code, got.body)
	}
}

func TestStatusOfEveryKind(t *testing.T) {
	for k, want := range map[errs.Kind]int{
		errs.Internal: 500, errs.Invalid: 400, errs.Unauthorized: 401, errs.Denied: 403, errs.NotFound: 404, errs.Conflict: 409,
		errs.Unsupported: 501, errs.Unavailable: 503, errs.Unchanged: 304, errs.Canceled: 499,
	} {
		if got := status(errs.New(k, "x")); got != want {
			t.Errorf("%v is %d", k, got)
		}
	}
}

// TestBrowsersAreKeptOut: over TCP a page of somebody else must not get through.
func TestBrowsersAreKeptOut(t *testing.T) {
	s := New(Options{Backends: newFake().backends(), AllowedHosts: []string{"docker.lan"}})
	remote := context.WithValue(t.Context(), callerKey{}, caller{access: Full})
	for _, tc := range []struct {
		host, origin string
		code         int
	}{
		{"127.0.0.1:2375", "", 200},
		{"[::1]:2375", "", 200},
		{"localhost:2375", "", 200},
		{"LOCALHOST", "", 200},
		{"docker.lan:2375", "", 200},
		{"evil.example:2375", "", 403}, // a name rebound to this address
		{"127.0.0.1:2375", "http://127.0.0.1:2375", 200},
		{"127.0.0.1:2375", "http://evil.example", 403},
		{"127.0.0.1:2375", "http://127.0.0.1:8080", 403},
		{"127.0.0.1:2375", "null", 403},
	} {
		r := httptest.NewRequest(http.MethodGet, "/_ping", nil).WithContext(remote)
		r.Host = tc.host
		if tc.origin != "" {
			r.Header.Set("Origin", tc.origin)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != tc.code {
			t.Errorf("host %q, origin %q: %d, want %d", tc.host, tc.origin, w.Code, tc.code)
		}
	}
}

func TestReadOnlyCallers(t *testing.T) {
	s := New(Options{Backends: newFake().backends()})
	ctx := context.WithValue(t.Context(), callerKey{}, caller{access: ReadOnly, local: true})
	for req, code := range map[string]int{
		"GET /containers/json": 200, "POST /containers/create": 403, "DELETE /images/x": 403, "GET /events?until=1": 200,
		"GET /containers/x/attach/ws": 403, "POST /grpc": 403,
	} {
		method, path, _ := strings.Cut(req, " ")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, path, nil).WithContext(ctx))
		if w.Code != code {
			t.Errorf("%s: %d, want %d", req, w.Code, code)
		}
	}
}

func TestQueryReachesTheEngine(t *testing.T) {
	f := newFake()
	s := New(Options{Backends: f.backends()})
	auth := base64.URLEncoding.EncodeToString([]byte(`{"username":"u","password":"p"}`))
	call(t, s, "POST", "/v1.41/images/create?fromImage=reg:5000/a/b&tag=1&platform=linux/arm64", "", "X-Registry-Auth", auth)
	if p := f.pulled; p.Ref != "reg:5000/a/b:1" || p.All || p.Platform.Architecture != "arm64" || p.Auth.Username != "u" {
		t.Errorf("pull %+v", p)
	}
	digest := "sha256:" + strings.Repeat("a", 64)
	call(t, s, "POST", "/images/create?fromImage=a:old&tag="+digest, "")
	if f.pulled.Ref != "a@"+digest || f.pulled.All {
		t.Errorf("pull %+v", f.pulled)
	}
	call(t, s, "POST", "/images/create?fromImage=a", "", "X-Registry-Auth", "not base64!")
	if f.pulled.Ref != "a" || !f.pulled.All || f.pulled.Auth != nil {
		t.Errorf("pull of all tags %+v", f.pulled)
	}
	call(t, s, "POST", "/v1.41/volumes/prune", "")
	if !f.prunedBy.Has("all") {
		t.Error("before 1.42 prune takes named volumes too")
	}
	call(t, s, "POST", "/v1.42/volumes/prune?filters={%22label%22:[%22a%22]}", "")
	if f.prunedBy.Has("all") || !f.prunedBy.Exact("label", "a") {
		t.Errorf("filters %v", f.prunedBy)
	}
	call(t, s, "POST", `/build?t=a&t=b&buildargs={"X":null,"Y":"1"}&labels={"l":"v"}&cachefrom=["c"]&ulimits=[{"Name":"nofile","Soft":1,"Hard":2}]&rm=0&nocache=1&shmsize=5&outputs=[{"Type":"local","Attrs":{"dest":"x"}}]&extrahosts=a:1,b:2&platform=linux/amd64`,
		"tar", "X-Registry-Config", base64.StdEncoding.EncodeToString([]byte(`{"r":{"username":"u"}}`)))
	b, _ := json.Marshal(f.built)
	for _, want := range []string{
		`"Tags":["a","b"]`, `"X":null`, `"Y":"1"`, `"l":"v"`, `"CacheFrom":["c"]`, `"Name":"nofile"`, `"NoCache":true`, `"Remove":false`,
		`"ShmSize":5`, `"type":"local"`, `"dest":"x"`, `"ExtraHosts":["a:1","b:2"]`, `"Platform":"linux/amd64"`, `"username":"u"`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	if string(f.context) != "tar" {
		t.Errorf("context %q", f.context)
	}
}
