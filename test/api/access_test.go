//go:build root

package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue(name)
	return a
}

func (a *authority) path(name, kind string) string {
	return filepath.Join(a.dir, name+"."+kind+".pem")
}

// issue writes NAME.cert.pem and NAME.key.pem; the first signs itself.
func (a *authority) issue(name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	check := func(err error) {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: a.cert == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := tmpl, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	check(err)
	cert, err := x509.ParseCertificate(der)
	check(err)
	secret, err := x509.MarshalECPrivateKey(key)
	check(err)
	check(os.WriteFile(a.path(name, "cert"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	check(os.WriteFile(a.path(name, "key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

// client calls with the certificate of that name; "" has none.
func (a *authority) client(name string, of *authority) *http.Client {
	a.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	conf := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(of.path(name, "cert"), of.path(name, "key"))
		if err != nil {
			a.t.Fatal(err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: conf}}
	a.t.Cleanup(c.CloseIdleConnections)
	return c
}

// TestAccess: who gets in by TCP, and what a socket for looking lets do.
func TestAccess(t *testing.T) {
	ca, foreign := newAuthority(t, "ca"), newAuthority(t, "foreign")
	ca.issue("server")
	ca.issue("client")
	foreign.issue("client")
	dir := t.TempDir()
	e := start(t, "-H", "unix://SOCK", "--host-ro", "unix://"+dir+"/ro.sock",
		"-H", "tcp://127.0.0.1:2376", "--host-ro", "tcp://127.0.0.1:2377",
		"--tlsverify", "--tlscacert", ca.path("ca", "cert"), "--tlscert", ca.path("server", "cert"), "--tlskey", ca.path("server", "key"))
	get := func(c *http.Client, url string) (int, error) {
		rep, err := c.Get(url)
		if err != nil {
			return 0, err
		}
		defer func() { _ = rep.Body.Close() }()
		return rep.StatusCode, nil
	}
	ours := ca.client("client", ca)
	if code, err := get(ours, "https://127.0.0.1:2376/info"); code != 200 {
		t.Errorf("our client: %d %v", code, err)
	}
	for name, c := range map[string]*http.Client{"no certificate": ca.client("", nil), "another authority's": ca.client("client", foreign)} {
		if code, err := get(c, "https://127.0.0.1:2376/info"); err == nil {
			t.Errorf("%s: status %d", name, code)
		}
	}
	if code, err := get(&http.Client{Timeout: 5 * time.Second}, "http://127.0.0.1:2376/info"); err == nil && code != 400 {
		t.Errorf("without TLS: status %d", code)
	}
	if r := e.Try("", "docker", "--tlsverify", "--tlscacert", ca.path("ca", "cert"), "--tlscert", ca.path("client", "cert"),
		"--tlskey", ca.path("client", "key"), "-H", "tcp://127.0.0.1:2376", "version"); harness.HaveDocker() && r.Code != 0 {
		t.Errorf("docker over TLS: %s%s", r.Stdout, r.Stderr)
	}

	ro := *e
	ro.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", dir+"/ro.sock")
	}}}
	t.Cleanup(ro.http.CloseIdleConnections)
	if a := ro.call("GET", "/containers/json", nil); a.code != 200 {
		t.Errorf("look: %d %s", a.code, a.body)
	}
	for _, v := range allVisits() {
		method, path, _ := strings.Cut(v.route, " ")
		if method == "GET" || method == "HEAD" || strings.HasSuffix(path, "/wait") {
			continue
		}
		if a := ro.call(method, path, []byte(`{}`)); a.code != 403 {
			t.Errorf("%s through the socket for looking: %d %s", v.route, a.code, a.body)
		}
	}
	rep, err := ours.Post("https://127.0.0.1:2377/containers/create", "application/json", strings.NewReader(`{"Image":"img"}`))
	if err != nil || rep.StatusCode != http.StatusForbidden {
		t.Errorf("create through the address for looking: %v %v", rep, err)
	}
	if err == nil {
		_ = rep.Body.Close()
	}
}
