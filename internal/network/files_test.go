package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// quiet is a manager with networks and without a host.
func quiet(t *testing.T) (m *Manager, bridge, user *lan) {
	t.Helper()
	m = &Manager{lans: map[string]*lan{}, sandboxes: map[string]*Sandbox{}}
	add := func(name string, subnets ...string) *lan {
		r := newRecord(name, driverBridge)
		for _, s := range subnets {
			p := netip.MustParsePrefix(s)
			r.EnableIPv6 = r.EnableIPv6 || p.Addr().Is6()
			r.IPAM.Config = append(r.IPAM.Config, network.IPAMConfig{Subnet: p})
		}
		l := newLAN(r, bridgeOptions{})
		if err := l.makePools(); err != nil {
			t.Fatal(err)
		}
		l.state = lanReady
		m.lans[l.rec.ID] = l
		return l
	}
	return m, add("bridge", "172.17.0.0/16"), add("user", "172.18.0.0/16", "fd00:18::/64")
}

func (m *Manager) pretend(t *testing.T, spec SandboxSpec, on ...*lan) *Sandbox {
	t.Helper()
	s := newSandbox(m, spec)
	if err := m.register(s); err != nil {
		t.Fatal(err)
	}
	for i, l := range on {
		e := &endpoint{lan: l, sandbox: s, settings: &network.EndpointSettings{}}
		if i < len(spec.Endpoints) {
			e.settings = spec.Endpoints[i].Settings.Copy()
		}
		if err := l.join(e, netip.Addr{}, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		s.endpoints = append(s.endpoints, e)
	}
	return s
}

func TestHosts(t *testing.T) {
	m, bridge, user := quiet(t)
	m.pretend(t, SandboxSpec{ID: strings.Repeat("d", 64), Name: "database"}, bridge)
	cache := m.pretend(t, SandboxSpec{ID: "e", Name: "cache", Hostname: "memory"}, bridge)
	s := m.pretend(t, SandboxSpec{
		ID: "c", Name: "web", Hostname: "web", Domainname: "example.test",
		ExtraHosts: []string{"one:192.0.2.1", "six:fd00::1", "boxed=[fd00::2]", "host.docker.internal:host-gateway", "bad:x", "a b:192.0.2.2"},
		Links:      []Link{{"e", "fast"}, {"f", "gone"}},
		Endpoints: []EndpointSpec{
			{Settings: &network.EndpointSettings{Links: []string{"/database:/web/db", "missing:m"}}}, {Settings: &network.EndpointSettings{}},
		},
	}, bridge, user)
	want := hostsIntro +
		"192.0.2.1\tone\n" +
		"fd00::1\tsix\n" +
		"fd00::2\tboxed\n" +
		"172.17.0.1\thost.docker.internal\n" +
		"172.17.0.3\tfast memory cache\n" +
		"172.17.0.2\tdb dddddddddddd database\n" +
		"172.17.0.4\tweb.example.test web\n" +
		"172.18.0.2\tweb.example.test web\n" +
		"fd00:18::2\tweb.example.test web\n"
	if diff := cmp.Diff(want, string(s.Hosts())); diff != "" {
		t.Error(diff)
	}
	if !s.links {
		t.Error("the links went unnoticed")
	}
	changed := 0
	s.OnFilesChanged(func() { changed++ })
	for i, f := range []func(){
		func() { cache.SetName("cache2") },
		func() { s.SetLinks(nil) },
	} {
		f()
		if changed != i+1 {
			t.Errorf("change %d was told %d times", i, changed)
		}
	}
	m.o.HostGateways = []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("fd00::9")}
	if hosts := string(s.Hosts()); !strings.Contains(hosts, "192.0.2.9\thost.docker.internal\nfd00::9\thost.docker.internal\n") {
		t.Error(hosts)
	}
	if hosts := string(s.Hosts()); strings.Contains(hosts, "fast") || len(s.State().Spec.Links) != 0 {
		t.Errorf("the link is still there:\n%s", hosts)
	}
}

