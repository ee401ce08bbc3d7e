//go:build root

package network

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
)

func subnet(s string) *network.IPAM {
	return &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix(s)}}}
}

func TestCreateRefuses(t *testing.T) {
	l := newLab(t)
	yes, no := true, false
	l.network("taken", func(r *network.CreateRequest) {
		r.EnableIPv6 = &yes
		r.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("fd00:8::/64")}, {Subnet: netip.MustParsePrefix("10.8.0.0/16")}}}
	})
	for name, tc := range map[string]struct {
		r    network.CreateRequest
		kind errs.Kind
		text string
	}{
		"a name twice":              {network.CreateRequest{Name: "taken"}, errs.Conflict, "network with name taken already exists"},
		"a predefined name":         {network.CreateRequest{Name: "bridge"}, errs.Denied, "operation is not permitted on predefined bridge network"},
		"no name":                   {network.CreateRequest{}, errs.Invalid, ""},
		"a path":                    {network.CreateRequest{Name: "../x"}, errs.Invalid, ""},
		"another driver":            {network.CreateRequest{Name: "x", Driver: "weave"}, errs.NotFound, "plugin not found"},
		"overlay":                   {network.CreateRequest{Name: "x", Driver: "overlay"}, errs.Unsupported, "network driver overlay is not supported: use bridge"},
		"a second host":             {network.CreateRequest{Name: "x", Driver: "host"}, errs.Denied, `only one instance of "host" network is allowed`},
		"no family":                 {network.CreateRequest{Name: "x", EnableIPv4: &no}, errs.Invalid, "IPv4 or IPv6 must be enabled"},
		"a strange switch":          {network.CreateRequest{Name: "x", Options: map[string]string{optEnableIPv6: "maybe"}}, errs.Invalid, `driver-opt "com.docker.network.enable_ipv6" is not a valid bool`},
		"link-local IPv6":           {network.CreateRequest{Name: "x", EnableIPv6: &yes, IPAM: subnet("fe80::/64")}, errs.Invalid, "invalid subnet"},
		"an IPv6 overlap":           {network.CreateRequest{Name: "x", EnableIPv6: &yes, IPAM: subnet("fd00:8::/48")}, errs.Denied, "Pool overlaps with other one on this address space"},
		"host bits":                 {network.CreateRequest{Name: "x", EnableIPv6: &yes, IPAM: subnet("fd00:9::1/64")}, errs.Invalid, "invalid network config:\ninvalid subnet fd00:9::1/64: it should be fd00:9::/64"},
		"a swarm's scope":           {network.CreateRequest{Name: "x", Scope: "swarm"}, errs.Unsupported, ""},
		"an overlap":                {network.CreateRequest{Name: "x", IPAM: subnet("10.8.3.0/24")}, errs.Denied, "Pool overlaps with other one on this address space"},
		"a gateway alone":           {network.CreateRequest{Name: "x", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Gateway: mustAddr("10.1.1.1")}}}}, errs.Invalid, ""},
		"an unknown option":         {network.CreateRequest{Name: "x", Options: map[string]string{optGatewayMode: "magic"}}, errs.Invalid, ""},
		"somebody's bridge":         {network.CreateRequest{Name: "x", Options: map[string]string{optBridgeName: "lo"}}, errs.Denied, "not a bridge"},
		"the default's":             {network.CreateRequest{Name: "x", Options: map[string]string{optBridgeName: "skiff0"}}, errs.Denied, "networks have same bridge name"},
		"an own IPAM driver":        {network.CreateRequest{Name: "x", IPAM: &network.IPAM{Driver: "dhcp"}}, errs.Unsupported, ""},
		"no addresses for IPv4":     {network.CreateRequest{Name: "x", IPAM: &network.IPAM{Driver: "null"}}, errs.Invalid, "ipv4 pool is empty"},
		"no addresses for IPv6":     {network.CreateRequest{Name: "x", Driver: "macvlan", EnableIPv4: &no, EnableIPv6: &yes, IPAM: &network.IPAM{Driver: "null"}}, errs.Invalid, "ipv6 pool is empty"},
		"a subnet without any":      {network.CreateRequest{Name: "x", IPAM: &network.IPAM{Driver: "null", Config: subnet("10.1.0.0/24").Config}}, errs.Invalid, "null ipam driver does not handle specific address pool requests"},
		"no family and no subnet":   {network.CreateRequest{Name: "x", EnableIPv4: &no, IPAM: &network.IPAM{Driver: "null"}}, errs.Invalid, "IPv4 or IPv6 must be enabled"},
		"two subnets":               {network.CreateRequest{Name: "x", IPAM: &network.IPAM{Config: []network.IPAMConfig{subnet("10.1.0.0/24").Config[0], subnet("10.2.0.0/24").Config[0]}}}, errs.Denied, "bridge driver doesn't support multiple subnets"},
		"isolated and not internal": {network.CreateRequest{Name: "x", Options: map[string]string{optGatewayMode: "isolated"}}, errs.Invalid, "gateway mode 'isolated' can only be used for an internal network"},
		"an internal configuration": {network.CreateRequest{Name: "x", ConfigOnly: true, Internal: true}, errs.Denied, "configuration network can only contain network specific fields"},
		"from no configuration":     {network.CreateRequest{Name: "x", ConfigFrom: &network.ConfigReference{Network: "taken"}}, errs.NotFound, `configuration network "taken" does not exist`},
		"a subnet too little":       {network.CreateRequest{Name: "x", IPAM: subnet("10.7.0.0/31")}, errs.Invalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := l.Create(t.Context(), &tc.r)
			if !errs.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%v: %v", errs.KindOf(err), err)
			}
		})
	}
	if _, bridges, _ := link.Owned(l.group); len(bridges) != 2 {
		t.Errorf("bridges left: %v", bridges)
	}
	for ref, kind := range map[string]errs.Kind{"bridge": errs.Denied, "none": errs.Denied, "nothing": errs.NotFound} {
		if err := l.Remove(t.Context(), ref); !errs.Is(err, kind) {
			t.Errorf("remove %s: %v", ref, err)
		}
	}
}

