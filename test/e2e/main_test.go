//go:build root

// Package e2e drives the real skiffd with the docker command line, as its users do.
package e2e

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// udpEcho, set to an address, makes the test's program a UDP echo server: the
// static busybox has none.
const udpEcho = "SKIFF_TEST_UDP_ECHO"

func TestMain(m *testing.M) {
	if addr := os.Getenv(udpEcho); addr != "" {
		echoUDP(addr)
	}
	harness.Main(m)
}

func echoUDP(addr string) {
	c, err := net.ListenPacket("udp4", addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err == nil {
			_, _ = c.WriteTo(buf[:n], from)
		}
	}
}

// daemon starts a daemon with the busybox image in it.
func daemon(t *testing.T, args ...string) *harness.Daemon {
	t.Helper()
	d := harness.Start(t, args...)
	d.Busybox()
	return d
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
