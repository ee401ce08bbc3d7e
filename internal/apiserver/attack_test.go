package apiserver

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// readOnly calls as somebody who may only read.
func readOnly(t *testing.T, s *Server, method, path string, body io.Reader, change func(*http.Request)) int {
	t.Helper()
	r := httptest.NewRequest(method, "/", body).WithContext(context.WithValue(t.Context(), callerKey{}, caller{access: ReadOnly, local: true}))
	u, err := r.URL.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	r.URL = u
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code
}

// A request that says it has no body, or says nothing of it, is judged like the
// one that is carried out.
func TestCVE_2024_41110_NoBody(t *testing.T) {
	f := newFake()
	s := New(Options{Backends: f.backends()})
	body := `{"Image":"busybox","HostConfig":{"Privileged":true,"Binds":["/:/host"]}}`
	for what, change := range map[string]func(*http.Request){
		"plain":     nil,
		"length 0":  func(r *http.Request) { r.ContentLength = 0; r.Header.Set("Content-Length", "0") },
		"no length": func(r *http.Request) { r.ContentLength = -1 },
		"chunked":   func(r *http.Request) { r.ContentLength = -1; r.TransferEncoding = []string{"chunked"} },
		"another method": func(r *http.Request) {
			r.Header.Set("X-HTTP-Method-Override", "GET")
			r.Header.Set("X-HTTP-Method", "GET")
		},
		"HEAD in disguise":   func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"an upgrade":         func(r *http.Request) { r.Header.Set("Connection", "Upgrade"); r.Header.Set("Upgrade", "tcp") },
		"gRPC over HTTP/2":   func(r *http.Request) { r.ProtoMajor = 2; r.Header.Set("Content-Type", "application/grpc") },
		"gRPC with a suffix": func(r *http.Request) { r.ProtoMajor = 2; r.Header.Set("Content-Type", "application/grpc+proto") },
	} {
		for _, path := range []string{"/containers/create", "/v1.41/containers/create", "/v1.41//containers/create", "/v1.41/./containers/create", "/x/../containers/create", "/containers%2fcreate", "/containers/create/", "/%63ontainers/create", "/containers/create?x=/json"} {
			if code := readOnly(t, s, http.MethodPost, path, strings.NewReader(body), change); code/100 == 2 {
				t.Errorf("%s, %s: %d", what, path, code)
			}
		}
	}
	for _, method := range []string{"post", "Post", "POST ", "PATCH", "GET\t", "CONNECT", "TRACE"} {
		code := readOnly(t, s, http.MethodPost, "/containers/create", strings.NewReader(body), func(r *http.Request) { r.Method = method })
		if code/100 == 2 {
			t.Errorf("%q: %d", method, code)
		}
	}
	if n := len(f.all); n != 0 {
		t.Errorf("%d containers were made", n)
	}
}

// A body that is larger than what is looked at: it is refused as a whole, also
// where what counts comes first.
func TestCVE_2026_34040_OversizedBody(t *testing.T) {
	f := newFake()
	s := New(Options{Backends: f.backends()})
	start := `{"Image":"busybox","HostConfig":{"Privileged":true},"Labels":{"pad":"`
	for what, body := range map[string]string{
		"a long value":       start + strings.Repeat("x", maxJSON) + `"}}`,
		"spaces after":       `{"Image":"busybox"}` + strings.Repeat(" ", maxJSON),
		"spaces before":      strings.Repeat(" ", maxJSON) + `{"Image":"busybox"}`,
		"another after it":   `{"Image":"busybox"}` + strings.Repeat(" ", 1<<20) + `{"Image":"busybox","HostConfig":{"Privileged":true}}`,
		"cut off at the end": start + strings.Repeat("x", maxJSON-len(start)),
	} {
		if got := call(t, s, "POST", "/containers/create", body); got.code != http.StatusBadRequest {
			t.Errorf("%s: %d %.100s", what, got.code, got.body)
		}
		if code := readOnly(t, s, http.MethodPost, "/containers/create", strings.NewReader(body), nil); code != http.StatusForbidden {
			t.Errorf("%s, of a reader: %d", what, code)
		}
	}
	if n := len(f.all); n != 0 {
		t.Errorf("%d containers were made", n)
	}
	// More than a megabyte, which the proxies of others do not look into, is seen.
	if got := call(t, s, "POST", "/containers/create", `{"Image":"busybox","Labels":{"pad":"`+strings.Repeat("x", 2<<20)+`"}}`); got.code != 201 {
		t.Errorf("two megabytes: %d %.100s", got.code, got.body)
	}
}
