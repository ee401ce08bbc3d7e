//go:build root

package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// receiver takes what log drivers send.
type receiver struct {
	t       *testing.T
	network string
	address string
	split   bufio.SplitFunc // streams: what a message is; it is also told where to answer
	conf    *tls.Config
	wg      sync.WaitGroup

	paused atomic.Bool // it does not read

	mu     sync.Mutex // guards all below
	got    []string
	open   []io.Closer
	closed bool
}

func listen(t *testing.T, network, address string, split bufio.SplitFunc) *receiver {
	t.Helper()
	r := &receiver{t: t, network: network, address: address, split: split}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func listenTLS(t *testing.T, cert tls.Certificate, split bufio.SplitFunc) *receiver {
	t.Helper()
	r := &receiver{t: t, network: "tcp", address: "127.0.0.1:0", split: split, conf: &tls.Config{Certificates: []tls.Certificate{cert}}}
	r.start()
	t.Cleanup(r.stop)
	return r
}

// start begins to listen, at the same address as before.
func (r *receiver) start() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = false
	if r.network == "udp" || r.network == "unixgram" {
		c, err := net.ListenPacket(r.network, r.address)
		if err != nil {
			r.t.Fatal(err)
		}
		r.address = c.LocalAddr().String()
		r.open = append(r.open, c)
		r.wg.Go(func() { r.packets(c) })
		return
	}
	l, err := net.Listen(r.network, r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.address = l.Addr().String()
	r.open = append(r.open, l)
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r.conf != nil {
				c = tls.Server(c, r.conf)
			}
			r.mu.Lock()
			if r.closed {
				_ = c.Close()
			}
			r.open = append(r.open, c)
			r.mu.Unlock()
			r.wg.Go(func() { r.stream(c) })
		}
	})
}

func (r *receiver) packets(c net.PacketConn) {
	b := make([]byte, 1<<20)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		r.add(strings.TrimSuffix(string(b[:n]), "\n"))
	}
}

// gated reads only while the receiver is not paused.
type gated struct {
	r *receiver
	net.Conn
}

func (g gated) Read(p []byte) (int, error) {
	for {
		for g.r.paused.Load() {
			time.Sleep(5 * time.Millisecond)
		}
		_ = g.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := g.Conn.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

func (r *receiver) stream(c net.Conn) {
	defer func() { _ = c.Close() }()
	var in io.Reader = c
	if r.conf == nil {
		in = gated{r, c}
	}
	s := bufio.NewScanner(in)
	s.Buffer(nil, 4<<20)
	s.Split(r.split)
	for s.Scan() {
		text := s.Text()
		// What asks for an acknowledgement comes as "id\x00records".
		if id, records, ok := strings.Cut(text, "\x00"); ok {
			answer := append([]byte{0x81, 0xa3, 'a', 'c', 'k', 0xd9, byte(len(id))}, id...)
			for _, rec := range strings.Split(records, "\x00") {
				r.add(rec)
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
			continue
		}
		r.add(text)
	}
}

func (r *receiver) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, s)
}

func (r *receiver) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// await waits for n messages and a moment more.
func (r *receiver) await(n int) []string {
	r.t.Helper()
	harness.Eventually(r.t, 10*time.Second, func() string {
		if len(r.all()) < n {
			return fmt.Sprintf("%d of %d messages came: %q", len(r.all()), n, r.all())
		}
		return ""
	})
	if got := r.all(); len(got) != n {
		r.t.Fatalf("%d messages came, not %d: %q", len(got), n, got)
	}
	return r.all()
}

// stop leaves, as a program that ends does.
func (r *receiver) stop() {
	r.mu.Lock()
	r.closed = true
	for _, c := range r.open {
		_ = c.Close()
	}
	r.open = nil
	r.mu.Unlock()
	r.paused.Store(false)
	r.wg.Wait()
}

func splitLines(b []byte, eof bool) (int, []byte, error) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1, b[:i], nil
	}
	return 0, nil, nil
}

func splitZero(b []byte, eof bool) (int, []byte, error) {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return i + 1, b[:i], nil
	}
	return 0, nil, nil
}

// splitCounted takes RFC 5425's "LENGTH MESSAGE".
func splitCounted(b []byte, eof bool) (int, []byte, error) {
	i := bytes.IndexByte(b, ' ')
	if i < 0 {
		return 0, nil, nil
	}
	n, err := strconv.Atoi(string(b[:i]))
	if err != nil {
		return 0, nil, fmt.Errorf("no length: %q", b[:min(len(b), 40)])
	}
	if len(b) < i+1+n {
		return 0, nil, nil
	}
	return i + 1 + n, b[i+1 : i+1+n], nil
}

