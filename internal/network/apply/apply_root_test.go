//go:build root

package apply

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-containers/skiff/internal/network/nstest"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func host() rules.Host {
	return rules.Host{
		Table: "skiff",
		Networks: []rules.Network{
			{Bridge: "skiff0", Subnet: netip.MustParsePrefix("172.17.0.0/16"), ICC: true, Masquerade: true},
			{Bridge: "br-1", Subnet: netip.MustParsePrefix("172.18.0.0/16"), ICC: true, Internal: true},
			{Bridge: "br-2", Subnet: netip.MustParsePrefix("172.19.0.0/16"), Masquerade: true},
		},
		Ports: []rules.Port{
			{Host: netip.MustParseAddrPort("0.0.0.0:8080"), Proto: "tcp", To: netip.MustParseAddrPort("172.17.0.2:80")},
			{Host: netip.MustParseAddrPort("0.0.0.0:53"), Proto: "udp", To: netip.MustParseAddrPort("172.17.0.2:53")},
			{Host: netip.MustParseAddrPort("127.0.0.1:9090"), Proto: "tcp", To: netip.MustParseAddrPort("172.19.0.2:90")},
		},
		OnlyOurs: true,
	}
}

// The kernel must hold what the text says: nft, fed with the text, makes the
// same table as we do by netlink.
func TestTheKernelHoldsWhatTheTextSays(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("no nft to compare with")
	}
	fw, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	for _, table := range []rules.Table{host().Build(), rules.Resolver("skiff_dns", netip.MustParseAddr("127.0.0.11"), 40000, 40001)} {
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader(table.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft does not read our text: %v\n%s\n%s", err, out, table)
		}
		list := func() string {
			out, err := exec.Command(nft, "list", "table", "ip", table.Name).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return string(out)
		}
		want := list()
		if err := fw.Delete(table.Name); err != nil {
			t.Fatal(err)
		}
		if err := fw.Replace(table); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, list()); diff != "" {
			t.Errorf("-nft +ours:\n%s", diff)
		}
		if err := fw.Delete(table.Name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPortsComeAndGo(t *testing.T) {
	fw, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	h := host()
	h.Table = "other"
	if ps, err := fw.Ports("other"); err != nil || len(ps) != 0 {
		t.Fatalf("ports of no table: %v, %v", ps, err)
	}
	if err := fw.Replace(h.Build()); err != nil {
		t.Fatal(err)
	}
	p := rules.Port{Host: netip.MustParseAddrPort("10.0.0.1:81"), Proto: "udp", To: netip.MustParseAddrPort("172.17.0.3:82")}
	set, e := p.Element()
	if err := fw.AddElements("other", map[string][]rules.Element{set: {e}}); err != nil {
		t.Fatal(err)
	}
	got := map[rules.Port]bool{}
	ps, err := fw.Ports("other")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		got[p] = true
	}
	want := map[rules.Port]bool{p: true}
	for _, p := range h.Ports {
		want[p] = true
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := fw.DeleteElements("other", map[string][]rules.Element{set: {e}}); err != nil {
		t.Fatal(err)
	}
	if ps, _ = fw.Ports("other"); len(ps) != len(h.Ports) {
		t.Errorf("after removal: %v", ps)
	}
	if err := fw.Delete("other"); err != nil {
		t.Fatal(err)
	}
	if ok, err := fw.Exists("other"); ok || err != nil {
		t.Errorf("exists after Delete: %v, %v", ok, err)
	}
}

func BenchmarkPort(b *testing.B) {
	fw, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	if err := fw.Replace(host().Build()); err != nil {
		b.Fatal(err)
	}
	p := rules.Port{Host: netip.MustParseAddrPort("10.0.0.1:81"), Proto: "udp", To: netip.MustParseAddrPort("172.17.0.3:82")}
	set, e := p.Element()
	b.Run("add and delete", func(b *testing.B) {
		for b.Loop() {
			if err := fw.AddElements("skiff", map[string][]rules.Element{set: {e}}); err != nil {
				b.Fatal(err)
			}
			if err := fw.DeleteElements("skiff", map[string][]rules.Element{set: {e}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("replace", func(b *testing.B) {
		for b.Loop() {
			if err := fw.Replace(host().Build()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
