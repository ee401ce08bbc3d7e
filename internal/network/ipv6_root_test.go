//go:build root

package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/apply"
	"github.com/skiff-containers/skiff/internal/network/link"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

// with6 gives a network IPv6, in the subnets given.
func with6(subnets ...string) func(*network.CreateRequest) {
	return func(r *network.CreateRequest) {
		yes := true
		r.EnableIPv6 = &yes
		for _, s := range subnets {
			if r.IPAM == nil {
				r.IPAM = &network.IPAM{}
			}
			r.IPAM.Config = append(r.IPAM.Config, network.IPAMConfig{Subnet: netip.MustParsePrefix(s)})
		}
	}
}

func only6(r *network.CreateRequest) {
	no := false
	r.EnableIPv4 = &no
}

func option(key, value string) func(*network.CreateRequest) {
	return func(r *network.CreateRequest) {
		if r.Options == nil {
			r.Options = map[string]string{}
		}
		r.Options[key] = value
	}
}

func internal(r *network.CreateRequest) { r.Internal = true }

func (s *Sandbox) ip6(t testing.TB, net string) netip.Addr {
	t.Helper()
	e := s.Endpoints()[net]
	if e == nil {
		t.Fatalf("%s is not on %s", s.Name(), net)
	}
	return e.GlobalIPv6Address
}

