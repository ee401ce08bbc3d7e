package remote

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// ask sends a request for a host's name to the server.
func ask(t *testing.T, c *Client, host string, srv *httptest.Server) (*transport, *http.Response, error) {
	t.Helper()
	rt, err := c.transport(host)
	if err != nil {
		t.Fatal(err)
	}
	tr := rt.(*transport)
	tr.base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	resp, err := (&http.Client{Transport: rt}).Get("https://" + host + "/")
	if err == nil {
		_ = resp.Body.Close()
	}
	return tr, resp, err
}

// Certificates count from the moment they are there.
func TestCertificatesAreReadAgain(t *testing.T) {
	var seen []*x509.Certificate
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.TLS.PeerCertificates }))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	defer srv.Close()
	certs := t.TempDir()
	c, err := New(Options{CertsDir: certs})
	if err != nil {
		t.Fatal(err)
	}
	const host = "example.com:443" // httptest's certificate is for it
	dir := filepath.Join(certs, host)
	if _, _, err := ask(t, c, host, srv); err == nil {
		t.Fatal("an unknown authority is trusted")
	}
	write := func(name string, block *pem.Block) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.crt", &pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	first, _, err := ask(t, c, host, srv)
	if err != nil || len(seen) != 0 {
		t.Fatalf("with the authority: %v, %d certificates of the client", err, len(seen))
	}
	if again, _, _ := ask(t, c, host, srv); again != first {
		t.Error("connections are made anew without need")
	}
	for serial := range int64(2) {
		cert, key := selfSigned(t, serial+7)
		write("client.cert", &pem.Block{Type: "CERTIFICATE", Bytes: cert})
		write("client.key", &pem.Block{Type: "EC PRIVATE KEY", Bytes: key})
		if _, _, err := ask(t, c, host, srv); err != nil || len(seen) != 1 || seen[0].SerialNumber.Int64() != serial+7 {
			t.Errorf("certificate %d: %v, %v", serial+7, err, seen)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t, c, host, srv); err == nil {
		t.Error("an authority that was taken away is trusted")
	}
	apply, err := c.Prepare(Settings{InsecureRegistries: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	apply()
	if _, _, err := ask(t, c, host, srv); err != nil {
		t.Errorf("insecure by new settings: %v", err)
	}
}

func selfSigned(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	if cert, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k); err != nil {
		t.Fatal(err)
	}
	if key, err = x509.MarshalECPrivateKey(k); err != nil {
		t.Fatal(err)
	}
	return cert, key
}