func TestCreateInspectRemove(t *testing.T) {
	l := newLab(t)
	id := l.network("front", func(r *network.CreateRequest) {
		r.IPAM = &network.IPAM{Config: []network.IPAMConfig{{
			Subnet: netip.MustParsePrefix("10.8.0.0/16"), IPRange: netip.MustParsePrefix("10.8.5.0/24"), Gateway: mustAddr("10.8.0.254"),
			AuxAddress: map[string]netip.Addr{"router": mustAddr("10.8.5.0")},
		}}}
		r.Options = map[string]string{optBridgeName: "front0", optMTU: "1400"}
	})
	s := l.run("c", []string{id[:8]}, func(s *SandboxSpec) {
		s.Endpoints[0].Settings.MacAddress = network.HardwareAddr{2, 0, 0, 1, 2, 3}
		s.Endpoints[0].Settings.DriverOpts = map[string]string{optEndpointIfname: "lan7", optEndpointSysctls: "net.ipv4.conf.IFNAME.log_martians=1"}
		s.Sysctls = map[string]string{"net.ipv4.ip_forward": "0", "kernel.shmmax": "1"}
	})
	n, err := l.Inspect("front")
	if err != nil {
		t.Fatal(err)
	}
	r := n.Containers[s.spec.ID]
	if r.Name != "c" || r.IPv4Address.String() != "10.8.5.1/16" || r.MacAddress.String() != "02:00:00:01:02:03" {
		t.Errorf("%+v", r)
	}
	if st := n.Status.IPAM.Subnets[netip.MustParsePrefix("10.8.0.0/16")]; st.IPsInUse != 5 || st.DynamicIPsAvailable != 254 {
		t.Errorf("%+v", st)
	}
	if len(n.IPAM.Options) != 0 {
		t.Errorf("our own option shows: %v", n.IPAM.Options)
	}
	br, err := netlink.LinkByName("front0")
	if err != nil || br.Attrs().MTU != 1400 {
		t.Fatalf("%v, %v", br, err)
	}
	err = l.inside(s, func() error {
		nl, err := netlink.LinkByName("lan7")
		if err != nil {
			return err
		}
		if nl.Attrs().MTU != 1400 || nl.Attrs().HardwareAddr.String() != "02:00:00:01:02:03" {
			t.Errorf("%+v", nl.Attrs())
		}
		for path, want := range map[string]string{
			"ipv4/conf/lan7/log_martians": "1", "ipv4/ip_forward": "0",
			"ipv6/conf/lan7/disable_ipv6": "1", "ipv4/ip_unprivileged_port_start": "0",
		} {
			if b, err := os.ReadFile("/proc/sys/net/" + path); err != nil || strings.TrimSpace(string(b)) != want {
				t.Errorf("%s is %s", path, b)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.tryRun("d", []string{"front"}, func(sp *SandboxSpec) {
		sp.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: mustAddr("10.8.5.1")}
	})
	if !errs.Is(err, errs.Denied) || err.Error() != "Address already in use" {
		t.Errorf("a taken address: %v", err)
	}
	_, err = l.tryRun("d", []string{"bridge"}, func(sp *SandboxSpec) {
		sp.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: mustAddr("172.17.0.99")}
	})
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "user specified IP address is supported on user defined networks only") {
		t.Errorf("an address on the default bridge: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(t.Context(), "front"); err != nil {
		t.Fatal(err)
	}
	if link.Exists("front0") {
		t.Error("the bridge is left")
	}
	want := []string{
		"network create front bridge ", "network connect front bridge " + s.spec.ID,
		"network disconnect front bridge " + s.spec.ID, "network destroy front bridge ",
	}
	if got := l.events.all(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestABridgeOfSomebodyElseIsUsedAndKept(t *testing.T) {
	l := newLab(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "theirs0"
	theirs := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(theirs) })
	l.network("n", func(r *network.CreateRequest) { r.Options = map[string]string{optBridgeName: "theirs0"} })
	if err := l.Remove(t.Context(), "n"); err != nil {
		t.Fatal(err)
	}
	if !link.Exists("theirs0") {
		t.Error("removed")
	}
}

func TestSubnetsInUseOnTheHostAreAvoided(t *testing.T) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "vpn0"
	d := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(d) })
	a, _ := netlink.ParseAddr("172.17.9.1/24")
	if err := netlink.AddrAdd(d, a); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(d); err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	if got := l.bridgeAddr("bridge"); got != "172.18.0.1" {
		t.Errorf("the default bridge is at %s", got)
	}
	l.network("u")
	if got := l.bridgeAddr("u"); got != "172.19.0.1" {
		t.Errorf("the next network is at %s", got)
	}
	l.restart()
	if got := l.bridgeAddr("bridge"); got != "172.18.0.1" {
		t.Errorf("the default bridge moved to %s", got)
	}
	l.o.BIP = netip.MustParsePrefix("10.99.0.1/24")
	l.restart()
	if got := link.Address("skiff0").String(); got != "10.99.0.1/24" {
		t.Errorf("with a bip the bridge is at %s", got)
	}
}

