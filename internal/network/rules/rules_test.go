package rules

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; UPDATE=1 writes it anew\n%s", path, diff)
	}
}

func v4(prefix string) Subnet {
	return Subnet{Prefix: netip.MustParsePrefix(prefix), Masquerade: true}
}

func port(host, proto, to string) Port {
	p := Port{Proto: proto, To: netip.MustParseAddrPort(to)}
	if host != "" {
		p.Host = netip.MustParseAddrPort(host)
	}
	return p
}

// full has every kind of network.
func full() Host {
	noMasquerade := Subnet{Prefix: netip.MustParsePrefix("172.20.0.0/16")}
	return Host{
		Table: "skiff",
		Networks: []Network{
			{Bridge: "skiff0", ICC: true, V4: v4("172.17.0.0/16")},
			{Bridge: "br-internal", V4: v4("172.18.0.0/16"), V6: v4("fd00:18::/64"), ICC: true, Internal: true},
			{Bridge: "br-no-icc", V4: v4("172.19.0.0/16"), V6: v4("fd00:19::/64")},
			{Bridge: "br-no-masq", V4: noMasquerade, ICC: true},
			{Bridge: "br-only6", V6: v4("fd00:21::/64"), ICC: true},
			{Bridge: "br-routed6", ICC: true, V4: v4("172.22.0.0/16"), V6: Subnet{Prefix: netip.MustParsePrefix("2001:db8:22::/64"), Routed: true}},
			{Bridge: "br-open", ICC: true, V4: Subnet{Prefix: netip.MustParsePrefix("172.23.0.0/16"), Masquerade: true, Open: true}, Trusted: []string{"eth1", "eth2"}},
		},
		Ports: []Port{
			port("0.0.0.0:8080", "tcp", "172.17.0.2:80"), port("0.0.0.0:8080", "udp", "172.17.0.2:80"),
			port("127.0.0.1:5432", "tcp", "172.19.0.2:5432"),
			port("0.0.0.0:38412", "sctp", "172.17.0.2:38412"), port("[::]:38412", "sctp", "[fd00:19::2]:38412"),
			port("[::]:8080", "tcp", "[fd00:19::2]:80"), port("[2001:db8::1]:53", "udp", "[fd00:19::2]:53"),
			port("", "tcp", "[2001:db8:22::2]:80"), port("", "tcp", "172.23.0.2:80"),
		},
	}
}

func TestTables(t *testing.T) {
	bridge := Network{Bridge: "skiff0", V4: v4("172.17.0.0/16"), ICC: true}
	for name, table := range map[string]Table{
		"empty.nft":    Host{Table: "skiff"}.Build(IPv4),
		"default.nft":  Host{Table: "skiff", Networks: []Network{bridge}, OnlyOurs: true}.Build(IPv4),
		"default6.nft": Host{Table: "skiff", Networks: []Network{{Bridge: "skiff0", V4: bridge.V4, V6: v4("fd00::/64"), ICC: true}}, OnlyOurs6: true}.Build(IPv6),
		"direct.nft":   Host{Table: "skiff", Networks: []Network{bridge}, Direct: true, Ports: []Port{port("", "tcp", "172.17.0.2:80")}}.Build(IPv4),
		"full.nft":     full().Build(IPv4),
		"full6.nft":    full().Build(IPv6),
		"resolver.nft": Resolver("skiff_dns", netip.MustParseAddr("127.0.0.11"), 40000, 50000),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, table.String()) })
	}
}

func TestElements(t *testing.T) {
	for name, tc := range map[string]struct {
		p         Port
		set, text string
		key       []byte
	}{
		"on every address": {
			Port{Host: netip.MustParseAddrPort("0.0.0.0:258"), Proto: "udp", To: netip.MustParseAddrPort("10.0.0.2:80")},
			SetPortsAny, "udp . 258 : 10.0.0.2 . 80",
			[]byte{17, 1, 2},
		},
		"on one address": {
			Port{Host: netip.MustParseAddrPort("127.0.0.1:80"), Proto: "tcp", To: netip.MustParseAddrPort("10.0.0.2:80")},
			SetPorts, "127.0.0.1 . tcp . 80 : 10.0.0.2 . 80",
			[]byte{127, 0, 0, 1, 6, 0, 80},
		},
		"on one IPv6 address": {
			port("[fd00::1]:80", "tcp", "[fd00:1::2]:81"), SetPorts, "fd00::1 . tcp . 80 : fd00:1::2 . 81",
			[]byte{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0, 80},
		},
		"sctp": {
			port("0.0.0.0:258", "sctp", "10.0.0.2:80"), SetPortsAny, "sctp . 258 : 10.0.0.2 . 80", []byte{132, 1, 2},
		},
		"let through": {port("", "udp", "10.0.0.2:53"), SetDirect, "10.0.0.2 . udp . 53", []byte{10, 0, 0, 2, 17, 0, 53}},
	} {
		t.Run(name, func(t *testing.T) {
			set, e := tc.p.Element()
			var key []byte
			for _, v := range e.Key {
				key = append(key, v.Data...)
			}
			if set != tc.set || e.String() != tc.text || !cmp.Equal(key, tc.key) {
				t.Errorf("got %s { %s } with key %v", set, e, key)
			}
		})
	}
}
