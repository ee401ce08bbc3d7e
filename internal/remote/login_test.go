package remote

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// loginServer is a registry with a token server; it keeps what the latter was
// asked.
type loginServer struct {
	address   string
	challenge []string
	asked     []string
}

func newLoginServer(t *testing.T, token http.HandlerFunc) *loginServer {
	t.Helper()
	s := &loginServer{}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.address = strings.TrimPrefix(srv.URL, "http://")
	s.challenge = []string{`Bearer realm="` + srv.URL + `/token?x=y",service="reg"`}
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		user, _, _ := r.BasicAuth()
		s.asked = append(s.asked, r.Method+" "+user+" "+r.Form.Encode())
		token(w, r)
	})
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if a := r.Header.Get("Authorization"); a == "Bearer t0k" || user == "me" && password == "pw" {
			return
		}
		for _, c := range s.challenge {
			w.Header().Add("WWW-Authenticate", c)
		}
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
	})
	return s
}

// tokens knows one password and one identity token, by the methods given.
func tokens(methods string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(methods, r.Method) {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		user, password, _ := r.BasicAuth()
		switch {
		case r.Method == http.MethodGet && user == "me" && password == "pw" && r.Form.Get("offline_token") == "true",
			r.Form.Get("grant_type") == "password" && r.Form.Get("username") == "me" && r.Form.Get("password") == "pw" && r.Form.Get("access_type") == "offline":
			_ = json.NewEncoder(w).Encode(map[string]string{"token": "t0k", "access_token": "t0k", "refresh_token": "idt"})
		case r.Form.Get("grant_type") == "refresh_token" && r.Form.Get("refresh_token") == "idt":
			_ = json.NewEncoder(w).Encode(map[string]string{"access_token": "t0k"})
		default:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"details":"incorrect username or password"}`))
		}
	}
}

func TestLogin(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		methods   string
		challenge []string // instead of a token server's
		auth      registry.AuthConfig
		identity  string
		refused   string
		asked     []string
	}{
		"a password for an identity token": {
			methods: "GET POST", auth: registry.AuthConfig{Username: "me", Password: "pw"}, identity: "idt",
			asked: []string{"GET me account=me&client_id=docker&offline_token=true&service=reg&x=y"},
		},
		"a server that knows POST only": {
			methods: "POST", auth: registry.AuthConfig{Username: "me", Password: "pw"}, identity: "idt",
			asked: []string{
				"GET me account=me&client_id=docker&offline_token=true&service=reg&x=y",
				"POST  access_type=offline&client_id=docker&grant_type=password&password=pw&service=reg&username=me&x=y",
			},
		},
		"an identity token": {
			methods: "GET POST", auth: registry.AuthConfig{Username: "me", IdentityToken: "idt"}, identity: "idt",
			asked: []string{"POST  access_type=offline&client_id=docker&grant_type=refresh_token&refresh_token=idt&service=reg&x=y"},
		},
		"an identity token as a helper keeps it": {
			methods: "GET POST", auth: registry.AuthConfig{Username: "<token>", Password: "idt"},
			asked: []string{"POST  access_type=offline&client_id=docker&grant_type=refresh_token&refresh_token=idt&service=reg&x=y"},
		},
		"a wrong password": {
			methods: "GET POST", auth: registry.AuthConfig{Username: "me", Password: "no"}, refused: "unauthorized: incorrect username or password",
			asked: []string{"GET me account=me&client_id=docker&offline_token=true&service=reg&x=y"},
		},
		"a wrong identity token": {
			methods: "GET POST", auth: registry.AuthConfig{IdentityToken: "no"}, refused: "unauthorized: incorrect username or password",
			asked: []string{"POST  access_type=offline&client_id=docker&grant_type=refresh_token&refresh_token=no&service=reg&x=y"},
		},
		"no token server":                  {challenge: []string{`Basic realm="reg"`}, auth: registry.AuthConfig{Username: "me", Password: "pw"}},
		"no token server, wrong password":  {challenge: []string{`Basic realm="reg"`}, auth: registry.AuthConfig{Username: "me", Password: "no"}, refused: "unauthorized: authentication required"},
		"an unknown challenge before":      {challenge: []string{"Negotiate", `Basic realm="reg"`}, auth: registry.AuthConfig{Username: "me", Password: "pw"}},
		"only challenges that are unknown": {challenge: []string{"Negotiate"}, auth: registry.AuthConfig{Username: "me", Password: "pw"}, refused: "unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newLoginServer(t, tokens(tc.methods))
			if tc.challenge != nil {
				s.challenge = tc.challenge
			}
			tc.auth.ServerAddress = s.address
			got, err := c.Login(t.Context(), &tc.auth)
			if diff := cmp.Diff(tc.asked, s.asked); diff != "" {
				t.Errorf("asked of the token server -want +got:\n%s", diff)
			}
			if tc.refused != "" {
				if !errs.Is(err, errs.Unauthorized) || !strings.Contains(err.Error(), tc.refused) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || got.Status != "Login Succeeded" || got.IdentityToken != tc.identity {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// What a login got is used, in the same client's name, by what comes after.
func TestAnIdentityTokenIsUsedByItsClient(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	host := tokenRegistry(t, func(r *http.Request) bool {
		return r.Method == http.MethodPost && r.Form.Get("refresh_token") == "idt" && r.Form.Get("client_id") == "docker"
	})
	named, err := reference.ParseNormalizedNamed(host + "/app")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []registry.AuthConfig{{IdentityToken: "idt"}, {Username: "<token>", Password: "idt"}} {
		if _, _, err := c.Repository(named, &a).Manifest(t.Context(), "latest"); err != nil {
			t.Errorf("%+v: %v", a, err)
		}
	}
}