func TestHostAndNone(t *testing.T) {
	l := newLab(t)
	host := l.run("h", nil, func(s *SandboxSpec) { s.Mode = ModeHost }, publish(tcpPort(8080, 80)))
	none := l.run("n", nil, func(s *SandboxSpec) { s.Mode = ModeNone })
	if host.NetNS() != nil || len(host.Ports()) != 0 || host.Endpoints()["host"] == nil {
		t.Errorf("host: %v %v %v", host.NetNS(), host.Ports(), host.Endpoints())
	}
	if none.NetNS() == nil || none.Endpoints()["none"] == nil {
		t.Errorf("none: %v %v", none.NetNS(), none.Endpoints())
	}
	l.serve(none, "127.0.0.1:80", "n")
	l.reaches(none, "tcp4", "127.0.0.1:80", "n")
	n, err := l.Inspect("host")
	if err != nil || n.Containers[host.spec.ID].Name != "h" {
		t.Errorf("%+v, %v", n, err)
	}
	info, _ := l.Lookup("bridge")
	for _, s := range []*Sandbox{host, none} {
		if err := s.Connect(t.Context(), EndpointSpec{Network: info.ID}); err == nil {
			t.Errorf("%s was connected to bridge", s.Name())
		}
	}
	state, pid := none.State(), l.process(none)
	hostState := host.State()
	l.restart()
	if _, err := l.AdoptSandbox(t.Context(), hostState, os.Getpid(), 0); err != nil {
		t.Error(err)
	}
	if _, err := l.AdoptSandbox(t.Context(), state, os.Getpid(), 0); err == nil {
		t.Error("adopted the host's namespace as a container's")
	}
	if _, err := l.AdoptSandbox(t.Context(), state, pid, 0); err != nil {
		t.Error(err)
	}
}
