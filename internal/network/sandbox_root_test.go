//go:build root

package network

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// bothBridges runs a test with bridges that call the firewall and that do not.
func bothBridges(t *testing.T, test func(t *testing.T, callsFirewall bool)) {
	const knob = "net/bridge/bridge-nf-call-iptables"
	if err := link.WriteSysctl(knob, "0"); err != nil { // no br_netfilter here
		test(t, false)
		return
	}
	t.Run("bridges", func(t *testing.T) { test(t, false) })
	if err := link.WriteSysctl(knob, "1"); err != nil {
		t.Fatal(err)
	}
	t.Run("bridges that call the firewall", func(t *testing.T) { test(t, true) })
}

func TestContainersTalk(t *testing.T) { bothBridges(t, testContainersTalk) }

func testContainersTalk(t *testing.T, _ bool) {
	l := newLab(t)
	a := l.run("a", []string{"bridge"})
	b := l.run("b", []string{"bridge"})
	l.serve(b, ":80", "b")
	if a.ip(t, "bridge") != netip.MustParseAddr("172.17.0.2") || b.ip(t, "bridge") != netip.MustParseAddr("172.17.0.3") {
		t.Errorf("addresses %s and %s", a.ip(t, "bridge"), b.ip(t, "bridge"))
	}
	t.Run("with each other", func(t *testing.T) {
		l.reaches(a, "tcp4", "172.17.0.3:80", "b 172.17.0.2")
		l.reaches(a, "udp4", "172.17.0.3:80", "b 172.17.0.2")
	})
	t.Run("with the host", func(t *testing.T) {
		l.reaches(nil, "tcp4", "172.17.0.3:80", "b 172.17.0.1")
		l.serve(nil, "172.17.0.1:81", "host")
		l.reaches(a, "tcp4", "172.17.0.1:81", "host 172.17.0.2")
	})
	t.Run("with the outside, with the host's address", func(t *testing.T) {
		out := l.outside()
		l.serve(out, ":82", "out")
		l.reaches(a, "tcp4", "198.51.100.2:82", "out 198.51.100.1")
	})
}

func TestPublishedPorts(t *testing.T) { bothBridges(t, testPublishedPorts) }

func testPublishedPorts(t *testing.T, _ bool) {
	l := newLab(t)
	out := l.outside()
	web := l.run("web", []string{"bridge"}, publish(tcpPort(8080, 80), udpPort(8080, 80), tcpPort(0, 80)))
	l.serve(web, ":80", "web")
	other := l.run("other", []string{"bridge"})
	l.network("far")
	far := l.run("far", []string{"far"})

	t.Run("from outside, with the client's address", func(t *testing.T) {
		l.reaches(out, "tcp4", "198.51.100.1:8080", "web 198.51.100.2")
		l.reaches(out, "udp4", "198.51.100.1:8080", "web 198.51.100.2")
	})
	t.Run("from the host", func(t *testing.T) {
		for _, proto := range []string{"tcp4", "udp4"} {
			l.reaches(nil, proto, "127.0.0.1:8080", "web")
			l.reaches(nil, proto, "198.51.100.1:8080", "web")
			l.reaches(nil, proto, "172.17.0.1:8080", "web")
		}
	})
	t.Run("from the host over IPv6", func(t *testing.T) {
		l.reaches(nil, "tcp6", "[::1]:8080", "web")
		l.reaches(nil, "udp6", "[::1]:8080", "web")
	})
	t.Run("from containers through the host", func(t *testing.T) {
		for _, proto := range []string{"tcp4", "udp4"} {
			l.reaches(other, proto, "198.51.100.1:8080", "web") // same bridge
			l.reaches(web, proto, "198.51.100.1:8080", "web")   // itself
			l.reaches(far, proto, "198.51.100.1:8080", "web")   // another bridge
			l.reaches(far, proto, "172.17.0.1:8080", "web")
		}
	})
	t.Run("of any number", func(t *testing.T) {
		var chosen string
		for _, b := range web.Ports()[network.MustParsePort("80/tcp")] {
			if b.HostPort != "8080" {
				chosen = b.HostPort
			}
		}
		l.reaches(out, "tcp4", "198.51.100.1:"+chosen, "web")
	})
	t.Run("not on after the end", func(t *testing.T) {
		if err := web.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		l.unreachable(out, "tcp4", "198.51.100.1:8080")
		l.unreachable(nil, "tcp4", "127.0.0.1:8080")
		again := l.run("again", []string{"bridge"}, publish(tcpPort(8080, 80), udpPort(8080, 80)))
		l.serve(again, ":80", "again")
		l.reaches(out, "tcp4", "198.51.100.1:8080", "again")
		l.reaches(out, "udp4", "198.51.100.1:8080", "again")
	})
}

func TestPortsOnLoopbackStayThere(t *testing.T) { bothBridges(t, testPortsOnLoopbackStayThere) }

