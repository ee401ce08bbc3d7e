// Package registrytest gives tests a registry of their own.
package registrytest

import (
	"context"
	"net/http"
	"testing"

	"github.com/skiff-containers/skiff/internal/registryd"
)

// Start serves a registry in a temporary directory on a free loopback port,
// until the test ends, and returns its "host:port".
func Start(t testing.TB, change ...func(*registryd.Options)) string {
	t.Helper()
	o := registryd.Options{Dir: t.TempDir(), Addr: "127.0.0.1:0"}
	for _, f := range change {
		f(&o)
	}
	s, err := registryd.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && err != http.ErrServerClosed {
			t.Logf("registry: %v", err)
		}
	})
	return s.Addr()
}
