//go:build root

package network

import (
	"context"
	"testing"

	"github.com/skiff-containers/skiff/internal/network/apply"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

// TestThousandsOfPorts publishes more than one message to the kernel carries, and
// makes the whole table anew with them: for a network, for one who flushed the
// rules, and at the start of a daemon.
func TestThousandsOfPorts(t *testing.T) {
	const each = 2500
	l := newLab(t)
	specs := func(first uint16) (out []PortSpec) {
		for i := range uint16(each) {
			out = append(out, tcpPort(first+i, first+i))
		}
		return out
	}
	published := func(what string, n int) {
		t.Helper()
		eventually(t, what, func() bool { return len(l.kernelPorts()) == n })
	}
	one := l.run("one", []string{"bridge"}, publish(specs(10000)...))
	l.run("two", []string{"bridge"}, publish(specs(20000)...))
	published("ports of both", 2*each)
	l.network("another")
	published("ports, with another network", 2*each)
	fw, err := apply.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	if err := fw.Delete(rules.IPv4, "skiff"); err != nil {
		t.Fatal(err)
	}
	published("ports, put back", 2*each)
	if err := one.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	published("ports of the second", each)
	l.restart()
	published("ports, after a restart", each)
}
