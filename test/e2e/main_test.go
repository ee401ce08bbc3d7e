//go:build root

// Package e2e drives the real skiffd with the docker command line, as its users do.
package e2e

import (
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

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