func testPortsOnLoopbackStayThere(t *testing.T, _ bool) {
	l := newLab(t)
	out := l.outside()
	p := tcpPort(8081, 80)
	p.HostIP = netip.MustParseAddr("127.0.0.1")
	web := l.run("web", []string{"bridge"}, publish(p))
	l.serve(web, ":80", "web")
	other := l.run("other", []string{"bridge"})
	l.serve(nil, "127.0.0.1:5432", "database")
	l.reaches(nil, "tcp4", "127.0.0.1:8081", "web")
	l.unreachable(out, "tcp4", "198.51.100.1:8081")
	l.unreachable(other, "tcp4", "172.17.0.1:8081")

	// A neighbour, or a container, that sends to 127.0.0.1 by the wire.
	for name, via := range map[string]struct {
		s  *Sandbox
		gw string
	}{"neighbour": {out, "198.51.100.1"}, "container": {other, "172.17.0.1"}} {
		t.Run("not even for a "+name+" that lies about where 127.0.0.1 is", func(t *testing.T) {
			l.routeLoopback(via.s, via.gw)
			l.unreachable(via.s, "tcp4", "127.0.0.1:8081")
			l.unreachable(via.s, "tcp4", "127.0.0.1:5432")
		})
	}
}

func TestIsolation(t *testing.T) { bothBridges(t, testIsolation) }

func testIsolation(t *testing.T, callsFirewall bool) {
	l := newLab(t)
	out := l.outside()
	l.network("one")
	l.network("two")
	l.network("closed", func(r *network.CreateRequest) { r.Internal = true })
	l.network("quiet", func(r *network.CreateRequest) {
		r.Options = map[string]string{optICC: "false"}
	})
	a, b := l.run("a", []string{"one"}), l.run("b", []string{"two"}, publish(tcpPort(8080, 80)))
	c, d := l.run("c", []string{"closed"}), l.run("d", []string{"closed"}, publish(tcpPort(8082, 80)))
	e, f := l.run("e", []string{"quiet"}), l.run("f", []string{"quiet"}, publish(tcpPort(8083, 80)))
	for _, s := range []*Sandbox{a, b, c, d, e, f} {
		l.serve(s, ":80", s.Name())
		l.serve(s, ":81", s.Name())
	}
	at := func(s *Sandbox, net, port string) string { return s.ip(t, net).String() + ":" + port }
	t.Run("networks do not reach each other", func(t *testing.T) {
		l.unreachable(a, "tcp4", at(b, "two", "80"))
		l.unreachable(a, "tcp4", at(b, "two", "81"))
		l.unreachable(b, "tcp4", at(a, "one", "80"))
		l.unreachable(a, "tcp4", at(c, "closed", "80"))
	})
	t.Run("an internal network reaches itself only", func(t *testing.T) {
		l.serve(out, ":82", "out")
		l.reaches(c, "tcp4", at(d, "closed", "80"), "d")
		l.unreachable(c, "tcp4", "198.51.100.2:82")
		l.addDefaultRoute(c, l.bridgeAddr("closed"))
		l.unreachable(c, "tcp4", "198.51.100.2:82")
		l.unreachable(c, "tcp4", at(a, "one", "80"))
		l.unreachable(c, "tcp4", l.bridgeAddr("closed")+":8080") // b's port
		if len(d.Ports()) != 0 {
			t.Errorf("published from an internal network: %v", d.Ports())
		}
	})
	t.Run("containers without icc reach the outside only", func(t *testing.T) {
		l.serve(out, ":84", "out")
		l.unreachable(e, "tcp4", at(f, "quiet", "80"))
		l.reaches(e, "tcp4", "198.51.100.2:84", "out")
		l.reaches(nil, "tcp4", at(f, "quiet", "80"), "f")
		if !callsFirewall { // there the bridge translates, and then keeps them apart
			l.reaches(e, "tcp4", "198.51.100.1:8083", "f")
		}
	})
	t.Run("a neighbour that routes by the host reaches nothing", func(t *testing.T) {
		l.addDefaultRoute(out, "198.51.100.1")
		l.unreachable(out, "tcp4", at(b, "two", "80"))
		l.unreachable(out, "tcp4", at(b, "two", "81"))
		l.reaches(out, "tcp4", "198.51.100.1:8080", "b")
	})
}

func TestTakenPorts(t *testing.T) {
	l := newLab(t)
	l.run("first", []string{"bridge"}, publish(tcpPort(8080, 80)))
	_, err := l.tryRun("second", []string{"bridge"}, publish(tcpPort(8080, 80)))
	if err == nil || !strings.Contains(err.Error(), "driver failed programming external connectivity on endpoint second (") ||
		!strings.HasSuffix(err.Error(), "): Bind for 0.0.0.0:8080 failed: port is already allocated") {
		t.Errorf("a port of ours: %v", err)
	}
	l.serve(nil, "0.0.0.0:9090", "host")
	_, err = l.tryRun("third", []string{"bridge"}, publish(tcpPort(9091, 80), tcpPort(9090, 80)))
	if err == nil || !strings.HasSuffix(err.Error(), "/tcp: address already in use") ||
		!strings.Contains(err.Error(), "failed to bind host port for 0.0.0.0:9090:172.17.0.") || !errs.Is(err, errs.Internal) {
		t.Errorf("a port of somebody else: %v", err)
	}
	s := l.run("fourth", []string{"bridge"}, publish(tcpPort(9091, 80)))
	if len(s.Ports()) != 1 {
		t.Errorf("ports of the failed start were not given back: %v", s.Ports())
	}
	ranged := tcpPort(8080, 80)
	ranged.HostEnd = 8081
	s = l.run("fifth", []string{"bridge"}, publish(ranged))
	if got := s.Ports()[ranged.Container][0].HostPort; got != "8081" {
		t.Errorf("of 8080-8081 with 8080 taken: %s", got)
	}
	if _, err = l.tryRun("sixth", []string{"bridge"}, publish(ranged)); err == nil {
		t.Error("got a port of a range that has none left")
	}
}