func TestResolvConf(t *testing.T) {
	m, bridge, user := quiet(t)
	host := resolverConfig{
		host:      []byte("nameserver 127.0.0.53\n"),
		direct:    []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("fd00::53")},
		upstreams: []upstreamAddr{{netip.MustParseAddr("127.0.0.53"), true}},
		search:    []string{"a.test", "b.test"}, options: []string{"edns0"},
	}
	for name, tc := range map[string]struct {
		spec SandboxSpec
		on   []*lan
		want string
	}{
		"on the default bridge": {SandboxSpec{ID: "1"}, []*lan{bridge}, resolvConfIntro +
			"nameserver 192.0.2.53\nsearch a.test b.test\noptions edns0\n"},
		"on a user-defined network": {SandboxSpec{ID: "2"}, []*lan{bridge, user}, resolvConfIntro +
			"nameserver 127.0.0.11\nsearch a.test b.test\noptions edns0 ndots:0\n"},
		"on the host":      {SandboxSpec{ID: "3", Mode: ModeHost}, nil, "nameserver 127.0.0.53\n"},
		"without networks": {SandboxSpec{ID: "4", Mode: ModeNone}, nil, resolvConfIntro + "nameserver 192.0.2.53\nsearch a.test b.test\noptions edns0\n"},
		"with a given server": {SandboxSpec{ID: "5", DNS: host.direct}, []*lan{bridge}, resolvConfIntro +
			"nameserver 192.0.2.53\nnameserver fd00::53\nsearch a.test b.test\noptions edns0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := m.pretend(t, tc.spec, tc.on...)
			s.config = host
			if diff := cmp.Diff(tc.want, string(s.ResolvConf())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseResolvConf(t *testing.T) {
	c, servers := parseResolvConf([]byte("# a comment\nnameserver 192.0.2.1 # here too\n;nameserver 192.0.2.2\n" +
		"nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\nsearch a b\ndomain c\noptions ndots:2 rotate\noptions edns0\n"))
	if diff := cmp.Diff([]string{"192.0.2.1", "fe80::1%eth0"}, texts(servers)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"c"}, {"ndots:2", "rotate", "edns0"}}, [][]string{c.search, c.options}); diff != "" {
		t.Error(diff)
	}
}

func texts(as []netip.Addr) (out []string) {
	for _, a := range as {
		out = append(out, a.String())
	}
	return out
}

func TestDeclaredNamesCannotBreakResolvConf(t *testing.T) {
	m := &Manager{}
	for _, spec := range []SandboxSpec{
		{DNSSearch: []string{"a\nnameserver 192.0.2.66"}}, {DNSOptions: []string{"ndots:1 rotate"}},
	} {
		if _, err := m.resolverConfig(spec); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	c, err := m.resolverConfig(SandboxSpec{DNS: []netip.Addr{resolverAddr, netip.MustParseAddr("192.0.2.9")}, DNSSearch: []string{"."}})
	if err != nil || len(c.search) != 0 || len(c.direct) != 2 || len(c.upstreams) != 1 || c.upstreams[0] != (upstreamAddr{addr: c.direct[1]}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestNetworkOptions(t *testing.T) {
	def := bridgeOptions{bridge: "br-1", icc: true, masquerade: true, ifacePrefix: "eth", mtu: 1500}
	for name, tc := range map[string]struct {
		in   map[string]string
		want bridgeOptions
		bad  bool
	}{
		"none":                 {nil, def, false},
		"foreign ones":         {map[string]string{"org.example.x": "y"}, def, false},
		"all":                  {map[string]string{optBridgeName: "lan0", optICC: "false", optMasquerade: "0", optHostBinding: "127.0.0.1", optIfacePrefix: "net", optMTU: "9000", optGatewayMode: "nat"}, bridgeOptions{bridge: "lan0", v4: modeNAT, hostBinding: netip.MustParseAddr("127.0.0.1"), ifacePrefix: "net", mtu: 9000}, false},
		"binding everywhere":   {map[string]string{optHostBinding: "0.0.0.0"}, def, false},
		"a path as a bridge":   {map[string]string{optBridgeName: "../x"}, def, true},
		"a long name":          {map[string]string{optBridgeName: "sixteen-letters-"}, def, true},
		"a bad boolean":        {map[string]string{optICC: "maybe"}, def, true},
		"a small MTU":          {map[string]string{optMTU: "20"}, def, true},
		"an IPv6 binding":      {map[string]string{optHostBinding: "::1"}, bridgeOptions{bridge: "br-1", icc: true, masquerade: true, hostBinding: netip.IPv6Loopback(), ifacePrefix: "eth", mtu: 1500}, false},
		"a name as a binding":  {map[string]string{optHostBinding: "lo"}, def, true},
		"modes of gateways":    {map[string]string{optGatewayMode: "routed", optGatewayMode6: "nat-unprotected"}, bridgeOptions{bridge: "br-1", icc: true, masquerade: true, v4: modeRouted, v6: modeNATOpen, ifacePrefix: "eth", mtu: 1500}, false},
		"an unknown mode":      {map[string]string{optGatewayMode6: "magic"}, def, true},
		"trusted interfaces":   {map[string]string{optTrusted: "eth0:eth1.5", optInhibitIPv4: "true"}, bridgeOptions{bridge: "br-1", icc: true, masquerade: true, keepAddr: true, trusted: "eth0:eth1.5", ifacePrefix: "eth", mtu: 1500}, false},
		"a path as trusted":    {map[string]string{optTrusted: "eth0:../x"}, def, true},
		"an unknown of docker": {map[string]string{"com.docker.network.bridge.new": "1"}, def, true},
		"to be the default":    {map[string]string{optDefault: "true"}, def, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseOptions(tc.in, def)
			if tc.bad {
				if !errs.Is(err, errs.Invalid) {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestSysctls(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net.core.somaxconn": "net/core/somaxconn",
		"net/ipv4/conf/eth0.1/forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"net.ipv4":                        "", "kernel.core_pattern": "", "net...kernel.core_pattern": "", "net/../kernel/core_pattern": "",
		"net/ipv4/./x": "", "net/ipv4//x": "", "net.ipv4.a b": "", "net.ipv4.x\x00": "", "net/ipv4/..": "",
	} {
		got, err := sysctlPath(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	set, err := sysctls(map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "1"})
	if diff := cmp.Diff(map[string]string{"net/ipv4/ip_forward": "1"}, set); diff != "" || err != nil {
		t.Error(diff, err)
	}
	set, err = endpointSysctls("net.ipv4.conf.IFNAME.forwarding=1,net.ipv4.conf.IFNAME.log_martians=0", "eth1")
	if diff := cmp.Diff(map[string]string{"net/ipv4/conf/eth1/forwarding": "1", "net/ipv4/conf/eth1/log_martians": "0"}, set); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, bad := range []string{"", "net.ipv4.conf.all.forwarding=1", "net.ipv4.conf.IFNAME.forwarding", "net.ipv4.conf.IFNAME.a.b=1"} {
		if _, err := endpointSysctls(bad, "eth0"); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestPortsOverlap(t *testing.T) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	lo, lan := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	tcp := protoPort{network.TCP, 80}
	for name, tc := range map[string]struct {
		first, second []netip.Addr
		ok            bool
	}{
		"everywhere twice":              {[]netip.Addr{any4, any6}, []netip.Addr{any4, any6}, false},
		"everywhere, then one address":  {[]netip.Addr{any4, any6}, []netip.Addr{lo}, false},
		"one address, then everywhere":  {[]netip.Addr{lo}, []netip.Addr{any4, any6}, false},
		"two addresses":                 {[]netip.Addr{lo}, []netip.Addr{lan}, true},
		"IPv4 everywhere and then IPv6": {[]netip.Addr{any4}, []netip.Addr{any6}, true},
	} {
		t.Run(name, func(t *testing.T) {
			pt := newPortTable()
			if !pt.claim(tcp, tc.first) || pt.claim(tcp, tc.second) != tc.ok {
				t.Fatal("claimed wrongly")
			}
			if !pt.claim(protoPort{network.UDP, 80}, tc.second) {
				t.Error("another protocol is in the way")
			}
			pt.release(tcp, tc.first)
			if tc.ok {
				pt.release(tcp, tc.second)
			}
			if !pt.claim(tcp, tc.first) {
				t.Error("not given back")
			}
		})
	}
}
