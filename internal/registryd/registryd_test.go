package registryd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/registryd"
	"github.com/skiff-containers/skiff/internal/registryd/registrytest"
)

func do(t *testing.T, c *http.Client, method, url, body string, change ...func(*http.Request)) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(req)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header
}

func TestBlobsComeAndGo(t *testing.T) {
	base := "http://" + registrytest.Start(t)
	c := http.DefaultClient
	if code, _, h := do(t, c, "GET", base+"/v2/", ""); code != 200 || h.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("ping %d", code)
	}
	d := digest.FromString("hello").String()
	_, _, h := do(t, c, "POST", base+"/v2/a/b/blobs/uploads/", "")
	if code, body, _ := do(t, c, "PUT", base+h.Get("Location")+"&digest="+d, "hello"); code != 201 {
		t.Fatalf("upload: %d %s", code, body)
	}
	if code, body, _ := do(t, c, "GET", base+"/v2/a/b/blobs/"+d, ""); code != 200 || body != "hello" {
		t.Errorf("blob: %d %s", code, body)
	}
	if code, _, _ := do(t, c, "DELETE", base+"/v2/a/b/blobs/"+d, ""); code != 202 {
		t.Errorf("delete: %d", code)
	}
	if code, _, _ := do(t, c, "GET", base+"/v2/a/b/blobs/"+d, ""); code != 404 {
		t.Errorf("deleted blob: %d", code)
	}
}

func TestPasswords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	hash, _ := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err := os.WriteFile(file, []byte("# users\nme:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := "http://" + registrytest.Start(t, func(o *registryd.Options) { o.Htpasswd = file })
	as := func(u, p string) func(*http.Request) { return func(r *http.Request) { r.SetBasicAuth(u, p) } }
	for name, tc := range map[string]struct {
		change []func(*http.Request)
		want   int
	}{
		"nobody": {nil, 401}, "good": {[]func(*http.Request){as("me", "pw")}, 200}, "good again": {[]func(*http.Request){as("me", "pw")}, 200},
		"wrong": {[]func(*http.Request){as("me", "x")}, 401}, "unknown": {[]func(*http.Request){as("you", "pw")}, 401},
	} {
		if code, _, h := do(t, http.DefaultClient, "GET", base+"/v2/", "", tc.change...); code != tc.want || code == 401 && h.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d", name, code)
		}
	}
	// A changed file counts at once, also for who was let in before.
	if err := os.WriteFile(file, []byte("you:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Chtimes(file, time.Now(), time.Now().Add(time.Hour))
	if code, _, _ := do(t, http.DefaultClient, "GET", base+"/v2/", "", as("me", "pw")); code != 401 {
		t.Errorf("removed user: %d", code)
	}
	for name, text := range map[string]string{"no colon": "me\n", "plain text": "me:pw\n"} {
		bad := filepath.Join(t.TempDir(), "bad")
		_ = os.WriteFile(bad, []byte(text), 0o600)
		if _, err := registryd.New(registryd.Options{Dir: t.TempDir(), Addr: "127.0.0.1:0", Htpasswd: bad}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, _ := x509.MarshalPKCS8PrivateKey(key)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	_ = os.WriteFile(certFile, certPEM, 0o600)
	_ = os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)
	addr := registrytest.Start(t, func(o *registryd.Options) { o.Cert, o.Key = certFile, keyFile })
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	if code, _, _ := do(t, c, "GET", "https://"+addr+"/v2/", ""); code != 200 {
		t.Errorf("got %d", code)
	}
	if _, err := registryd.New(registryd.Options{Dir: dir, Addr: "127.0.0.1:0", Cert: certFile}); !errs.Is(err, errs.Invalid) {
		t.Errorf("a certificate without key: %v", err)
	}
	if _, err := registryd.New(registryd.Options{Dir: dir, Addr: addr}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a taken address: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	base := "http://" + registrytest.Start(t, func(o *registryd.Options) { o.ReadOnly, o.NoDelete = true, true })
	if code, _, _ := do(t, http.DefaultClient, "POST", base+"/v2/a/blobs/uploads/", ""); code != 405 {
		t.Errorf("push: %d", code)
	}
}