// splitPacked gives each of fluentd's messages as JSON.
func splitPacked(b []byte, eof bool) (int, []byte, error) {
	v, rest, err := unpack(b)
	if err != nil {
		return 0, nil, nil // not whole yet
	}
	m := v.([]any)
	return len(b) - len(rest), packedJSON(m[0], m[1], m[2]), nil
}

// splitPackedAck gives the entries of a chunk, behind its id.
func splitPackedAck(b []byte, eof bool) (int, []byte, error) {
	v, rest, err := unpack(b)
	if err != nil {
		return 0, nil, nil
	}
	m := v.([]any)
	id := m[2].(map[string]any)["chunk"].(string)
	if raw, err := base64.StdEncoding.DecodeString(id); err != nil || len(raw) != 16 {
		return 0, nil, fmt.Errorf("chunk id %q", id)
	}
	out := []byte(id)
	for _, e := range m[1].([]any) {
		pair := e.([]any)
		out = append(append(out, 0), packedJSON(m[0], pair[0], pair[1])...)
	}
	return len(b) - len(rest), out, nil
}

// splitPackedAckNumbers is splitPackedAck with the lines alone.
func splitPackedAckNumbers(b []byte, eof bool) (int, []byte, error) {
	n, tok, err := splitPackedAck(b, eof)
	if tok == nil {
		return n, tok, err
	}
	parts := bytes.Split(tok, []byte{0})
	for i, p := range parts[1:] {
		var m struct{ Record map[string]string }
		_ = json.Unmarshal(p, &m)
		parts[i+1] = []byte(m.Record["log"])
	}
	return n, bytes.Join(parts, []byte{0}), err
}

func packedJSON(tag, at, record any) []byte {
	b, err := json.Marshal(map[string]any{"Tag": tag, "Nanos": at, "Record": record})
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

// unpack decodes one MessagePack value. An EventTime becomes its nanoseconds.
func unpack(b []byte) (v any, rest []byte, err error) {
	defer func() {
		if p := recover(); p != nil { // cut short
			v, rest, err = nil, nil, io.ErrUnexpectedEOF
		}
	}()
	return unpackValue(b)
}

func unpackValue(b []byte) (any, []byte, error) {
	t, b := b[0], b[1:]
	be := binary.BigEndian
	text := func(n int) (any, []byte, error) { return string(b[:n]), b[n:], nil }
	list := func(n int) (any, []byte, error) {
		out := make([]any, 0, n)
		for range n {
			v, rest, err := unpackValue(b)
			if err != nil {
				return nil, nil, err
			}
			out, b = append(out, v), rest
		}
		return out, b, nil
	}
	dict := func(n int) (any, []byte, error) {
		v, rest, err := list(2 * n)
		if err != nil {
			return nil, nil, err
		}
		out := map[string]any{}
		for pairs := v.([]any); len(pairs) > 0; pairs = pairs[2:] {
			out[pairs[0].(string)] = pairs[1]
		}
		return out, rest, nil
	}
	switch {
	case t>>4 == 8:
		return dict(int(t & 15))
	case t>>4 == 9:
		return list(int(t & 15))
	case t>>5 == 5:
		return text(int(t & 31))
	}
	switch t {
	case 0xd9:
		n := int(b[0])
		b = b[1:]
		return text(n)
	case 0xda:
		n := int(be.Uint16(b))
		b = b[2:]
		return text(n)
	case 0xdc:
		n := int(be.Uint16(b))
		b = b[2:]
		return list(n)
	case 0xd3:
		return int64(be.Uint64(b)) * 1e9, b[8:], nil
	case 0xd7:
		if b[0] != 0 {
			return nil, nil, fmt.Errorf("extension %d", b[0])
		}
		return int64(be.Uint32(b[1:]))*1e9 + int64(be.Uint32(b[5:])), b[9:], nil
	}
	return nil, nil, fmt.Errorf("type %#x", t)
}

// certificate makes an authority, whose certificate is in a file, and a server's
// certificate for 127.0.0.1.
func certificate(t *testing.T, dir string) (caFile string, server tls.Certificate) {
	t.Helper()
	make1 := func(parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		if parent == nil {
			parent, by = c, key
		} else {
			c.KeyUsage = x509.KeyUsageDigitalSignature
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return der, c, key
	}
	caDER, ca, caKey := make1(nil, nil)
	der, _, key := make1(ca, caKey)
	caFile = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	return caFile, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// start runs a program for the time of the test.
func start(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}
