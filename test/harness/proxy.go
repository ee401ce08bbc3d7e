//go:build root

package harness

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

const proxyEnv = "SKIFF_TEST_PROXY"

// serveProxy lets the tests, whose network namespace reaches nothing, fetch
// Debian packages: a forward proxy for plain http, outside of it, on a unix
// socket. It returns the socket's path.
func serveProxy() (string, func(), error) {
	dir, err := os.MkdirTemp("", "skiff-proxy-")
	if err != nil {
		return "", nil, err
	}
	path := filepath.Join(dir, "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: http.HandlerFunc(forward)} //nolint:gosec // a test's own
	go func() { _ = srv.Serve(l) }()
	return path, func() { _ = srv.Close(); _ = os.RemoveAll(dir) }, nil
}

func forward(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.Scheme != "http" {
		http.Error(w, "only plain http downloads", http.StatusForbidden)
		return
	}
	req := r.Clone(r.Context())
	req.RequestURI = ""
	req.Header.Del("Proxy-Connection")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	for k, vs := range resp.Header {
		w.Header()[k] = vs
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// Proxy listens on every address of the test's network namespace and returns
// the port of an http proxy that reaches the package archives.
func Proxy(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				u, err := net.Dial("unix", os.Getenv(proxyEnv))
				if err != nil {
					return
				}
				defer func() { _ = u.Close() }()
				go func() { _, _ = io.Copy(u, c); _ = u.(*net.UnixConn).CloseWrite() }()
				_, _ = io.Copy(c, u)
			}()
		}
	}()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}
