package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func TestInsecure(t *testing.T) {
	c, err := New(Options{Settings: Settings{InsecureRegistries: []string{"10.0.0.0/8", "reg.example", "other.example:5000"}}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.1.2.3": true, "[::1]:5000": true,
		"10.1.2.3:443": true, "11.1.2.3": false, "reg.example": true, "REG.example:99": true, "other.example:5000": true, "8.8.8.8": false,
	} {
		if got := c.Insecure(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	for _, bad := range []string{"https://x", "", "a/b"} {
		if _, err := New(Options{Settings: Settings{InsecureRegistries: []string{bad}}}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q accepted", bad)
		}
	}
	for _, bad := range []string{"ftp://x", "x", "https://u:p@x", "https://x?q"} {
		if _, err := New(Options{Settings: Settings{Mirrors: []string{bad}}}); !errs.Is(err, errs.Invalid) {
			t.Errorf("mirror %q accepted", bad)
		}
	}
}

func TestCredentialsNeverReachAMirror(t *testing.T) {
	c, err := New(Options{Settings: Settings{Mirrors: []string{"https://mirror.example/cache"}}})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := c.Hosts(func(string) *registry.AuthConfig { return &registry.AuthConfig{RegistryToken: "secret"} })("docker.io")
	if err != nil || len(hosts) != 2 {
		t.Fatalf("%v %v", hosts, err)
	}
	if hosts[0].Host != "mirror.example" || hosts[0].Path != "/cache/v2" || hosts[0].Header != nil || hosts[0].Capabilities.Has(docker.HostCapabilityPush) {
		t.Errorf("mirror: %+v", hosts[0])
	}
	if hosts[1].Host != "registry-1.docker.io" || hosts[1].Header.Get("Authorization") != "Bearer secret" {
		t.Errorf("registry: %+v", hosts[1])
	}
}

func TestExplain(t *testing.T) {
	named, _ := reference.ParseNormalizedNamed("busybox")
	status := func(code int, body string) error {
		return fmt.Errorf("x: %w", remoteerrors.ErrUnexpectedStatus{StatusCode: code, Body: []byte(body)})
	}
	for name, tc := range map[string]struct {
		op   string
		err  error
		kind errs.Kind
		want string
	}{
		"access denied": {
			"pull", fmt.Errorf("x: %w", docker.ErrInvalidAuthorization), errs.NotFound,
			"pull access denied for busybox, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
		},
		"push denied": {
			"push", status(403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`), errs.Denied,
			"denied: requested access to the resource is denied",
		},
		"no manifest": {"pull", fmt.Errorf("x: %w", errdefs.ErrNotFound), errs.NotFound, "manifest for busybox:1 not found: manifest unknown: manifest unknown"},
		"no such name": {
			"pull", status(404, `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`), errs.NotFound,
			"pull access denied for busybox, repository does not exist or may require 'docker login': name unknown: repository name not known to registry",
		},
		"rate":      {"pull", status(429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`), errs.Unavailable, "toomanyrequests: slow down"},
		"broken":    {"pull", status(502, "<html>"), errs.Unavailable, "pull busybox:1: received unexpected HTTP status: 502 Bad Gateway: registry answered Bad Gateway"},
		"cancelled": {"pull", context.Canceled, errs.Canceled, "context canceled"},
		"cut off":   {"pull", io.ErrUnexpectedEOF, errs.Unavailable, "pull busybox: the registry broke off in the middle of an answer: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			got := explain(tc.op, named, "1", tc.err)
			if got.Error() != tc.want || errs.KindOf(got) != tc.kind {
				t.Errorf("got  %v (%v)\nwant %s (%v)", got, errs.KindOf(got), tc.want, tc.kind)
			}
		})
	}
}

func TestNextPage(t *testing.T) {
	for link, want := range map[string]string{
		`</v2/x/tags/list?last=a&n=2>; rel="next"`:          "/x/tags/list?last=a&n=2",
		`<https://evil.example/v2/x/tags/list>; rel="next"`: "/x/tags/list",
		`</v2/x/tags/list>; rel="prev"`:                     "",
		"":                                                  "",
		"garbage":                                           "",
	} {
		if got := nextPage(link, "/v2"); got != want {
			t.Errorf("%s: %q", link, got)
		}
	}
}

// tokenRegistry asks for a bearer token, as docker.io does.
func tokenRegistry(t *testing.T, check func(r *http.Request) bool) string {
	t.Helper()
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	body := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if !check(r) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"token": "t0k", "access_token": "t0k"})
	})
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0k" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+srv.URL+`/token",service="reg",scope="repository:app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(body)
		}
	})
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestBearerTokens(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		auth  *registry.AuthConfig
		check func(r *http.Request) bool
		ok    bool
	}{
		"anonymous": {nil, func(r *http.Request) bool {
			_, _, has := r.BasicAuth()
			return !has && r.Form.Get("scope") == "repository:app:pull"
		}, true},
		"password": {&registry.AuthConfig{Username: "me", Password: "pw"}, func(r *http.Request) bool {
			u, p, _ := r.BasicAuth()
			return u == "me" && p == "pw" || r.Form.Get("username") == "me" && r.Form.Get("password") == "pw"
		}, true},
		"identity token": {&registry.AuthConfig{Username: "<token>", IdentityToken: "idt"}, func(r *http.Request) bool {
			return r.Method == http.MethodPost && r.Form.Get("refresh_token") == "idt"
		}, true},
		"registry token": {&registry.AuthConfig{RegistryToken: "t0k"}, func(*http.Request) bool { return false }, true},
		"wrong password": {&registry.AuthConfig{Username: "me", Password: "no"}, func(*http.Request) bool { return false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			named, err := reference.ParseNormalizedNamed(tokenRegistry(t, tc.check) + "/app")
			if err != nil {
				t.Fatal(err)
			}
			desc, body, err := c.Repository(named, tc.auth).Manifest(t.Context(), "latest")
			if tc.ok != (err == nil) {
				t.Fatalf("got %v", err)
			}
			if tc.ok && (desc.MediaType != ocispec.MediaTypeImageIndex || digest.FromBytes(body) != desc.Digest) {
				t.Errorf("%+v", desc)
			}
			if !tc.ok {
				t.Log(err)
			}
		})
	}
}

