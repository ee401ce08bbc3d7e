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

func TestTables(t *testing.T) {
	bridge := Network{Bridge: "skiff0", Subnet: netip.MustParsePrefix("172.17.0.0/16"), ICC: true, Masquerade: true}
	for name, table := range map[string]Table{
		"empty.nft":   Host{Table: "skiff"}.Build(),
		"default.nft": Host{Table: "skiff", Networks: []Network{bridge}, OnlyOurs: true}.Build(),
		"full.nft": Host{
			Table: "skiff",
			Networks: []Network{
				bridge,
				{Bridge: "br-internal", Subnet: netip.MustParsePrefix("172.18.0.0/16"), ICC: true, Masquerade: true, Internal: true},
				{Bridge: "br-no-icc", Subnet: netip.MustParsePrefix("172.19.0.0/16"), Masquerade: true},
				{Bridge: "br-no-masq", Subnet: netip.MustParsePrefix("172.20.0.0/16"), ICC: true},
			},
			Ports: []Port{
				{Host: netip.MustParseAddrPort("0.0.0.0:8080"), Proto: "tcp", To: netip.MustParseAddrPort("172.17.0.2:80")},
				{Host: netip.MustParseAddrPort("0.0.0.0:8080"), Proto: "udp", To: netip.MustParseAddrPort("172.17.0.2:80")},
				{Host: netip.MustParseAddrPort("127.0.0.1:5432"), Proto: "tcp", To: netip.MustParseAddrPort("172.19.0.2:5432")},
			},
		}.Build(),
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