func at6(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func TestIPv6Networks(t *testing.T) {
	l := newLab(t)
	out := l.outside()
	l.network("dual", with6("fd00:1::/64", "10.7.0.0/24"))
	l.network("six", with6("fd00:2::/64"), only6)
	l.network("four")
	l.network("auto", with6())
	l.network("shut", with6("fd00:3::/64"), internal)
	l.network("apart", with6("fd00:4::/64"), option(optICC, "false"))
	a, b := l.run("a", []string{"dual"}), l.run("b", []string{"dual"})
	s, auto, shut := l.run("s", []string{"six"}), l.run("auto", []string{"auto"}), l.run("shut", []string{"shut"})
	for _, c := range []*Sandbox{a, b, s, shut, auto} {
		l.serve(c, ":80", c.Name())
	}
	l.serve(out, ":81", "out")

	e := a.Endpoints()["dual"]
	if got := fmt.Sprint(e.IPAddress, e.GlobalIPv6Address, e.GlobalIPv6PrefixLen, e.IPv6Gateway, e.Gateway); got != "10.7.0.2 fd00:1::2 64 fd00:1::1 10.7.0.1" {
		t.Errorf("endpoint: %s", got)
	}
	e = s.Endpoints()["six"]
	if e.IPAddress.IsValid() || e.Gateway.IsValid() || e.GlobalIPv6Address != mustAddr("fd00:2::2") || len(e.MacAddress) != 6 {
		t.Errorf("endpoint: %+v", e)
	}
	if p := auto.ip6(t, "auto"); !netip.MustParsePrefix("fd00::/8").Contains(p) || p.As16()[15] != 2 {
		t.Errorf("chosen address: %s", p)
	}
	t.Run("neighbours", func(t *testing.T) {
		l.reaches(a, "tcp6", "[fd00:1::3]:80", "b fd00:1::2")
		l.reaches(b, "udp6", "[fd00:1::2]:80", "a fd00:1::3")
		l.reaches(a, "tcp4", "10.7.0.3:80", "b")
		l.reaches(nil, "tcp6", "[fd00:2::2]:80", "s")
	})
	t.Run("outside, by the host's address", func(t *testing.T) {
		for _, c := range []*Sandbox{a, s, auto} {
			l.reaches(c, "tcp6", "[2001:db8:99::2]:81", "out 2001:db8:99::1")
			l.reaches(c, "udp6", "[2001:db8:99::2]:81", "out 2001:db8:99::1")
		}
		l.reaches(a, "tcp4", "198.51.100.2:81", "out")
	})
	t.Run("isolation", func(t *testing.T) {
		l.unreachable(a, "tcp6", "[fd00:2::2]:80")
		l.unreachable(s, "tcp6", "[fd00:1::2]:80")
		l.unreachable(shut, "tcp6", "[2001:db8:99::2]:81")
		l.unreachable(shut, "tcp6", "[fd00:1::2]:80")
		if err := l.inside(out, func() error { return routeTo("fd00::/16", "2001:db8:99::1") }); err != nil {
			t.Fatal(err)
		}
		l.unreachable(out, "tcp6", "[fd00:1::2]:80")
		c, d := l.run("c", []string{"apart"}), l.run("d", []string{"apart"})
		l.serve(d, ":80", "d")
		l.unreachable(c, "tcp6", at6(d.ip6(t, "apart"), 80))
		l.reaches(c, "tcp6", "[2001:db8:99::2]:81", "out")
	})
	t.Run("names", func(t *testing.T) {
		r, err := l.ask(a, "udp4", "b", dns.TypeAAAA)
		if err != nil || len(r.Answer) != 1 || r.Answer[0].(*dns.AAAA).AAAA.String() != "fd00:1::3" {
			t.Errorf("%v, %v", r, err)
		}
		rev, _ := dns.ReverseAddr("fd00:1::3")
		if r, err = l.ask(a, "udp4", rev, dns.TypePTR); err != nil || len(r.Answer) != 1 || r.Answer[0].(*dns.PTR).Ptr != "b.dual." {
			t.Errorf("%v, %v", r, err)
		}
		if r, err = l.ask(s, "udp4", "s", dns.TypeA); err != nil || len(r.Answer) != 0 || r.Rcode != dns.RcodeSuccess {
			t.Errorf("%v, %v", r, err)
		}
		if want := "fd00:1::2\ta-host\n"; !strings.Contains(string(a.Hosts()), want) {
			t.Errorf("hosts lacks %q:\n%s", want, a.Hosts())
		}
	})
	t.Run("interfaces", func(t *testing.T) { interfacesOf6(t, l, a, "dual") })
}

func interfacesOf6(t *testing.T, l *lab, c *Sandbox, on string) {
	lan, _ := l.find(on)
	for path, want := range map[string]string{"disable_ipv6": "0", "accept_ra": "0", "forwarding": "1"} {
		if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + lan.opts.bridge + "/" + path); err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s of the bridge is %s, %v", path, b, err)
		}
	}
	if got := link.Address6(lan.opts.bridge).String(); got != "fd00:1::1/64" {
		t.Errorf("the bridge is at %s", got)
	}
	err := l.inside(c, func() error {
		for path, want := range map[string]string{"disable_ipv6": "0", "accept_ra": "0", "forwarding": "0"} {
			if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/" + path); err != nil || strings.TrimSpace(string(b)) != want {
				t.Errorf("%s inside is %s, %v", path, b, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// routeTo adds a route in the calling thread's namespace.
func routeTo(dst, gw string) error {
	_, n, err := net.ParseCIDR(dst)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{Dst: n, Gw: net.ParseIP(gw)})
}

func TestPortsOverIPv6(t *testing.T) {
	l := newLab(t)
	out := l.outside()
	l.network("dual", with6("fd00:1::/64"))
	l.network("six", with6("fd00:2::/64"), only6)
	web := l.run("web", []string{"dual"}, publish(tcpPort(8080, 80), udpPort(8080, 80)))
	six := l.run("six", []string{"six"}, publish(tcpPort(8081, 80), func() PortSpec {
		p := tcpPort(8082, 80)
		p.HostIP = mustAddr("127.0.0.1")
		return p
	}(), func() PortSpec {
		p := tcpPort(8083, 80)
		p.HostIP = mustAddr("2001:db8:99::1")
		return p
	}()))
	for _, c := range []*Sandbox{web, six} {
		l.serve(c, ":80", c.Name())
	}
	l.reaches(out, "tcp6", "[2001:db8:99::1]:8080", "web 2001:db8:99::2")
	l.reaches(out, "udp6", "[2001:db8:99::1]:8080", "web 2001:db8:99::2")
	l.reaches(out, "tcp4", "198.51.100.1:8080", "web 198.51.100.2")
	l.reaches(nil, "tcp6", "[::1]:8080", "web")
	l.reaches(nil, "udp6", "[::1]:8080", "web")
	l.reaches(nil, "tcp6", "[2001:db8:99::1]:8080", "web")
	l.reaches(web, "tcp6", "[2001:db8:99::1]:8080", "web") // its own, by the host
	l.reaches(six, "tcp6", "[2001:db8:99::1]:8080", "web") // another network's
	l.reaches(out, "tcp6", "[2001:db8:99::1]:8081", "six 2001:db8:99::2")
	l.reaches(out, "tcp6", "[2001:db8:99::1]:8083", "six")
	l.unreachable(out, "tcp4", "198.51.100.1:8081") // it has no IPv4
	if got := fmt.Sprint(portTexts(web.Ports())); got != "[80/tcp 0.0.0.0:8080 80/tcp :::8080 80/udp 0.0.0.0:8080 80/udp :::8080]" {
		t.Errorf("ports of web: %s", got)
	}
	if got := fmt.Sprint(portTexts(six.Ports())); got != "[80/tcp 2001:db8:99::1:8083 80/tcp :::8081]" {
		t.Errorf("ports of six: %s", got)
	}
	if err := web.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.unreachable(out, "tcp6", "[2001:db8:99::1]:8080")
	for _, p := range l.kernelPorts() {
		if strings.Contains(p, ":8080/") {
			t.Errorf("left: %s", p)
		}
	}
}

func portTexts(m network.PortMap) (out []string) {
	for p, bs := range m {
		for _, b := range bs {
			out = append(out, fmt.Sprintf("%s %s:%s", p, b.HostIP, b.HostPort))
		}
	}
	slices.Sort(out)
	return out
}

func TestGatewayModes(t *testing.T) {
	l := newLab(t)
	out := l.outside()
	err := l.inside(out, func() error {
		if err := routeTo("2001:db8:1::/48", "2001:db8:99::1"); err != nil {
			return err
		}
		return routeTo("10.6.0.0/16", "198.51.100.1")
	})
	if err != nil {
		t.Fatal(err)
	}
	l.serve(out, ":81", "out")
	v4 := network.IPAMConfig{Subnet: netip.MustParsePrefix("10.6.4.0/24")}
	l.network("routed", with6("2001:db8:1:1::/64"), option(optGatewayMode6, "routed"))
	l.network("open", with6("2001:db8:1:2::/64"), option(optGatewayMode6, "nat-unprotected"))
	l.network("trust", func(r *network.CreateRequest) { r.IPAM = &network.IPAM{Config: []network.IPAMConfig{v4}} }, option(optTrusted, "wan0"))
	l.network("alone", with6("fd00:5::/64"), internal, option(optGatewayMode6, "isolated"), option(optGatewayMode, "isolated"))
	routed := l.run("routed", []string{"routed"}, publish(tcpPort(8080, 80)))
	open, trust, alone := l.run("open", []string{"open"}), l.run("trust", []string{"trust"}, publish(tcpPort(8082, 80))), l.run("alone", []string{"alone"})
	for _, c := range []*Sandbox{routed, open, trust, alone} {
		l.serve(c, ":80", c.Name())
		l.serve(c, ":82", c.Name())
	}
	t.Run("routed", func(t *testing.T) {
		l.reaches(out, "tcp6", at6(routed.ip6(t, "routed"), 80), "routed 2001:db8:99::2")
		l.unreachable(out, "tcp6", at6(routed.ip6(t, "routed"), 82))
		l.unreachable(out, "tcp6", "[2001:db8:99::1]:8080")
		l.reaches(out, "tcp4", "198.51.100.1:8080", "routed")
		l.reaches(routed, "tcp6", "[2001:db8:99::2]:81", "out "+routed.ip6(t, "routed").String())
		if got := fmt.Sprint(portTexts(routed.Ports())); got != "[80/tcp 0.0.0.0:8080 80/tcp :::]" {
			t.Errorf("ports: %s", got)
		}
	})
	t.Run("nat without protection", func(t *testing.T) {
		l.reaches(out, "tcp6", at6(open.ip6(t, "open"), 82), "open")
		l.reaches(open, "tcp6", "[2001:db8:99::2]:81", "out 2001:db8:99::1")
	})
	t.Run("trusted interfaces", func(t *testing.T) {
		l.reaches(out, "tcp4", at6(trust.ip(t, "trust"), 80), "trust")
		l.unreachable(out, "tcp4", at6(trust.ip(t, "trust"), 82))
		l.reaches(out, "tcp4", "198.51.100.1:8082", "trust")
	})
	t.Run("isolated", func(t *testing.T) {
		lan, _ := l.find("alone")
		if link.Address(lan.opts.bridge).IsValid() || link.Address6(lan.opts.bridge).IsValid() {
			t.Error("the host has an address on it")
		}
		peer := l.run("peer", []string{"alone"})
		l.reaches(peer, "tcp6", at6(alone.ip6(t, "alone"), 80), "alone")
		l.unreachable(nil, "tcp6", at6(alone.ip6(t, "alone"), 80))
	})
}

func TestDirectRouting(t *testing.T) {
	l := newLab(t, func(o *Options) { o.AllowDirect = true })
	out := l.outside()
	err := l.inside(out, func() error {
		if err := routeTo("2001:db8:1::/48", "2001:db8:99::1"); err != nil {
			return err
		}
		return routeTo("10.6.0.0/16", "198.51.100.1")
	})
	if err != nil {
		t.Fatal(err)
	}
	v4 := network.IPAMConfig{Subnet: netip.MustParsePrefix("10.6.4.0/24")}
	l.network("n", with6("2001:db8:1:1::/64"), func(r *network.CreateRequest) { r.IPAM.Config = append(r.IPAM.Config, v4) })
	l.network("own", internal)
	web := l.run("web", []string{"n", "own"}, publish(tcpPort(8080, 80)))
	l.serve(web, ":80", "web")
	l.serve(web, ":82", "web")
	for _, at := range []string{at6(web.ip(t, "n"), 80), "198.51.100.1:8080"} {
		l.reaches(out, "tcp4", at, "web")
	}
	l.reaches(out, "tcp6", at6(web.ip6(t, "n"), 80), "web")
	l.unreachable(out, "tcp4", at6(web.ip(t, "n"), 82))
	l.unreachable(out, "tcp6", at6(web.ip6(t, "n"), 82))
	if err := web.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.kernelPorts() {
		t.Errorf("left: %s", p)
	}
}

func TestIPv6AddressesOfOnesOwn(t *testing.T) {
	l := newLab(t)
	l.network("n", func(r *network.CreateRequest) {
		yes := true
		r.EnableIPv6 = &yes
		r.IPAM = &network.IPAM{Config: []network.IPAMConfig{{
			Subnet: netip.MustParsePrefix("fd00:1::/64"), IPRange: netip.MustParsePrefix("fd00:1::a:0/112"), Gateway: mustAddr("fd00:1::99"),
			AuxAddress: map[string]netip.Addr{"x": mustAddr("fd00:1::a:0")},
		}}}
	})
	l.network("four")
	first := l.run("first", []string{"n"})
	own := l.run("own", []string{"n"}, func(s *SandboxSpec) {
		s.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{
			IPv6Address: mustAddr("fd00:1::7"), LinkLocalIPs: []netip.Addr{mustAddr("169.254.7.7"), mustAddr("fe80::77")},
		}
	})
	l.serve(own, ":80", "own")
	l.reaches(first, "tcp6", "[fd00:1::7]:80", "own fd00:1::a:1")
	err := l.inside(own, func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		var got []string
		addrs, err := i.Addrs()
		for _, a := range addrs {
			got = append(got, a.String())
		}
		for _, want := range []string{"169.254.7.7/16", "fe80::77/64", "fd00:1::7/64"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s is not among %v", want, got)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]network.EndpointIPAMConfig{
		"a taken address":               {IPv6Address: mustAddr("fd00:1::7")},
		"a foreign address":             {IPv6Address: mustAddr("fd00:2::7")},
		"IPv4 without its subnet":       {IPv4Address: mustAddr("172.18.0.77")},
		"an unspecified link-local one": {LinkLocalIPs: []netip.Addr{netip.IPv6Unspecified()}},
	} {
		_, err := l.tryRun("x", []string{"n"}, func(s *SandboxSpec) { s.Endpoints[0].Settings.IPAMConfig = &c })
		if !errs.Is(err, errs.Invalid) && !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = l.tryRun("x", []string{"four"}, func(s *SandboxSpec) {
		s.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{LinkLocalIPs: []netip.Addr{mustAddr("fe80::1")}}
	})
	if !errs.Is(err, errs.Invalid) {
		t.Errorf("IPv6 on a network without: %v", err)
	}
	for range 3 { // had again at once
		if err := own.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		own = l.run("own", []string{"n"}, func(s *SandboxSpec) {
			s.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv6Address: mustAddr("fd00:1::7")}
		})
	}
}

func TestIPv6OutlivesTheDaemon(t *testing.T) {
	l := newLab(t, func(o *Options) { o.IPv6 = true })
	out := l.outside()
	l.network("dual", with6())
	web := l.run("web", []string{"bridge", "dual"}, publish(tcpPort(8080, 80)), func(s *SandboxSpec) { s.Endpoints[1].Settings.Aliases = []string{"www"} })
	l.serve(web, ":80", "web")
	gone := l.run("gone", []string{"dual"}, publish(tcpPort(8081, 80)))
	l.process(gone)
	state, pid, kept := web.State(), l.process(web), l.kernelPorts()
	addr, bridge := web.ip6(t, "dual"), link.Address6("skiff0")
	l.restart()
	l.reaches(out, "tcp6", "[2001:db8:99::1]:8080", "web")
	if got := l.kernelPorts(); !slices.Equal(got, kept) || len(got) != 4 {
		t.Errorf("ports %v, before: %v", got, kept)
	}
	web, err := l.AdoptSandbox(t.Context(), state, pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Reconcile(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := l.kernelPorts(); len(got) != 2 {
		t.Errorf("ports left: %v", got)
	}
	if web.ip6(t, "dual") != addr || link.Address6("skiff0") != bridge {
		t.Errorf("moved to %s, the bridge to %s", web.ip6(t, "dual"), link.Address6("skiff0"))
	}
	if peer := l.run("peer", []string{"dual"}); peer.ip6(t, "dual") == addr {
		t.Error("its address was given away")
	}
	l.reaches(out, "tcp6", "[2001:db8:99::1]:8080", "web")
	l.reaches(nil, "tcp6", "[::1]:8080", "web")
	if err := web.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.unreachable(out, "tcp6", "[2001:db8:99::1]:8080")
}

// The default bridge has IPv6 where it was asked for, and none where not.
func TestIPv6OnTheDefaultBridge(t *testing.T) {
	l := newLab(t, func(o *Options) { o.IPv6, o.FixedCIDR6 = true, netip.MustParsePrefix("fd00:7::/64") })
	eventually(t, "namespaces made ahead", l.prepared)
	a, b := l.run("a", []string{"bridge"}), l.run("b", []string{"bridge"})
	l.serve(a, ":80", "a")
	l.reaches(b, "tcp6", "[fd00:7::2]:80", "a fd00:7::3")
	if got := b.Endpoints()["bridge"]; got.IPv6Gateway != mustAddr("fd00:7::1") || !strings.Contains(string(b.Hosts()), "fd00:7::3\tb-host") {
		t.Errorf("%+v", got)
	}
	_, _ = a.Close(t.Context()), b.Close(t.Context())
	l.o.IPv6 = false
	l.restart()
	if link.Address6("skiff0").IsValid() {
		t.Error("the bridge kept its address")
	}
	if c := l.run("c", []string{"bridge"}); c.ip6(t, "bridge").IsValid() {
		t.Errorf("got %s", c.ip6(t, "bridge"))
	}
}

// The host's own interfaces go on listening to their routers, and others' packets
// are not forwarded, where the host did not forward before.
func TestForwardingOfIPv6IsForContainersOnly(t *testing.T) {
	read := func(path string) string {
		b, _ := os.ReadFile("/proc/sys/net/ipv6/conf/" + path)
		return strings.TrimSpace(string(b))
	}
	if err := link.WriteSysctl("net/ipv6/conf/all/forwarding", "0"); err != nil {
		t.Skip("this host has no IPv6: ", err)
	}
	l := newLab(t)
	l.outside()
	// What the host's router told it.
	if err := link.WriteSysctl("net/ipv6/conf/wan0/accept_ra", "1"); err != nil {
		t.Fatal(err)
	}
	nl, _ := netlink.LinkByName("wan0")
	ra := &netlink.Route{LinkIndex: nl.Attrs().Index, Gw: net.ParseIP("fe80::99"), Protocol: 9}
	if err := netlink.RouteAdd(ra); err != nil {
		t.Fatal(err)
	}
	if read("all/forwarding") != "0" {
		t.Error("forwards without a network that needs it")
	}
	l.network("six", with6())
	if read("all/forwarding") != "1" || read("wan0/forwarding") != "0" || read("wan0/accept_ra") != "1" || read("default/forwarding") != "0" {
		t.Errorf("all forward %s; wan0: forwarding %s, accept_ra %s; default %s",
			read("all/forwarding"), read("wan0/forwarding"), read("wan0/accept_ra"), read("default/forwarding"))
	}
	if rs, _ := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{LinkIndex: nl.Attrs().Index, Gw: ra.Gw}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_GW); len(rs) != 1 {
		t.Errorf("the default route is lost: %v", rs)
	}
	if !l.fw.host.OnlyOurs6 {
		t.Error("others' packets are forwarded")
	}
	fw, err := apply.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	if err := l.Remove(t.Context(), "six"); err != nil {
		t.Fatal(err)
	}
	l.restart()
	if ok, err := fw.Exists(rules.IPv6, "skiff"); !ok || err != nil {
		t.Errorf("others' packets are forwarded once the network is gone: %v, %v", ok, err)
	}
}

// Without networks that have it there is no table for IPv6.
func TestNoTableOfIPv6WithoutNeed(t *testing.T) {
	if err := link.WriteSysctl("net/ipv6/conf/all/forwarding", "1"); err != nil {
		t.Skip("this host has no IPv6: ", err)
	}
	l := newLab(t)
	fw, err := apply.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	exists := func(want bool) {
		t.Helper()
		if ok, err := fw.Exists(rules.IPv6, "skiff"); ok != want || err != nil {
			t.Errorf("there is one: %v, %v", ok, err)
		}
	}
	exists(false)
	l.network("six", with6())
	exists(true)
	if err := fw.Delete(rules.IPv6, "skiff"); err != nil { // as "nft flush ruleset" does
		t.Fatal(err)
	}
	eventually(t, "table back", func() bool { ok, _ := fw.Exists(rules.IPv6, "skiff"); return ok })
	if err := l.Remove(t.Context(), "six"); err != nil {
		t.Fatal(err)
	}
	exists(false)
}

func TestTheDefaultRouteOfEachFamilyIsItsOwn(t *testing.T) {
	l := newLab(t)
	out := l.outside()
	l.serve(out, ":81", "out")
	l.network("a4")
	l.network("b6", with6("fd00:2::/64"), only6)
	l.network("c", with6("fd00:3::/64"))
	c := l.run("c", []string{"a4", "b6"}, publish(tcpPort(8080, 80)))
	l.serve(c, ":80", "c")
	both := func() {
		t.Helper()
		l.reaches(c, "tcp4", "198.51.100.2:81", "out")
		l.reaches(c, "tcp6", "[2001:db8:99::2]:81", "out")
		l.reaches(out, "tcp4", "198.51.100.1:8080", "c")
		l.reaches(out, "tcp6", "[2001:db8:99::1]:8080", "c")
	}
	both()
	info, _ := l.Lookup("c")
	if err := c.Connect(t.Context(), EndpointSpec{Network: info.ID, Settings: &network.EndpointSettings{GwPriority: 5}}); err != nil {
		t.Fatal(err)
	}
	both()
	for _, n := range []string{"a4", "b6"} {
		info, _ := l.Lookup(n)
		if err := c.Disconnect(t.Context(), info.ID); err != nil {
			t.Fatal(err)
		}
	}
	both()
}