func TestLoginToNothing(t *testing.T) {
	c, _ := New(Options{})
	_, err := c.Login(t.Context(), &registry.AuthConfig{Username: "a", Password: "b", ServerAddress: "127.0.0.1:1"})
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestForeignAddressesAreNotFollowed(t *testing.T) {
	hit := false
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hit = true }))
	defer srv.Close()
	c, _ := New(Options{})
	named, _ := reference.ParseNormalizedNamed(tokenRegistry(t, func(*http.Request) bool { return true }) + "/app")
	rc, err := c.Repository(named, nil).Blob(t.Context(), ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("x"), Size: 1, URLs: []string{srv.URL + "/internal"},
	})
	if err == nil {
		_, _ = io.Copy(io.Discard, rc)
		_ = rc.Close()
	}
	if hit {
		t.Error("an address named by a manifest was asked")
	}
}

func TestSearchLimits(t *testing.T) {
	c, _ := New(Options{})
	for _, n := range []int{-1, 101} {
		if _, err := c.Search(t.Context(), "x", n, nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("limit %d: %v", n, err)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/search" || r.URL.Query().Get("q") != "bus" || r.URL.Query().Get("n") != "25" {
			t.Errorf("asked %s", r.URL)
		}
		_ = json.NewEncoder(w).Encode(registry.SearchResults{Results: []registry.SearchResult{{Name: "busybox", StarCount: 3}}})
	}))
	defer srv.Close()
	got, err := c.Search(t.Context(), strings.TrimPrefix(srv.URL, "http://")+"/bus", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]registry.SearchResult{{Name: "busybox", StarCount: 3}}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzNextPage(f *testing.F) {
	f.Add(`</v2/x?last=a>; rel="next"`)
	f.Fuzz(func(t *testing.T, link string) {
		if p := nextPage(link, "/v2"); strings.HasPrefix(p, "http") && strings.Contains(p, "://") {
			t.Errorf("%q leads to another host: %q", link, p)
		}
	})
}

var errTest = errors.New("x")

// TestTooManyTags has a registry that makes up pages of tags without an end.
func TestTooManyTags(t *testing.T) {
	page := `{"tags":["` + strings.Repeat("t", 1<<20) + `","` + strings.Repeat(`t","`, 300_000) + `t"]}`
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tags/list") {
			asked++
			w.Header().Set("Link", `</v2/app/tags/list?last=t>; rel="next"`)
			_, _ = io.WriteString(w, page)
		}
	}))
	defer srv.Close()
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(srv.URL, "http://") + "/app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Repository(named, nil).Tags(t.Context()); !errs.Is(err, errs.Invalid) || asked > 3 {
		t.Errorf("%v, asked %d times", err, asked)
	}
}

func TestExplainKeepsTheRest(t *testing.T) {
	named, _ := reference.ParseNormalizedNamed("busybox")
	if got := explain("pull", named, "1", errTest); !errors.Is(got, errTest) {
		t.Error(got)
	}
}
